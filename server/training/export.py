"""Trained torch modules as one ONNX file each, and a gate: a file that does not compute what torch computes is refused.

PyTorch has two exporters. The one that traces is used here. The newer one (torch.export) needs a package more, freezes
the time axis of a GRU at the example's length whatever is declared open, and writes weights to a file beside the model,
which a server does not follow. Tracing has a trap of its own, of the same kind: a size or a branch that depends on the
data is frozen. So nothing here is believed; the gate runs the file on other sizes than the example's, and compares.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed
from matchcut.server.models import graph_signature
from matchcut.server.models.graph import Graph
from matchcut.server.tensors import Tensor, Tensors

__all__ = ["TOLERANCE", "Exported", "difference", "export", "gate", "refused", "run_torch"]

TOLERANCE = 1e-5

# As of the models that matchcut writes itself (server/models/gru.py): every engine since 2022 reads it.
OPSET = 17

Axes = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True, slots=True)
class Exported:
    """A model that has passed the gate.

    content: the ONNX file. error: the largest difference to torch, as `difference` has it.
    tried: for each open axis the sizes it was run with.
    """

    content: bytes
    error: float
    tried: Mapping[str, tuple[int, ...]]


def export(
    module: Any,
    example: Tensors,
    outputs: Sequence[str],
    *,
    axes: Axes,
    probes: Sequence[Tensors],
    name: str = "model",
    tolerance: float = TOLERANCE,
) -> Exported:
    """Writes a module as ONNX, the same bytes for the same module, and runs it beside torch.

    Args:
        module: a torch.nn.Module on the CPU. It is put into evaluation and back into the mode that it was in.
        example: the inputs by name, in the order in which the module takes them; what is traced. No size of an open
            axis should be 1, which tracing takes for a size to broadcast.
        outputs: names for what the module returns: a tensor, or a tuple of as many.
        axes: of inputs and outputs by name: which of their axes are open, and what their size is called. The same name
            is the same size: {"features": {0: "n", 1: "t"}, "lengths": {0: "n"}, "logits": {0: "n"}}.
        probes: other inputs to compare on. Together with the example each open axis must have at least two sizes.
        name: for messages and in the file.
        tolerance: what the gate lets pass.

    Raises:
        EngineFailed: torch cannot export it, or the file fails the gate (reason PARITY_FAILED).
        ValueError: the probes do not try an open axis with another size; a mistake of the caller's.
        ImportError: onnx or torch is not installed.
    """
    sizes = tried([example, *probes], axes)
    stuck = sorted(axis for axis, found in sizes.items() if len(found) < 2)
    if stuck:
        raise ValueError(f"the axes {', '.join(stuck)} have one size in the example and all probes: give others, too")
    content = traced(module, example, outputs, axes, name)
    error = gate(content, module, [example, *probes], outputs, axes=axes, name=name, tolerance=tolerance)
    return Exported(content, error, sizes)


def gate(
    content: bytes,
    module: Any,
    probes: Sequence[Tensors],
    outputs: Sequence[str],
    *,
    axes: Axes,
    name: str = "model",
    tolerance: float = TOLERANCE,
) -> float:
    """The largest difference between an ONNX file, run by ONNX Runtime, and its module on all the probes.

    Raises:
        EngineFailed: that is above the tolerance, the file is not whole in itself, an axis that should be open is
            not, a run failed or gave another shape, or a number is not finite. Reason PARITY_FAILED.
    """
    signature = graph_signature.read(content)
    if signature.external:
        raise refused(name, "keeps weights in another file")
    for tensor in (*signature.inputs, *signature.outputs):
        for axis, called in axes.get(tensor.name, {}).items():
            if axis >= len(tensor.shape) or tensor.shape[axis] is not None:
                raise refused(name, f"has {tensor.name!r} of shape {tensor.shape}: {called!r} should be open")
    worst = 0.0
    engine = GraphEngine(Graph(Path(f"{name}.onnx"), content), threads=1)
    try:
        for probe in probes:
            sizes = ", ".join(f"{key} {value.shape}" for key, value in probe.items())
            try:
                found = engine.run(probe)
            except EngineFailed as error:
                raise refused(name, f"fails on {sizes}: {error.message}") from error
            for output, wanted in zip(outputs, run_torch(module, probe), strict=True):
                if output not in found or found[output].shape != wanted.shape:
                    shape = found[output].shape if output in found else "missing"
                    raise refused(name, f"gives {output!r} {shape} on {sizes}, where torch gives {wanted.shape}")
                apart = difference(found[output], wanted)
                if not apart <= tolerance:  # also where it is NaN
                    raise refused(name, f"is {apart:.3g} off torch in {output!r} on {sizes}, above {tolerance:g}")
                worst = max(worst, apart)
    finally:
        engine.close()
    return worst


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest |found - wanted|, as a share of the largest |wanted| where that is above 1; NaN if one is not finite.

    Float32 rounds by a share of a number's size, so a difference of large numbers is measured by their size.
    """
    if found.size == 0:
        return 0.0
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("nan")
    return float(np.abs(a - b).max() / max(1.0, float(np.abs(b).max())))


