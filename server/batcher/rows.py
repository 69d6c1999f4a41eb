"""Rows of several requests into one run, and each one's own out of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from matchcut.server.batcher.contract import Answer, Run
from matchcut.server.batcher.line import Joint, Request
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.tensors import Tensor, Tensors

__all__ = ["joined", "rows_of", "run_alone", "run_together", "taken"]


def rows_of(inputs: Tensors) -> int:
    """How many rows the arrays have; InvalidInput where they differ or are none."""
    counts = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    if len(counts) != 1 or not all(counts):
        raise InvalidInput(
            f"the inputs have {sorted(counts) or 'no'} rows; send the same number of each, at least one",
            reason="ROWS_DIFFER",
        )
    return int(counts.pop())


def run_alone(run: Run, inputs: dict[str, Tensor], rows: int, name: str) -> Joint:
    """One run of the rows of one request.

    Raises:
        EngineFailed: an output has another number of rows than the inputs.
        Exception: what the run raises.
    """
    began = time.perf_counter_ns()
    outputs = run(inputs)
    taken_ns = time.perf_counter_ns() - began
    check(outputs, rows, name)
    return Joint(outputs, rows, 0, taken_ns)


def check(outputs: dict[str, Tensor], rows: int, name: str) -> None:
    """Raises EngineFailed where an output has another number of rows than the inputs."""
    for output, array in outputs.items():
        if array.ndim == 0 or len(array) != rows:
            raise EngineFailed(f"{name}: the output {output!r} has shape {array.shape} for {rows} rows of input")


def run_together(run: Run, members: Sequence[Request], name: str) -> Joint:
    """One run of all members' rows, which finds each member's outputs at its offset.

    Raises:
        EngineFailed: an output has another number of rows than the inputs.
        Exception: what the run raises.
    """
    began = time.perf_counter_ns()
    rows = 0
    for member in members:
        member.offset = rows
        rows += member.rows
    inputs = members[0].inputs
    if len(members) > 1:
        inputs = {name: np.concatenate([member.inputs[name] for member in members]) for name in inputs}
    ready = time.perf_counter_ns()
    outputs = run(inputs)
    done = time.perf_counter_ns()
    check(outputs, rows, name)
    return Joint(outputs, rows, ready - began, done - ready)


def taken(request: Request) -> Answer:
    """The request's own rows of its run; copies, where others ran with it, so that it does not keep theirs alive."""
    joint, began = request.joint, time.perf_counter_ns()
    assert joint is not None
    outputs: dict[str, Tensor] = joint.outputs
    if joint.rows > request.rows:
        own = slice(request.offset, request.offset + request.rows)
        outputs = {name: array[own].copy() for name, array in outputs.items()}
    queue_ns = request.began_ns - request.arrived_ns
    output_ns = time.perf_counter_ns() - began
    return Answer(outputs, joint.rows, queue_ns, joint.input_ns, joint.infer_ns, output_ns)


def joined(answers: Sequence[Answer]) -> Answer:
    """The answers to pieces as one: rows in order, times together, the largest batch."""
    outputs = {name: np.concatenate([one.outputs[name] for one in answers]) for name in answers[0].outputs}
    return replace(
        answers[0],
        outputs=outputs,
        batch=max(one.batch for one in answers),
        queue_ns=sum(one.queue_ns for one in answers),
        input_ns=sum(one.input_ns for one in answers),
        infer_ns=sum(one.infer_ns for one in answers),
        output_ns=sum(one.output_ns for one in answers),
    )
