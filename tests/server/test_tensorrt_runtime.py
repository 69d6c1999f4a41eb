"""How an engine is run, on a stand-in for the library that computes in host memory."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from matchcut.server.engines.tensorrt.manifest import Batch
from matchcut.server.errors import EngineFailed
from support.fake_trt import STREAM, FakeContext, FakeGpu, FakeTrt, embedded, engine_of, pictures, seen


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


def test_memory_stays_where_it_is_so_that_graphs_are_captured_once(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    for n in (1, 4, 1, 9):
        engine.run(pictures(n))
    assert len({tuple(sorted(addresses.items())) for _, _, _, addresses in trt.runs}) == 1
    assert len({id(context) for context, _, _, _ in trt.runs}) == 1
    assert [settings.cuda_graph_strategy for settings in trt.settings] == ["whole"]


def test_a_library_that_captures_no_graphs(gpu: FakeGpu) -> None:
    trt = FakeTrt(graphs=False)
    engine_of(trt, gpu).run(pictures(2))
    assert trt.settings == [None]


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
    assert trt.contexts == 3
    trt.meanwhile = lambda: None
    engine.run(pictures(1))
    assert trt.contexts == 3, "they are used again"


def test_on_the_device_nothing_is_copied(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    with gpu.lane() as lane:
        source, result = gpu.allocate(3 * 24 * 4), gpu.allocate(3 * 6 * 4)
        seen(source.address, (3, 3, 2, 4))[...] = pictures(3)
        engine.enqueue(FakeContext(trt), lane, source, result, 3)
    assert gpu.uploads == 0
    assert trt.runs[-1][3] == {"pixels": source.address, "vector": result.address}
    np.testing.assert_allclose(seen(result.address, (3, 6)), embedded(pictures(3)), rtol=1e-6)
    with gpu.lane() as lane, pytest.raises(ValueError, match="are not within a buffer"):
        engine.enqueue(FakeContext(trt), lane, source, result, 4)
    with gpu.lane() as lane, pytest.raises(ValueError, match="are not within a buffer"):
        engine.enqueue(FakeContext(trt), lane, gpu.allocate(1000), result, 4)


def test_a_batch_that_is_too_small(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu, Batch(2, 2, 4))
    with pytest.raises(EngineFailed, match="takes batches of 2 or more, not 1; build it with --batch"):
        engine.run(pictures(5))


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
