"""Which pictures are learnt from, which decide when to stop, and which are kept for the figure at the end."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput

__all__ = ["Split", "check_shares", "split"]

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Split:
    """Indices of pictures, ascending; none is in two of them."""

    train: Rows
    validation: Rows
    test: Rows


def split(
    labels: Rows,
    groups: Rows,
    keep: NDArray[np.bool_],
    classes: tuple[str, ...],
    *,
    seed: int,
    validation: float = 0.15,
    test: float = 0.15,
) -> Split:
    """Divides what is kept, class by class, so that each part has about the same share of every class.

    Pictures of one group go to the same side together, also where they are of several classes.

    Args:
        validation, test: the shares of these parts; at least one group of every class is in each.

    Raises:
        InvalidInput: a class has fewer than three groups, or the shares leave nothing to learn from.
    """
    check_shares(validation, test)
    random = np.random.default_rng(seed)
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(keep):
        members.setdefault(int(groups[row]), []).append(int(row))
    parts: tuple[list[int], ...] = ([], [], [])
    for label, name in enumerate(classes):
        own = [rows for rows in members.values() if labels[rows[0]] == label]
        if len(own) < 3:
            there = int((labels == label).sum())
            copies = (
                f" ({there - len(own)} of {there} are equal or nearly equal to another, see --near)"
                if there > len(own)
                else ""
            )
            raise InvalidInput(
                f"the class {name!r} has {len(own)} pictures that differ{copies}; it takes three at least, one each to "
                "learn from, to validate and to test",
                reason="DATA_INVALID",
                field="data",
            )
        count = sum(map(len, own))
        shares = [0, max(1, round(validation * count)), max(1, round(test * count))]
        shares[0] = max(1, count - sum(shares))
        filled = [0, 0, 0]
        order = sorted(random.permutation(len(own)), key=lambda at: -len(own[at]))  # large groups while there is room
        for done, at in enumerate(order):
            empty = [part for part in range(3) if not filled[part]]
            part = empty[0] if len(own) - done <= len(empty) else int(np.argmax(shares))
            parts[part].extend(own[at])
            filled[part] += 1
            shares[part] -= len(own[at])
    train, validated, tested = (np.array(sorted(part), np.int64) for part in parts)
    return Split(train, validated, tested)


def check_shares(validation: float, test: float) -> None:
    """Refuses shares that leave nothing to learn from, or nothing to judge by.

    Raises:
        InvalidInput: they do.
    """
    if not (0 < validation < 1 and 0 < test < 1 and validation + test < 0.9):
        raise InvalidInput(
            f"the shares of validation ({validation:g}) and test ({test:g}) must be above 0 and below 0.9 together",
            reason="INVALID_OPTION",
            field="validation",
        )
