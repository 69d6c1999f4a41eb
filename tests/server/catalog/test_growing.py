"""Arrays that grow behind their readers."""

from __future__ import annotations

import numpy as np
import pytest

from matchcut.server.catalog.growing import Growing


def test_readers_keep_what_they_have() -> None:
    growing = Growing(np.float32, (2,))
    growing.extend([[1, 2]])
    before = growing.array
    growing.reserve(10)
    growing.extend([[3, 4], [5, 6]])
    room = growing.array
    growing.detach()
    growing.overwrite(1, [7, 8])
    assert before.tolist() == [[1, 2]]
    assert room.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert growing.array.tolist() == [[1, 2], [7, 8], [5, 6]]
    assert len(growing) == 3


def test_moves_seldom() -> None:
    growing = Growing(np.int64)
    places = set()
    for at in range(1000):
        growing.extend([at])
        places.add(growing.array.__array_interface__["data"][0])
    assert growing.array.tolist() == list(range(1000))
    assert len(places) <= 12


def test_what_is_reserved_is_not_moved() -> None:
    growing = Growing(np.int64)
    growing.reserve(100)
    growing.extend([0])
    place = growing.array.__array_interface__["data"][0]
    growing.extend(range(99))
    assert growing.array.__array_interface__["data"][0] == place


def test_only_rows_that_are_there_can_be_overwritten() -> None:
    growing = Growing.of(np.arange(3))
    growing.reserve(1)
    with pytest.raises(IndexError):
        growing.overwrite(3, 0)
