"""The gate of exports: what ONNX Runtime computes is what torch computes, on sizes that were not traced, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed
from matchcut.server.models import graph
from matchcut.server.tensors import Tensors
from matchcut.server.training.export import difference, export, gate, refused, run_torch

AXES = {"x": {0: "n", 1: "t"}, "lengths": {0: "n"}, "logits": {0: "n"}, "state": {0: "n"}}
OUTPUTS = ["logits", "state"]


class Last(nn.Module):
    """A GRU and a head on its state after so many steps. frozen: it keeps the example's length, as tracing may."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.frozen = frozen
        self.gru = nn.GRU(6, 5, batch_first=True)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Any, lengths: Any) -> Any:
        states, _ = self.gru(x)
        if self.frozen:
            size = int(x.shape[1])  # what tracing makes a constant of
            return self.head(states[:, size - 1]), states[:, size - 1]
        at = (lengths - 1)[:, None, None].expand(-1, 1, 5)
        state = states.gather(1, at)[:, 0]
        return self.head(state), state


def inputs(n: int, t: int, seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    return {"x": rng.standard_normal((n, t, 6)).astype(np.float32), "lengths": rng.integers(1, t + 1, n)}


PROBES = [inputs(1, 1), inputs(5, 9), inputs(3, 2)]


def test_a_module_becomes_one_file_with_open_sizes(tmp_path: Any) -> None:
    module = Last().train()
    made = export(module, inputs(2, 4), OUTPUTS, axes=AXES, probes=PROBES)
    assert module.training
    assert 0 < made.error <= 1e-6
    assert made.tried == {"n": (1, 2, 3, 5), "t": (1, 2, 4, 9)}
    path = tmp_path / "model.onnx"
    path.write_bytes(made.content)
    engine = GraphEngine(graph.read(path), threads=1)  # which refuses weights in other files
    assert [(spec.name, spec.dtype, spec.shape) for spec in (*engine.inputs, *engine.outputs)] == [
        ("x", "FP32", (-1, -1, 6)),
        ("lengths", "INT64", (-1,)),
        ("logits", "FP32", (-1, 4)),
        ("state", "FP32", (-1, 5)),
    ]
    other = inputs(17, 31, seed=5)
    found = engine.run(other)
    for name, wanted in zip(OUTPUTS, run_torch(module, other), strict=True):
        np.testing.assert_allclose(found[name], wanted, atol=1e-6)
    engine.close()


def test_the_bytes_are_the_same_again() -> None:
    first, again = (export(Last(), inputs(2, 4), OUTPUTS, axes=AXES, probes=PROBES).content for _ in range(2))
    assert first == again
    assert __file__.encode() not in first


def test_a_frozen_length_is_refused() -> None:
    with pytest.raises(EngineFailed, match="was not written") as caught:
        export(Last(frozen=True), inputs(2, 4), OUTPUTS, axes=AXES, probes=PROBES)
    assert caught.value.reason == "PARITY_FAILED"


def test_probes_of_one_size_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="the axes t have one size"):
        export(Last(), inputs(2, 4), OUTPUTS, axes=AXES, probes=[inputs(3, 4)])


def test_an_axis_that_is_not_open_is_refused() -> None:
    module = Last()
    axes = {**AXES, "x": {0: "n"}}
    content = export(module, inputs(2, 4), OUTPUTS, axes=axes, probes=[inputs(3, 4)]).content
    with pytest.raises(EngineFailed, match="'t' should be open"):
        gate(content, module, [inputs(2, 4)], OUTPUTS, axes=AXES)


@pytest.mark.parametrize(("change", "passes"), [(0.0, True), (1e-7, True), (1e-3, False), (float("nan"), False)])
def test_another_weight_is_refused(change: float, passes: bool) -> None:
    module = Last()
    model = onnx.load_from_string(export(module, inputs(2, 4), OUTPUTS, axes=AXES, probes=PROBES).content)
    bias = next(each for each in model.graph.initializer if each.name == "head.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(change), "head.bias"))
    content = model.SerializeToString()
    if passes:
        assert gate(content, module, PROBES, OUTPUTS, axes=AXES) <= 1e-5
    else:
        with pytest.raises(EngineFailed, match="off torch in 'logits'") as caught:
            gate(content, module, PROBES, OUTPUTS, axes=AXES)
        assert caught.value.reason == "PARITY_FAILED"


def test_what_fails_in_the_engine_is_refused() -> None:
    module = Last()
    content = export(module, inputs(2, 4), OUTPUTS, axes=AXES, probes=PROBES).content
    broken: Tensors = {"x": np.zeros((2, 4, 7), np.float32), "lengths": np.ones(2, np.int64)}
    with pytest.raises(EngineFailed, match=r"fails on x \(2, 4, 7\), lengths \(2,\)"):
        gate(content, module, [broken], OUTPUTS, axes=AXES)


def test_weights_beside_the_file_are_refused() -> None:
    module = Last()
    model = onnx.load_from_string(export(module, inputs(2, 4), OUTPUTS, axes=AXES, probes=PROBES).content)
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL
    with pytest.raises(EngineFailed, match="keeps weights in another file"):
        gate(model.SerializeToString(), module, PROBES, OUTPUTS, axes=AXES)


def test_a_module_that_cannot_be_traced_is_said_so() -> None:
    class Broken(nn.Module):
        def forward(self, x: Any, lengths: Any) -> Any:
            raise RuntimeError("no")

    with pytest.raises(EngineFailed, match="demo cannot be exported: no") as caught:
        export(Broken(), inputs(2, 4), OUTPUTS, axes=AXES, probes=PROBES, name="demo")
    assert caught.value.reason == "EXPORT_FAILED"


def test_the_difference_is_by_size_and_never_hides_nan() -> None:
    one = np.ones(3, np.float32)
    assert difference(one, one) == 0
    assert difference(one * 0, one * 0.25) == 0.25
    assert difference(one * 101, one * 100) == pytest.approx(0.01)
    assert np.isnan(difference(one * np.float32(np.inf), one))
    assert np.isnan(difference(one, one * np.float32("nan")))
    assert difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0
    assert refused("m", "is wrong").message == "the exported m is wrong; it was not written"
