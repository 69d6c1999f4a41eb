"""An array that grows at its end while readers keep what they have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Growing:
    """A NumPy array with room at its end; adding n rows costs O(n) on average.

    What `array` gave out is never written to again by `extend`, as new rows lie behind it; `detach` has to come
    before a row in its midst is overwritten.

    Args:
        dtype: of the elements.
        shape: of one row.
    """

    def __init__(self, dtype: type[np.generic], shape: tuple[int, ...] = ()) -> None:
        self._buffer: NDArray[Any] = np.empty((0, *shape), dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def fleeting(self) -> bool:
        """Whether what `array` gives should not be kept: it is there in any case."""
        return False

    @classmethod
    def of(cls, rows: NDArray[Any]) -> Growing:
        """Starts with these rows, which become its own."""
        made = cls(rows.dtype.type, rows.shape[1:])
        made._buffer, made._count = rows, len(rows)
        return made

    def another(self, room: int) -> Growing:
        """An empty one with room for so many such rows.

        Raises:
            MemoryError: there is no room.
        """
        made = Growing(self._buffer.dtype.type, self._buffer.shape[1:])
        made.reserve(room)
        return made

    @property
    def array(self) -> NDArray[Any]:
        """All rows, read-only."""
        rows = self._buffer[: self._count]
        rows.flags.writeable = False
        return rows

    def reserve(self, more: int) -> None:
        """Makes room for so many more rows, so that adding them cannot fail.

        Raises:
            MemoryError: there is no room.
        """
        wanted = self._count + more
        if wanted > len(self._buffer):
            self._move(max(wanted, 2 * len(self._buffer)))

    def extend(self, rows: Any) -> None:
        """Adds rows; anything that NumPy can copy into them."""
        self.reserve(len(rows))
        self._buffer[self._count : self._count + len(rows)] = rows
        self._count += len(rows)

    def detach(self) -> None:
        """Moves the rows to memory that no reader knows of."""
        self._move(len(self._buffer))

    def overwrite(self, at: int, row: Any) -> None:
        """Changes a row; readers that came before the last `detach` do not see it."""
        self._buffer[: self._count][at] = row

    def _move(self, capacity: int) -> None:
        moved = np.empty((capacity, *self._buffer.shape[1:]), self._buffer.dtype)
        moved[: self._count] = self._buffer[: self._count]
        self._buffer = moved
