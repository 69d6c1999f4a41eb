"""Engines are really built, without a GPU: the default encoder and a GRU's step, in every precision."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from matchcut.server.engines.tensorrt import build as building
from matchcut.server.engines.tensorrt import library as libraries
from matchcut.server.engines.tensorrt.build import build
from matchcut.server.engines.tensorrt.library import Library
from matchcut.server.engines.tensorrt.manifest import Batch
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.models import gru
from matchcut.server.precision import casts, network, quantize
from support import precisions
from support.tensorrt_rtx import MAGIC, needed

pytestmark = needed

TARGETS = pytest.mark.parametrize("target", [(86,), (120,), (80, 86, 89, 120)], ids=str)
EACH = pytest.mark.parametrize("which", ["fp32", "fp16", "bf16", "int8"])


@pytest.fixture(scope="module")
def rtx() -> Library:
    return libraries.find("tensorrt_rtx")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A GRU's step in every precision."""
    rng = np.random.default_rng(0)

    def some(*shape: int) -> Any:
        return (rng.standard_normal(shape) * 0.3).astype(np.float32)

    plain = gru.write(gru.Weights(some(192, 32), some(192, 64), some(192), some(192)))
    path = tmp_path_factory.mktemp("gru") / "step.onnx"
    path.write_bytes(plain)
    model = network.read(path)
    seen = quantize.ranges(model, {gru.INPUT: some(20, 32), gru.STATE: some(20, 64)})
    quantised = quantize.quantised(model, seen, network.products(model))
    assert [node.op_type for node in quantised.graph.node].count("DequantizeLinear") == 2 + 6
    return {
        "fp32": plain,
        "fp16": network.serialised(casts.lowered(model, "fp16")),
        "bf16": network.serialised(casts.lowered(model, "bf16")),
        "int8": network.serialised(quantised),
    }


def encoder_file(which: Any) -> Path:
    return precisions.plain().path if which == "fp32" else precisions.written(which).path


def test_what_the_library_says_of_itself(rtx: Library) -> None:
    assert rtx.name == "tensorrt_rtx"
    assert rtx.version == rtx.module.__version__
    assert {75, 80, 86, 89, 120} <= set(rtx.targets)
    assert not {87, 90, 100} & set(rtx.targets)


@EACH
@TARGETS
def test_the_default_encoder(media: Path, rtx: Library, which: str, target: tuple[int, ...]) -> None:
    phases: dict[str, list[tuple[int, int]]] = {}
    onnx_file = encoder_file(which)
    engine = build(
        onnx_file.read_bytes(),
        rtx,
        targets=target,
        batch=Batch(1, 8, 32),
        first_output_only=True,
        phase=lambda name, done, steps: phases.setdefault(name, []).append((done, steps)),
    )
    assert engine.startswith(MAGIC)
    # The weights are in it, without the classifier's.
    share = {"fp32": 1.0, "fp16": 0.5, "bf16": 0.5, "int8": 0.25}[which]
    assert share * 13e6 < len(engine) < 20e6
    assert "Building engine" in phases
    for calls in phases.values():
        assert calls[0][0] == 0
        assert all(0 <= done <= steps for done, steps in calls)
        assert calls[-1][0] == calls[-1][1], "not finished"


@EACH
def test_a_step_of_a_gru(rtx: Library, steps: dict[str, bytes], which: str) -> None:
    for target in ((86,), (120,)):
        engine = build(steps[which], rtx, targets=target, batch=Batch(1, 4, 64))
        assert engine.startswith(MAGIC)
        assert len(engine) > 0.9 * len(steps[which])


def test_the_decaying_mean(rtx: Library) -> None:
    engine = build(gru.write(gru.decaying_mean(1280, 8)), rtx, targets=(89,), batch=Batch(1, 1, 16))
    assert 4 * 1280 * 1280 < len(engine) < 2 * 4 * 1280 * 1280


def test_what_only_other_outputs_need_is_left_out(media: Path, rtx: Library) -> None:
    plain = precisions.plain().path.read_bytes()
    all_of_it, vector = (build(plain, rtx, targets=(86,), first_output_only=only) for only in (False, True))
    assert len(all_of_it) - len(vector) > 0.9 * 4 * 1280 * 1000, "the classifier's weights"


def test_targets_that_the_library_does_not_know(rtx: Library, steps: dict[str, bytes]) -> None:
    for target, shown in (((90,), "9.0"), ((86, 100), "10.0"), ((0,), "0.0")):
        with pytest.raises(InvalidInput, match=f"does not build for compute capability {shown}, only for 75, 80, 86"):
            build(steps["fp32"], rtx, targets=target)
    with pytest.raises(InvalidInput, match="has to be told what to build for; give --target"):
        build(steps["fp32"], rtx)


def test_what_a_target_cannot_compute(rtx: Library, steps: dict[str, bytes]) -> None:
    with pytest.raises(EngineFailed, match=r"cannot build the engine: .*SM75") as caught:
        build(steps["fp32"], rtx, targets=(75,))
    assert caught.value.reason == "ENGINE_NOT_BUILT"