def run_torch(module: Any, inputs: Tensors) -> list[Tensor]:
    """What the module gives in evaluation, one array for each output."""
    import torch

    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            found = module(*(torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values()))
    finally:
        module.train(training)
    return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]


def traced(module: Any, example: Tensors, outputs: Sequence[str], axes: Axes, name: str) -> bytes:
    """The module as ONNX, as the tracing exporter writes it; its outputs with the shapes that are declared."""
    import torch

    given = tuple(torch.from_numpy(np.ascontiguousarray(value)) for value in example.values())
    buffer = io.BytesIO()  # there is no file beside memory: weights cannot go elsewhere
    training = module.training
    module.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # That it is the older exporter, and what tracing might freeze: the gate finds out whether it did.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                given,
                buffer,
                input_names=list(example),
                output_names=list(outputs),
                dynamic_axes={key: dict(value) for key, value in axes.items()},
                opset_version=OPSET,
                dynamo=False,
            )
    except Exception as error:  # torch raises many kinds, documented nowhere
        raise EngineFailed(f"{name} cannot be exported: {error}", reason="EXPORT_FAILED") from error
    finally:
        module.train(training)
    shapes = [value.shape for value in run_torch(module, example)]
    return tidied(buffer.getvalue(), dict(zip(outputs, shapes, strict=True)), axes, name)


def tidied(content: bytes, shapes: Mapping[str, tuple[int, ...]], axes: Axes, name: str) -> bytes:
    """The same file with the outputs' sizes as declared, since tracing calls some of the open and fixed ones anything.

    Remarks for people, such as the paths of source files, are left out.
    """
    import onnx
    from onnx import helper

    model = onnx.load_from_string(content)
    model.producer_name, model.producer_version, model.graph.name = "matchcut", "", name
    for node in model.graph.node:
        node.ClearField("doc_string")
        del node.metadata_props[:]
    for output in model.graph.output:
        sizes = [axes.get(output.name, {}).get(axis, size) for axis, size in enumerate(shapes[output.name])]
        kind = output.type.tensor_type.elem_type
        output.CopyFrom(helper.make_tensor_value_info(output.name, kind, sizes))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def tried(probes: Sequence[Tensors], axes: Axes) -> dict[str, tuple[int, ...]]:
    """For each open axis of the inputs, by name, the sizes that it has among the probes."""
    found: dict[str, set[int]] = {}
    for probe in probes:
        for key, value in probe.items():
            for axis, called in axes.get(key, {}).items():
                found.setdefault(called, set()).add(value.shape[axis])
    return {called: tuple(sorted(sizes)) for called, sizes in found.items()}


def refused(name: str, what: str) -> EngineFailed:
    """The error of a model that does not pass; it was not written."""
    return EngineFailed(f"the exported {name} {what}; it was not written", reason="PARITY_FAILED")
