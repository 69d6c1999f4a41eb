"""An engine on the simulated driver: pictures go up, the real kernel preprocesses them, vectors come down.

The library is a stand-in whose network is a function of the host, put on the stream as its kernels would be. What is
recorded, replayed, launched and copied is the real launcher's, on the real PyCUDA.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_void_p
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from numpy.typing import NDArray

from cuda_sim.contexts import simulated_context
from cuda_sim.host_work import HostWork
from cuda_sim.simulation import Simulation
from matchcut.kernels.cuda import Context
from matchcut.kernels.gpu.preprocess import KERNELS
from matchcut.kernels.preprocess import preprocess
from matchcut.server import models
from matchcut.server.engines import SeeingEngine
from matchcut.server.engines.tensorrt.manifest import Batch
from matchcut.server.engines.tensorrt.runtime import TensorRt
from matchcut.server.errors import DeviceLost, EngineFailed
from matchcut.server.records import EncoderIdentity, InputSize
from support.fake_trt import FakeTrt, embedded, library_of

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 50.0, 40.0)
ENCODER = models.Encoder(Path("toy.onnx"), EncoderIdentity("toy", "1", "ab" * 32, 6), InputSize(4, 2), MEAN, STD)


class Bench:
    """An engine on the simulation, and what is under it. trt: records its own graphs where that is asked for."""

    def __init__(self, context: Context, simulation: Simulation) -> None:
        self.context, self.simulation, self.work = context, simulation, HostWork(simulation)
        self.engines: list[TensorRt] = []

    def engine(self, trt: FakeTrt, batch: Batch = Batch(1, 4, 8), **how: Any) -> TensorRt:  # noqa: B008  # frozen
        trt.launched = self.work
        made = TensorRt(
            ENCODER,
            "tensorrt-fp16",
            library=library_of(trt),
            engine=b"plan",
            batch=batch,
            gpu=self.context,
            owned=False,
            **how,
        )
        self.engines.append(made)
        return made


@pytest.fixture
def bench(simulation: Simulation) -> Iterator[Bench]:
    with simulated_context(KERNELS) as context:
        made = Bench(context, simulation)
        yield made
        for engine in made.engines:
            engine.close()


def pictures(n: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (n, 2, 4, 3), np.uint8)


def wanted(shown: NDArray[np.uint8]) -> NDArray[np.float32]:
    return embedded(preprocess(shown, MEAN, STD, "NCHW"))


def launched(bench: Bench) -> int:
    return sum(launch.name == "preprocess_rgb_fp32" for launch in bench.simulation.launches)


@pytest.mark.parametrize("graphs", [False, True], ids=["tensorrt", "tensorrt-rtx"])
def test_pictures_go_up_and_vectors_come_down(bench: Bench, graphs: bool) -> None:
    trt = FakeTrt(graphs=graphs)
    engine = bench.engine(trt)
    assert isinstance(engine, SeeingEngine)
    assert engine.sight == "cuda-90"
    for turn in range(4):
        shown = pictures(3, turn)
        vectors, spent = engine.see(shown)
        np.testing.assert_allclose(vectors, wanted(shown), rtol=1e-5)
        assert spent > 0, "the simulation counts operations as milliseconds"
    assert launched(bench) == 4
    assert bench.work.done == 4
    # Plain TensorRT: once to set itself up, once recorded, and never again asked. The other records by itself.
    assert [n for _, n, _, _ in trt.runs] == ([4] * 4 if graphs else [4] * 2), "there is no run of three"
    assert bench.simulation.counts.replays == (0 if graphs else 3)


def test_what_goes_in_as_numbers_takes_the_same_way_without_the_kernel(bench: Bench) -> None:
    engine = bench.engine(FakeTrt(graphs=False))
    for seed in range(3):
        batch = preprocess(pictures(3, seed), MEAN, STD, "NCHW")
        np.testing.assert_allclose(engine.run(batch), embedded(batch), rtol=1e-6)
    assert launched(bench) == 0
    assert bench.simulation.counts.replays == 2


def test_each_size_has_a_graph_of_its_own(bench: Bench) -> None:
    engine = bench.engine(FakeTrt(graphs=False))
    for turn, n in enumerate((1, 5, 1, 8, 7, 1, 20)):
        shown = pictures(n, turn)
        np.testing.assert_allclose(engine.see(shown).vectors, wanted(shown), rtol=1e-5)
    assert bench.simulation.counts.graphs == 3, "of 1, 8 and 4 pictures"
    assert bench.simulation.counts.replays == 2 + 2 + 2, "20 go as 8, 8 and 4, and the last is the first of its size"


def test_threads_do_not_share_what_is_recorded(bench: Bench) -> None:
    engine = bench.engine(FakeTrt(graphs=False))
    shown = [pictures(4, seed) for seed in range(12)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(engine.see, shown))
    for each, seen in zip(shown, found, strict=True):
        np.testing.assert_allclose(seen.vectors, wanted(each), rtol=1e-5)


def test_what_cannot_be_recorded_runs_all_the_same(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    trt = FakeTrt(graphs=False)

    def waits(stream: int, work: Any) -> None:
        bench.simulation.library.cuStreamSynchronize(c_void_p(stream))  # as a loop whose end the host decides
        bench.work(stream, work)

    engine = bench.engine(trt)
    trt.launched = waits
    with caplog.at_level("INFO", "matchcut"):
        for turn in range(3):
            np.testing.assert_allclose(engine.see(pictures(2, turn)).vectors, wanted(pictures(2, turn)), rtol=1e-5)
    assert "batches of 2 are launched kernel by kernel, they cannot be recorded" in caplog.text
    assert bench.simulation.counts.graphs == 0


def test_a_run_that_is_refused_frees_its_graph(bench: Bench) -> None:
    trt = FakeTrt()
    engine = bench.engine(trt)
    trt.failing = True
    with pytest.raises(EngineFailed, match="refuses a batch of 2: enqueueV3"):
        engine.see(pictures(2))
    trt.failing = False
    np.testing.assert_allclose(engine.see(pictures(2)).vectors, wanted(pictures(2)), rtol=1e-5)


@pytest.mark.parametrize(
    "shown",
    [
        np.zeros((0, 2, 4, 3), np.uint8),
        np.zeros((2, 4, 2, 3), np.uint8),
        np.zeros((2, 3, 2, 4), np.uint8),
        np.zeros((2, 2, 4, 3), np.float32),
        np.zeros((2, 4, 3), np.uint8),
    ],
)
def test_other_pictures_are_refused(bench: Bench, shown: Any) -> None:
    with pytest.raises(EngineFailed, match=r"where toy takes \('n', 2, 4, 3\), uint8, n at least 1"):
        bench.engine(FakeTrt()).see(shown)


def test_pictures_that_do_not_lie_together(bench: Bench) -> None:
    shown = pictures(6)[::2, ::-1]
    np.testing.assert_allclose(bench.engine(FakeTrt()).see(shown).vectors, wanted(shown), rtol=1e-5)


def test_a_network_that_gives_no_numbers(bench: Bench) -> None:
    trt = FakeTrt(graphs=False)
    engine = bench.engine(trt)
    trt.network = lambda batch: embedded(batch) * np.float32(np.nan)
    with pytest.raises(EngineFailed, match="numbers that are not finite"):
        engine.see(pictures(2))


def test_a_lost_gpu_is_told_in_the_words_of_whoever_opened_it(bench: Bench, simulation: Simulation) -> None:
    told: list[Exception] = []

    def failed(error: Exception) -> NoReturn:
        told.append(error)
        raise DeviceLost("the GPU was lost")

    engine, other = bench.engine(FakeTrt(graphs=False), failed=failed), bench.engine(FakeTrt())
    engine.see(pictures(2))
    simulation.fail_launch()
    with pytest.raises(DeviceLost, match="the GPU was lost"):
        engine.see(pictures(2))
    assert len(told) == 1
    with pytest.raises(DeviceLost):
        engine.see(pictures(2))
    with pytest.raises(EngineFailed, match=r"failed on a batch of 2: .*lost"):
        other.see(pictures(2))
    engine.close()
    with pytest.raises(EngineFailed, match="is closed"):
        engine.see(pictures(2))


def test_a_full_gpu(bench: Bench, simulation: Simulation) -> None:
    engine = bench.engine(FakeTrt())
    simulation.settings.memory = simulation.counts.used
    with pytest.raises(EngineFailed, match=r"failed on a batch of 8: .*device memory are not to be had"):
        engine.see(pictures(8))
    simulation.settings.memory = 1 << 30
    np.testing.assert_allclose(engine.see(pictures(8)).vectors, wanted(pictures(8)), rtol=1e-5)