def graph(*nodes: Any, shape: tuple[Any, ...] = ("n", 3, 8, 8)) -> bytes:
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))],
            [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, None)],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my.own", 1)],
        ir_version=8,
    )
    data: bytes = made.SerializeToString()
    return data


def test_a_node_that_is_not_understood_is_named(rtx: Library) -> None:
    good = helper.make_node("Relu", ["image"], ["fine"], name="good")
    odd = helper.make_node("Frobnicate", ["fine"], ["embedding"], name="the_odd_one", domain="my.own")
    with pytest.raises(EngineFailed, match=r"the node 'the_odd_one' \(Frobnicate\) is not understood: ") as caught:
        build(graph(good, odd), rtx, targets=(86,))
    assert caught.value.reason == "ENGINE_NOT_BUILT"
    missing = helper.make_node("Relu", ["nothing"], ["embedding"], name="astray")
    with pytest.raises(EngineFailed, match="the node 'astray'"):
        build(graph(missing), rtx, targets=(86,))


@pytest.mark.parametrize("data", [b"", b"not ONNX", b"\x08\x08" * 30])
def test_bytes_that_are_no_model(rtx: Library, data: bytes) -> None:
    with pytest.raises(EngineFailed, match=r"is not understood|cannot build"):
        build(data, rtx, targets=(86,))


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), ("n", 3, "h", 8)])
def test_only_the_batch_may_be_open(rtx: Library, shape: tuple[Any, ...]) -> None:
    relu = helper.make_node("Relu", ["image"], ["embedding"], name="relu")
    with pytest.raises(EngineFailed, match=r"the input 'image' has shape .*; its first size has to be open"):
        build(graph(relu, shape=shape), rtx, targets=(86,))


class Enough(Exception):
    """What stops a build."""


@pytest.mark.parametrize("error", [Enough, KeyboardInterrupt])
def test_a_build_can_be_stopped(rtx: Library, steps: dict[str, bytes], error: type[BaseException]) -> None:
    def stop(name: str, done: int, count: int) -> None:
        if done:
            raise error

    with pytest.raises(error):
        build(steps["fp32"], rtx, targets=(86,), phase=stop)


@pytest.mark.parametrize("how", ["stopped", "not understood", "cannot be computed"])
def test_nothing_of_a_failed_build_waits_for_the_garbage_collector(
    rtx: Library, steps: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Which could come in the middle of the next build, and lock it up."""
    logs: list[weakref.ref[Any]] = []
    honest = libraries.logger

    def watched(library: Library) -> Any:
        log = honest(library)
        logs.append(weakref.ref(log))
        return log

    def stop(name: str, done: int, count: int) -> None:
        if how == "stopped":
            raise Enough

    monkeypatch.setattr(building, "logger", watched)
    gc.disable()
    try:
        with pytest.raises((Enough, EngineFailed)) as caught:
            build(
                b"no model" if how == "not understood" else steps["fp32"],
                rtx,
                targets=(75,) if how == "cannot be computed" else (86,),
                phase=stop,
            )
        assert caught.value.__traceback__ is not None
        assert [log() for log in logs] == [None], "the logger, which all of them refer to, is still there"
    finally:
        gc.enable()


@pytest.mark.parametrize(
    "text", ["", "8", "1:8", "1:8:32:64", "8:1:32", "0:8:32", "1:8:2048", "-1:8:32", "1:x:32", "1: 8:9"]
)
def test_batches_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInput, match="give the least, the usual and the largest batch") as caught:
        Batch.parse(text)
    assert caught.value.field == "batch"


def test_batches() -> None:
    assert Batch.parse("1:8:32") == Batch() == (1, 8, 32)
    assert Batch.parse("4:4:4") == (4, 4, 4)


# ---- plain TensorRT, which is not here ----


def test_plain_tensorrt_builds_for_the_gpu_at_hand_only() -> None:
    old = SimpleNamespace(__version__="8.6.1", IBuilderConfig=object)
    with pytest.raises(EngineFailed, match=r"tensorrt 8\.6\.1 is too old; version 10 or newer"):
        libraries.described(old, "tensorrt")
    new = SimpleNamespace(__version__="10.3.0.30", IBuilderConfig=object, ILogger=None)
    plain = libraries.described(new, "tensorrt")
    assert (plain.version, plain.targets) == ("10.3.0.30", ())
    with pytest.raises(InvalidInput, match="builds for the GPU at hand only; leave --target out"):
        build(b"", plain, targets=(80, 86))


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError, match="tensorrt_of_old"):
        libraries.find("tensorrt_of_old")
    monkeypatch.setattr(libraries, "NAMES", ("tensorrt_of_old", "tensorrt_rtx"))
    assert libraries.find().name == "tensorrt_rtx"
    monkeypatch.setattr(libraries, "NAMES", ("tensorrt_of_old",))
    with pytest.raises(ImportError, match="tensorrt_of_old"):
        libraries.find()
