"""Rows for which the bounds are nearly reached: a winner all of whose errors make it look worse, behind others all of
whose errors make them look better. A bound that is a few percent too small loses it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from matchcut.kernels.basis import Axes, Basis
from matchcut.kernels.native.shared_library import LEVEL, Variant
from matchcut.kernels.sieve import Crew
from support.native import LIBRARY, RUNNABLE, coded, decoded, ranked, ranked_each

EQUAL = Axes(np.zeros(3 * LEVEL, np.float32), np.eye(3 * LEVEL), np.ones(3 * LEVEL)).basis(LEVEL)
PLAIN = Basis.plain(3 * LEVEL)
FLAT = np.ones(LEVEL - 1)
VARIANTS = pytest.mark.parametrize("variant", RUNNABLE, ids=lambda variant: variant.name)
OTHERS = 1100  # more than a chunk, so that something is known of them when the winner is read


def assert_wins(winner: np.ndarray, other: np.ndarray, query: np.ndarray, basis: Basis, variant: Variant) -> None:
    """The winner, which comes last, wins against `other`, which comes many times, by less than a percent."""
    rows = np.concatenate([np.repeat(other[np.newaxis], OTHERS, 0), winner[np.newaxis]]).astype(np.float32)
    queries = np.concatenate([query[np.newaxis], np.eye(2, 3 * LEVEL) * 1e-6]).astype(np.float32)
    kept, groups, crew = coded(rows, basis, variant), np.arange(OTHERS + 1), Crew(LIBRARY, variant)
    for some in (queries[:1], queries):  # codes of one query are finer
        found = ranked(some, rows, kept, crew=crew, groups=groups, k=2)
        assert (found.rows.tolist(), found.variant) == ([OTHERS, 0], "")
        (best, next_best), norms = found.scores.tolist(), np.linalg.norm(query) * np.linalg.norm(winner)
        assert 0 < best - next_best < 0.02 * norms
        assert ranked_each(some, rows, kept, crew=crew, groups=groups, k=1)[0].rows.tolist() == [OTHERS]


def halfway(first: float) -> tuple[np.ndarray, np.ndarray]:
    """Two pieces, of the same largest value, whose codes are off by 63 * 0.493 in sum, down and up."""
    codes = np.random.default_rng(0).integers(-90, 90, LEVEL - 1)
    more = (
        np.arange(LEVEL - 1) < 62
    )  # so that the sum of the second's codes is larger by what both are off, but for 0.1
    return np.concatenate([[first], codes + 0.493]), np.concatenate([[first], codes + more - 0.493])


@VARIANTS
@pytest.mark.parametrize("basis", [PLAIN, EQUAL], ids=["plain", "turned"])
def test_errors_of_the_rows(variant: Variant, basis: Basis) -> None:
    winner, other = (np.pad(piece, (0, 2 * LEVEL)) for piece in halfway(127))
    query = np.pad(FLAT, (1, 2 * LEVEL))
    codes = decoded(coded(np.stack([winner, other]).astype(np.float32), basis, variant)).codes
    assert int((codes[1] - codes[0]).sum()) == 62
    assert_wins(winner, other, query, basis, variant)


@VARIANTS
@pytest.mark.parametrize("level", [1, 2])
def test_errors_of_the_tails(variant: Variant, level: int) -> None:
    pieces = halfway(126.9)
    winner, other, query = (
        np.pad(piece, (level * LEVEL, (2 - level) * LEVEL)) for piece in (*pieces, np.pad(FLAT, (1, 0)))
    )
    codes = decoded(coded(np.stack([winner, other]).astype(np.float32), EQUAL, variant)).codes
    assert int((codes[1] - codes[0]).sum()) == 62
    assert_wins(winner, other, query, EQUAL, variant)


@VARIANTS
def test_errors_of_the_query(variant: Variant) -> None:
    """All of its values lie halfway between the codes that it has where others share the pass."""
    signs = np.random.default_rng(1).choice([-1, 1], LEVEL - 1)
    codes = np.zeros(LEVEL - 1)
    codes[:31] = -signs[:31]  # so that its product with the signs is as much smaller as the errors are, but for 0.44
    query = np.pad(np.concatenate([[variant.limit], codes + 0.499 * signs]), (0, 2 * LEVEL)) / variant.limit
    winner, other = (np.pad(np.concatenate([[0], sign * signs]), (0, 2 * LEVEL)) for sign in (1, -1))
    assert_wins(winner, other, query, PLAIN, variant)


@VARIANTS
@pytest.mark.parametrize("level", [1, 2])
def test_what_was_not_read_yet(variant: Variant, level: int) -> None:
    """What tells the winner from the others lies in one level, along the query."""
    direction = np.random.default_rng(2).choice([-1, 1], LEVEL)
    query = np.concatenate([np.eye(1, LEVEL)[0] * 8, np.zeros(2 * LEVEL)])
    winner, other = np.zeros((2, 3 * LEVEL))
    query[level * LEVEL : (level + 1) * LEVEL] = winner[level * LEVEL : (level + 1) * LEVEL] = direction
    other[0] = 7.99
    scores = [float(query @ row) for row in (winner, other)]
    assert [first - second for first, second in pairwise(scores)] == [pytest.approx(0.08)]
    assert_wins(winner, other, query, EQUAL, variant)
