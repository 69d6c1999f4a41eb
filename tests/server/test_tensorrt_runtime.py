"""How an engine is run, on a stand-in for the library that computes in host memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from matchcut.server.engines.tensorrt.manifest import Batch
from matchcut.server.engines.tensorrt.runtime import KEPT
from matchcut.server.errors import EngineFailed
from support.fake_trt import STREAM, FakeGpu, FakeTrt, embedded, engine_of, pictures


@pytest.fixture
def trt() -> FakeTrt:
    return FakeTrt()


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


def test_a_run(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    assert engine.variant == "tensorrt-rtx-fp16"
    for n in (1, 3, 4):
        np.testing.assert_allclose(engine.run(pictures(n)), embedded(pictures(n)), rtol=1e-6)
    assert [(n, stream) for _, n, stream, _ in trt.runs] == [(1, STREAM), (3, STREAM), (4, STREAM)]


def test_larger_batches_run_in_pieces(trt: FakeTrt, gpu: FakeGpu) -> None:
    batch = pictures(11)
    np.testing.assert_allclose(engine_of(trt, gpu).run(batch), embedded(batch), rtol=1e-6)
    assert [n for _, n, _, _ in trt.runs] == [4, 4, 3]


def test_pieces_are_alike_so_that_none_is_too_small(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu, Batch(2, 2, 4))
    np.testing.assert_allclose(engine.run(pictures(9)), embedded(pictures(9)), rtol=1e-6)
    assert [n for _, n, _, _ in trt.runs] == [3, 3, 3]


def test_context_and_memory_of_a_size_stay_so_that_its_graph_holds(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    for n in (1, 4, 1, 4, 1):
        engine.run(pictures(n))
    assert len({(n, tuple(sorted(addresses.items()))) for _, n, _, addresses in trt.runs}) == 2
    assert len({(n, id(context)) for context, n, _, _ in trt.runs}) == 2
    assert [settings.cuda_graph_strategy for settings in trt.settings] == ["whole", "whole"]


def test_of_many_sizes_the_longest_unused_goes(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu, Batch(1, 8, 32))
    for n in range(1, KEPT + 1):
        engine.run(pictures(n))
    assert trt.contexts == KEPT, "the first was made at the start"
    engine.run(pictures(1))
    engine.run(pictures(20))
    assert trt.contexts == KEPT + 1
    engine.run(pictures(1))
    assert trt.contexts == KEPT + 1
    np.testing.assert_allclose(engine.run(pictures(2)), embedded(pictures(2)), rtol=1e-6)
    assert trt.contexts == KEPT + 2, "the one of two pictures was the longest unused"


def test_where_nothing_can_be_recorded_it_runs_kernel_by_kernel(gpu: FakeGpu, caplog: pytest.LogCaptureFixture) -> None:
    trt = FakeTrt(graphs=False)
    engine = engine_of(trt, gpu)
    with caplog.at_level("INFO", "matchcut"):
        for _ in range(3):
            np.testing.assert_allclose(engine.run(pictures(2)), embedded(pictures(2)), rtol=1e-6)
    assert trt.settings == [None, None]
    told = "batches of 2 are launched kernel by kernel, they cannot be recorded: no graphs here"
    assert [record.getMessage() for record in caplog.records] == [told]


def test_runs_at_once_have_memory_of_their_own(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    meet = threading.Barrier(3, timeout=30)

    def wait() -> None:
        meet.wait()

    trt.meanwhile = wait
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda seed: engine.run(pictures(4, seed)), range(3)))
    for seed in range(3):
        np.testing.assert_allclose(found[seed], embedded(pictures(4, seed)), rtol=1e-6)
    assert trt.contexts == 1 + 3
    trt.meanwhile = lambda: None
    engine.run(pictures(4))
    assert trt.contexts == 1 + 3, "they are used again"


def test_a_batch_that_is_too_small(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu, Batch(3, 3, 4))
    for n, least in ((1, 1), (5, 2)):
        with pytest.raises(EngineFailed, match=f"takes batches of 3 or more, not {least}; build it with --batch"):
            engine.run(pictures(n))


def test_a_run_that_is_refused(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    trt.failing = True
    with pytest.raises(EngineFailed, match="TensorRT refuses a batch of 2: enqueueV3: no such thing"):
        engine.run(pictures(2))
    trt.failing = False
    np.testing.assert_allclose(engine.run(pictures(2)), embedded(pictures(2)), rtol=1e-6)
    assert trt.runs[0][0] is not trt.runs[1][0], "what may still be at work is not used again"


def test_an_engine_that_the_library_refuses(trt: FakeTrt, gpu: FakeGpu) -> None:
    trt.tensors = None
    with pytest.raises(
        EngineFailed, match=r"refuses the engine of toy\.onnx: the plan is of another version"
    ) as caught:
        engine_of(trt, gpu)
    assert caught.value.reason == "ENGINE_STALE"


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("pixels", ("in", (-1, 3, 4, 2), "float")),
        ("pixels", ("in", (-1, 3, 2, 4), "half")),
        ("vector", ("out", (-1, 7), "float")),
        ("more", ("out", (-1, 6), "float")),
        ("more", ("in", (-1, 1), "float")),
        ("vector", ("in", (-1, 6), "float")),
    ],
)
def test_an_engine_of_another_network(
    trt: FakeTrt, gpu: FakeGpu, name: str, tensor: tuple[str, tuple[int, ...], str]
) -> None:
    assert trt.tensors is not None
    trt.tensors[name] = tensor
    with pytest.raises(EngineFailed, match=r"where toy has one float32 tensor of .*; build it again"):
        engine_of(trt, gpu)


def test_without_memory_for_a_context(trt: FakeTrt, gpu: FakeGpu) -> None:
    trt.full = True
    with pytest.raises(EngineFailed, match="no execution context: it does not say why; the GPU's memory may be full"):
        engine_of(trt, gpu)


def test_closing(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    engine.run(pictures(1))
    engine.close()
    engine.close()
    assert gpu.closed == 1
    with pytest.raises(EngineFailed, match="is closed"):
        engine.run(pictures(1))
