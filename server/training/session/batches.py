"""Pieces of histories, as training takes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matchcut.server.evaluation.metrics import Indices
from matchcut.server.records import Floats

__all__ = ["Batch", "Histories", "batches", "padded", "pieces"]

Histories = list[tuple[Indices, Floats]]
GROUP = 8  # batches


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """b pieces of at most t + 1 events, aligned at their beginning.

    inputs, targets: (b, t) int64 items, each target being the item after its input; 0 behind the end. strengths,
    weights: (b, t) float32 of inputs and targets; a weight is 0 behind the end, a strength 1.
    """

    inputs: Indices
    strengths: Floats
    targets: Indices
    weights: Floats

    @property
    def plain(self) -> bool:
        """Whether all strengths are 1."""
        return bool((self.strengths == 1).all())


def pieces(histories: Histories, window: int, random: np.random.Generator) -> Histories:
    """Cuts each history into pieces of `window` inputs, at other places each time; the last item of one piece, which
    is only a target there, is the first of the next.

    With a loss at every position, all prefixes of a piece are learnt from in one pass, where each would otherwise be a
    sample of its own. How far a target can look back is between nothing and the window, evenly. A window of 0 leaves
    histories whole, and every target looks back on all that came before it.
    """
    if not window:
        return [history for history in histories if len(history[0]) > 1]
    made: Histories = []
    for items, strengths in histories:
        begin = -int(random.integers(window))
        while begin < len(items) - 1:
            part = slice(max(0, begin), begin + window + 1)
            if len(items[part]) > 1:
                made.append((items[part], strengths[part]))
            begin += window
    return made


def batches(histories: Histories, size: int, random: np.random.Generator) -> Iterator[Batch]:
    """All pieces once, in random order but for this: of every few batches, those of like length come together, so that
    less is computed behind their ends."""
    order = random.permutation(len(histories))
    lengths = np.array([len(items) for items, _ in histories])
    groups = [order[begin : begin + GROUP * size] for begin in range(0, len(order), GROUP * size)]
    sorted_ = [group[np.argsort(lengths[group], kind="stable")] for group in groups]
    made = [group[begin : begin + size] for group in sorted_ for begin in range(0, len(group), size)]
    for at in random.permutation(len(made)):
        yield padded([histories[each] for each in made[at]])


def padded(histories: Sequence[tuple[Indices, Floats]]) -> Batch:
    """One batch of pieces of at least 2 events each."""
    shape = (len(histories), max(len(items) for items, _ in histories) - 1)
    made = Batch(
        inputs=np.zeros(shape, np.int64),
        strengths=np.ones(shape, np.float32),
        targets=np.zeros(shape, np.int64),
        weights=np.zeros(shape, np.float32),
    )
    for at, (items, strengths) in enumerate(histories):
        end = len(items) - 1
        made.inputs[at, :end], made.targets[at, :end] = items[:-1], items[1:]
        made.strengths[at, :end], made.weights[at, :end] = strengths[:-1], strengths[1:]
    return made


def frequencies(histories: Histories, items: int) -> NDArray[np.int64]:
    """(items,) how many events each item has."""
    counts = np.zeros(items, np.int64)
    for found, _ in histories:
        np.add.at(counts, found, 1)
    return counts
