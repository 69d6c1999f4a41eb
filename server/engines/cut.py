"""Cuts an OpenVINO model in two, so that each part can be compiled in a precision of its own."""

from __future__ import annotations

from typing import Any

from matchcut.server.errors import EngineFailed

__all__ = ["cut"]

# What OpenVINO calls the operations that multiply matrices.
PRODUCTS = {"Convolution", "GroupConvolution", "MatMul"}


def cut(model: Any, share: float) -> list[Any]:
    """Two models that do one after the other what `model` does.

    Args:
        model: an openvino.Model; not changed.
        share: at most this share of the convolutions and matrix products goes to the first.

    Raises:
        EngineFailed: there is no place within the share where a single tensor passes.
    """
    import openvino

    name = waist(model, share)
    front, rest = model.clone(), model.clone()
    front = openvino.Model([named(front, name).output(0)], front.get_parameters())
    output = named(rest, name).output(0)
    entry = openvino.op.Parameter(output.get_element_type(), output.get_partial_shape())
    for target in output.get_target_inputs():
        target.replace_source_output(entry.output(0))
    return [front, openvino.Model(rest.get_results(), [entry])]


def waist(model: Any, share: float) -> str:
    """The last operation within the share whose output is all that later operations need of earlier ones."""
    # Operations are known by name: their Python objects are made anew at each look.
    order = fed(model)
    place = {op.get_friendly_name(): index for index, op in enumerate(order)}
    allowed = share * sum(op.get_type_name() in PRODUCTS for op in order)
    found, products, reach = "", 0, 0
    for index, op in enumerate(order):
        products += op.get_type_name() in PRODUCTS
        if products > allowed:
            break
        if products and reach <= index and len(op.outputs()) == 1:
            found = op.get_friendly_name()
        users = (target.get_node().get_friendly_name() for out in op.outputs() for target in out.get_target_inputs())
        reach = max([reach, *(place[user] for user in users)])
    if not found:
        raise EngineFailed(f"the network has no place to be cut within its first {share:.0%}")
    return found


def fed(model: Any) -> list[Any]:
    """The operations that depend on the input, in order; weights and what is made of them do not."""
    names = {parameter.get_friendly_name() for parameter in model.get_parameters()}
    order = []
    for op in model.get_ordered_ops():
        if any(value.get_source_output().get_node().get_friendly_name() in names for value in op.inputs()):
            names.add(op.get_friendly_name())
            order.append(op)
    return order


def named(model: Any, name: str) -> Any:
    """The operation of that name."""
    return next(op for op in model.get_ordered_ops() if op.get_friendly_name() == name)
