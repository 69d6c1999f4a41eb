"""Pieces of histories: everything is learnt from, once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.training.session.batches import Histories, batches, frequencies, padded, pieces


def some(lengths: list[int]) -> Histories:
    """Histories in which every event is another item."""
    begins = np.cumsum([0, *lengths])
    return [
        (np.arange(begin, begin + n), np.linspace(0.1, 1, n).astype(np.float32))
        for begin, n in zip(begins, lengths, strict=False)
    ]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.sampled_from([0, 2, 3, 7, 50]), st.integers(0, 9))
def test_each_event_but_the_first_is_a_target_once(lengths: list[int], window: int, seed: int) -> None:
    whole = some(lengths)
    cut = pieces(whole, window, np.random.default_rng(seed))
    pairs = [(int(a), int(b)) for items, _ in cut for a, b in pairwise(items)]
    assert sorted(pairs) == sorted((int(a), int(a) + 1) for items, _ in whole for a in items[:-1])
    if window:
        assert all(len(items) <= window + 1 for items, _ in cut)
    strengths = {int(item): s for items, own in whole for item, s in zip(items, own, strict=True)}
    assert all(strengths[int(item)] == s for items, own in cut for item, s in zip(items, own, strict=True))


def test_pieces_are_cut_elsewhere_each_time() -> None:
    random, whole = np.random.default_rng(0), some([40])
    found = {tuple(len(items) for items, _ in pieces(whole, 8, random)) for _ in range(40)}
    assert len(found) == 8


@given(st.lists(st.integers(2, 12), min_size=1, max_size=40), st.integers(1, 5))
def test_batches_hold_each_piece_once(lengths: list[int], size: int) -> None:
    whole = some(lengths)
    found = list(batches(whole, size, np.random.default_rng(0)))
    assert all(1 <= len(batch.inputs) <= size for batch in found)
    firsts = sorted(int(row[0]) for batch in found for row in batch.inputs)
    assert firsts == [int(items[0]) for items, _ in whole]


def test_behind_the_end_nothing_weighs() -> None:
    batch = padded(
        [(np.array([5, 6, 7]), np.array([0.2, 0.4, 0.6], np.float32)), (np.array([8, 9]), np.array([1, 1], np.float32))]
    )
    assert batch.inputs.tolist() == [[5, 6], [8, 0]]
    assert batch.targets.tolist() == [[6, 7], [9, 0]]
    assert np.allclose(batch.strengths, np.array([[0.2, 0.4], [1, 1]]))
    assert np.allclose(batch.weights, np.array([[0.4, 0.6], [1, 0]]))
    assert not batch.plain
    assert padded(some([3, 4])[1:]).plain is False
    assert padded([(np.array([1, 2]), np.array([1, 1], np.float32))]).plain


def test_frequencies_count_events() -> None:
    assert frequencies([(np.array([0, 2, 2]), np.ones(3, np.float32))], 4).tolist() == [1, 0, 2, 0]
