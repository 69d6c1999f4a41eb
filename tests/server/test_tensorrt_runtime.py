"""How an engine is run, on a stand-in for the library that computes in host memory."""

from __future__ import annotations

import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn
from weakref import ref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.kernels.cuda.errors import DeviceLost
from matchcut.server.engines.tensorrt.manifest import Batch
from matchcut.server.engines.tensorrt.runtime import pieces, sizes
from matchcut.server.errors import DeviceLost as ServerLost
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
    for n in (1, 2, 4):
        np.testing.assert_allclose(engine.run(pictures(n)), embedded(pictures(n)), rtol=1e-6)
    assert [(n, stream) for _, n, stream, _ in trt.runs] == [(1, STREAM), (2, STREAM), (4, STREAM)]


@pytest.mark.parametrize(
    ("batch", "wanted"),
    [
        (Batch(1, 8, 32), (1, 2, 4, 8, 16, 32)),
        (Batch(1, 2, 5), (1, 2, 4, 5)),
        (Batch(3, 3, 4), (3, 4)),
        (Batch(8, 8, 8), (8,)),
        (Batch(1, 1, 1), (1,)),
    ],
)
def test_the_sizes_of_runs(batch: Batch, wanted: tuple[int, ...]) -> None:
    assert sizes(batch) == wanted


@given(st.integers(1, 40), st.integers(0, 40), st.integers(1, 500))
def test_every_picture_is_in_one_run_that_has_room_for_it(least: int, more: int, count: int) -> None:
    batch = Batch(least, least, least + more)
    found = pieces(count, batch)
    assert sum(rows for rows, _ in found) == count
    assert all(rows <= size and size in sizes(batch) for rows, size in found)
    assert len(found) == -(-count // batch.most), "no more runs than it takes"
    assert all(size < 2 * rows or size == batch.least for rows, size in found), "less than half of it is in vain"


def test_larger_batches_run_in_pieces(trt: FakeTrt, gpu: FakeGpu) -> None:
    batch = pictures(11)
    np.testing.assert_allclose(engine_of(trt, gpu).run(batch), embedded(batch), rtol=1e-6)
    assert [n for _, n, _, _ in trt.runs] == [4, 4, 4]
    assert len({id(context) for context, _, _, _ in trt.runs}) == 1, "they follow each other on one stream"


def test_fewer_than_the_engine_takes_are_one_run_all_the_same(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu, Batch(3, 3, 4))
    for n in (1, 5):
        np.testing.assert_allclose(engine.run(pictures(n)), embedded(pictures(n)), rtol=1e-6)
    assert [n for _, n, _, _ in trt.runs] == [3, 4, 3]


def test_context_and_memory_of_a_size_stay_so_that_its_graph_holds(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    for n in (1, 3, 4, 1, 4, 3, 1):
        engine.run(pictures(n))
    assert len({(n, tuple(sorted(addresses.items()))) for _, n, _, addresses in trt.runs}) == 2
    assert len({(n, id(context)) for context, n, _, _ in trt.runs}) == 2


def test_contexts_of_rtx_are_ready_when_they_are_there(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    for n in (1, 2, 4):
        engine.run(pictures(n))
    told = {(each.cuda_graph_strategy, each.dynamic_shapes_kernel_specialization_strategy) for each in trt.settings}
    assert told == {("whole", "eager")}
    assert len({id(each.cache) for each in trt.settings}) == trt.caches == 1, "kernels are compiled once"


@pytest.mark.parametrize("graphs", [False, True], ids=["tensorrt", "tensorrt-rtx"])
def test_a_context_takes_the_memory_of_its_size(gpu: FakeGpu, graphs: bool) -> None:
    trt = FakeTrt(graphs=graphs)
    engine = engine_of(trt, gpu)
    for n in (1, 4):
        engine.run(pictures(n))
    assert {context.scratch[1] for context, _, _, _ in trt.runs} == {100, 400}
    asked = [each.allocation if graphs else each for each in trt.settings]
    assert asked == ["user", "user"]
    assert len({context.scratch[0] for context, _, _, _ in trt.runs}) == 2


@pytest.mark.parametrize("graphs", [False, True], ids=["tensorrt", "tensorrt-rtx"])
def test_a_library_whose_contexts_have_memory_of_their_own(gpu: FakeGpu, graphs: bool) -> None:
    trt = FakeTrt(graphs=graphs, managed=False)
    np.testing.assert_allclose(engine_of(trt, gpu).run(pictures(2)), embedded(pictures(2)), rtol=1e-6)
    assert {context.scratch for context, _, _, _ in trt.runs} == {(0, 0)}


def test_where_nothing_can_be_recorded_it_runs_kernel_by_kernel(gpu: FakeGpu, caplog: pytest.LogCaptureFixture) -> None:
    trt = FakeTrt(graphs=False)
    engine = engine_of(trt, gpu)
    with caplog.at_level("INFO", "matchcut"):
        for _ in range(3):
            np.testing.assert_allclose(engine.run(pictures(2)), embedded(pictures(2)), rtol=1e-6)
    assert trt.settings == ["user", "user"]
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
    trt.room = 0
    with pytest.raises(EngineFailed, match=r"cannot load .*: TensorRT gives no execution context: it does not"):
        engine_of(trt, gpu)


def test_where_there_is_no_room_what_nobody_uses_gives_way(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    for n in (1, 2):
        engine.run(pictures(n))
    dropped = [ref(context) for context, _, _, _ in trt.runs]
    trt.runs.clear()
    trt.room = 0

    def given(settings: Any) -> Any:
        trt.room = 0 if any(each() for each in dropped) else 1
        return trt._context(settings)

    engine._engine.create_execution_context = given
    np.testing.assert_allclose(engine.run(pictures(4)), embedded(pictures(4)), rtol=1e-6)
    assert not any(each() for each in dropped)
    trt.runs.clear()


def test_what_failed_is_dropped_with_the_next_run(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    trt.failing = True
    with pytest.raises(EngineFailed):
        engine.run(pictures(1))
    trt.failing = False
    failed = ref(trt.runs.pop()[0])
    gc.collect()
    assert failed() is not None, "its GPU's context is not current"
    engine.run(pictures(1))
    assert failed() is None


def test_a_gpu_whose_loss_the_library_finds_first(trt: FakeTrt, gpu: FakeGpu) -> None:
    told: list[Exception] = []

    def failed(error: Exception) -> NoReturn:
        told.append(error)
        raise ServerLost("it is lost")

    engine = engine_of(trt, gpu, failed=failed)
    trt.failing = True

    def lose() -> None:
        gpu.lost = True

    trt.meanwhile = lose
    with pytest.raises(ServerLost, match="it is lost"):
        engine.run(pictures(2))
    assert [type(error) for error in told] == [DeviceLost]
    gpu.fails = DeviceLost("it was lost before")
    engine.close()


def test_closing(trt: FakeTrt, gpu: FakeGpu) -> None:
    engine = engine_of(trt, gpu)
    engine.run(pictures(1))
    engine.close()
    engine.close()
    assert gpu.closed == 1
    with pytest.raises(EngineFailed, match="is closed"):
        engine.run(pictures(1))
