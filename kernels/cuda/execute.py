"""Does on a lane what a plan of kernels/launch says, once or again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.cuda.lane import Lane
from matchcut.kernels.cuda.memory import Buffer
from matchcut.kernels.launch import Plan, Slot


def execute(lane: Lane, plan: Plan, **inputs: NDArray[Any] | Buffer) -> dict[str, Buffer]:
    """Launches all of a plan and returns at once, as all of a lane does.

    Args:
        inputs: for each of the plan's input slots, by name, an array of its type and as many numbers, which is
            uploaded, or device memory that holds them already: what another plan left on this lane stays there.

    Returns:
        The memory of each output slot, by name, until the lane is left.

    Raises:
        ValueError: an input is missing, or is not what its slot takes.
        CudaError: see Lane.
    """
    held = {slot.name: _given(lane, slot, inputs.get(slot.name)) for slot in plan.inputs}

    def passed(argument: Any) -> Any:
        if isinstance(argument, np.ndarray):
            return lane.upload(argument)
        if not isinstance(argument, Slot):
            return argument
        if argument.name not in held:
            held[argument.name] = lane.temporary(argument.nbytes)
            if argument.zeroed:  # a lane's memory holds whatever was in it, also what another kernel needed zeroed
                lane.fill(held[argument.name], 0, argument.nbytes)
        return held[argument.name]

    for launch in plan.launches:
        lane.launch(launch.kernel, launch.grid, *map(passed, launch.arguments))
    return {slot.name: held[slot.name] for slot in plan.outputs}


class Settled:
    """A plan of which all that it takes lies on the device for good: launching it uploads nothing.

    Args:
        lane: uploads what the plan has in arrays; it has to have been left, or to be used, when another launches.
        allocate: gives device memory, see Context.allocate.
        memory: for each slot of the plan, by name, its memory.

    Raises:
        ValueError: the memory of a slot is missing or too small, or it has to be zero before each launch.
        CudaError: see Lane.
    """

    def __init__(self, lane: Lane, allocate: Callable[[int], Buffer], plan: Plan, **memory: Buffer) -> None:
        def placed(argument: Any) -> Any:
            if isinstance(argument, np.ndarray):
                return lane.upload(argument, allocate(argument.nbytes))
            if not isinstance(argument, Slot):
                return argument
            if argument.zeroed:
                raise ValueError(f"{argument.name} has to be zero before each launch")
            return _given(lane, argument, memory.get(argument.name))

        self._launches = [
            (launch.kernel, launch.grid, tuple(map(placed, launch.arguments))) for launch in plan.launches
        ]

    def launch(self, lane: Lane) -> None:
        """Launches all of it and returns at once.

        Raises:
            CudaError: see Lane.
        """
        for kernel, grid, arguments in self._launches:
            lane.launch(kernel, grid, *arguments)


def _given(lane: Lane, slot: Slot, value: NDArray[Any] | Buffer | None) -> Buffer:
    if isinstance(value, Buffer):
        if value.nbytes < slot.nbytes:
            raise ValueError(f"{slot.name} takes {slot.nbytes} bytes, and there are {value.nbytes}")
        return value
    if value is None or value.nbytes != slot.nbytes or value.dtype != slot.dtype:
        what = "nothing" if value is None else f"{value.shape} {value.dtype}"
        raise ValueError(f"{slot.name} takes {slot.shape} {slot.dtype}, not {what}")
    return lane.upload(value)
