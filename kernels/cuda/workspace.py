"""Memory that the passes of a ranking share."""

from __future__ import annotations

from matchcut.kernels.cuda.lane import Lane
from matchcut.kernels.cuda.memory import Buffer, rounded


class Workspace:
    """Device memory of a lane for passes, each piece of which serves many of them, one after another."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self._idle: dict[int, list[Buffer]] = {}

    def take(self, nbytes: int) -> Buffer:
        """So many bytes or more, with whatever was in them.

        Raises:
            OutOfDeviceMemory: there is no room.
        """
        idle = self._idle.get(size := rounded(nbytes))
        return idle.pop() if idle else self.lane.temporary(size)

    def give(self, buffer: Buffer) -> None:
        """Takes back what no launch uses any more."""
        self._idle.setdefault(buffer.nbytes, []).append(buffer)
