"""Brings together what a graph has and what is said of it: how the model is served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from matchcut.server.errors import EngineFailed
from matchcut.server.models.description import Description
from matchcut.server.serving.declared import Control, Declared
from matchcut.server.serving.fitting import fit
from matchcut.server.tensors import TensorSpec

__all__ = ["Plan", "plan"]

DEFAULT_BATCH = 8

Specs = tuple[TensorSpec, ...]
Sizes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Plan:
    """How a model is served.

    inputs, outputs: what callers give and get; states are not among them, unless there is nothing else to get.
    max_batch: most rows of one run; 0: the first size counts no rows.
    states: the inputs that carry a state. fed_by: the output that is each of those inputs in the next step.
    sequential: whether requests belong to sequences. controls: the inputs that tell the graph where in one it is.
    labels: class names by output.
    whole: inputs and outputs as a run has them, all of the graph's, in its order. reshaped: of those that callers have
    in other sizes than a run, first of inputs what callers have and a run has, then of outputs what a run has and
    callers have; of one row.
    """

    inputs: Specs
    outputs: Specs
    max_batch: int
    states: Mapping[str, TensorSpec]
    fed_by: Mapping[str, str]
    sequential: bool
    controls: tuple[tuple[Control, TensorSpec], ...]
    labels: Mapping[str, tuple[str, ...]]
    whole: tuple[Specs, Specs]
    reshaped: tuple[Sizes, Sizes]


def plan(inputs: Specs, outputs: Specs, description: Description, declared: Declared | None = None) -> Plan:
    """How a graph with these inputs and outputs is served.

    Args:
        declared: what a config.pbtxt says besides.

    Raises:
        EngineFailed: what is said does not fit to the graph.
    """
    asked: Specs = ()
    wanted: Specs = ()
    said, controls = description.max_batch, () if declared is None else declared.controls
    if declared is not None:
        found = fit(inputs, outputs, declared)
        inputs, outputs, said, asked, wanted = found.inputs, found.outputs, found.max_batch, found.asked, found.given
    max_batch = batch(inputs + outputs, said)
    given, taken = {spec.name: spec for spec in outputs}, {spec.name: spec for spec in inputs}
    states = {name: state(name, source, taken, given, max_batch) for name, source in description.states.items()}
    fed_by = dict(description.states)
    if len(set(fed_by.values())) < len(fed_by):
        raise wrong("sequence.states feeds several inputs from one output; give each its own")
    filled = {*states, *(control.input for control in controls)}
    visible_inputs = asked or tuple(spec for spec in inputs if spec.name not in filled)
    # Where a graph gives nothing but its next states, as the step of a GRU does, these are the answer.
    visible_outputs = wanted or tuple(spec for spec in outputs if spec.name not in fed_by.values()) or outputs
    visible = {spec.name: spec for spec in visible_outputs}
    if not visible_inputs:
        raise wrong("the graph has no inputs besides its states and controls: there would be nothing to ask it")
    return Plan(
        inputs=visible_inputs,
        outputs=visible_outputs,
        max_batch=max_batch,
        states=states,
        fed_by=fed_by,
        sequential=bool(states) or (declared is not None and declared.sequential),
        controls=tuple((control, taken[control.input]) for control in controls),
        labels=labelled(visible_outputs, description.labels, complete=declared is None),
        whole=(inputs, outputs),
        reshaped=(reshaped(visible_inputs, taken, max_batch), reshaped(given.values(), visible, max_batch)),
    )


def reshaped(found: Iterable[TensorSpec], wanted: Mapping[str, TensorSpec], max_batch: int) -> Sizes:
    """The sizes of one row that tensors have, and those that they are wanted in, where these are others."""
    rows = 1 if max_batch else 0
    both = ((spec, wanted[spec.name]) for spec in found if spec.name in wanted)
    return {spec.name: (spec.shape[rows:], other.shape[rows:]) for spec, other in both if spec.shape != other.shape}


def batch(specs: Specs, said: int | None) -> int:
    """Most rows of one run."""
    fixed = [spec for spec in specs if not spec.shape or spec.shape[0] != -1]
    if said is None:
        return 0 if fixed else DEFAULT_BATCH
    if said and fixed:
        raise wrong(f"max_batch is {said}, but the first size of {fixed[0].name!r} is not open; set it to 0")
    return said


def state(
    name: str, source: str, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec], max_batch: int
) -> TensorSpec:
    """The input of a state, checked against the output that feeds it."""
    if name not in inputs:
        raise wrong(f"sequence.states names an input {name!r}, but the graph's are {', '.join(inputs)}")
    if source not in outputs:
        raise wrong(f"sequence.states names an output {source!r}, but the graph's are {', '.join(outputs)}")
    into, out = inputs[name], outputs[source]
    if into.dtype != out.dtype or len(into.shape) != len(out.shape):
        raise wrong(f"the state {name!r} is {into.dtype} {into.shape}, but {source!r} is {out.dtype} {out.shape}")
    if any(-1 not in pair and pair[0] != pair[1] for pair in zip(into.shape, out.shape, strict=True)):
        raise wrong(f"the state {name!r} has shape {into.shape}, but {source!r} has {out.shape}")
    if -1 in into.shape[1 if max_batch else 0 :]:
        raise wrong(f"the state {name!r} has open sizes, {into.shape}: a sequence could not begin with zeros")
    return into


def labelled(outputs: Specs, labels: Mapping[str, tuple[str, ...]], *, complete: bool) -> Mapping[str, tuple[str, ...]]:
    """Class names of outputs that there are, one for each class where they are to be complete.

    Triton takes any number of them: what has none is told without, and what is too much is never told.
    """
    found = {}
    for name, classes in labels.items():
        spec = next((one for at, one in enumerate(outputs) if one.name == name or (not name and at == 1)), None)
        if spec is None:
            raise wrong(f"labels are given for {name!r}, but the outputs are {', '.join(one.name for one in outputs)}")
        if complete and spec.shape and spec.shape[-1] not in (-1, len(classes)):
            raise wrong(f"there are {len(classes)} labels for {spec.name!r}, which has {spec.shape[-1]} classes")
        found[spec.name] = classes
    return found


def wrong(what: str) -> EngineFailed:
    return EngineFailed(what, reason="MODEL_INVALID")
