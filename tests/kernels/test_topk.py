"""search against brute force: in float64 over every pair, and in rational numbers where those can be had."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.kernels import decide, topk
from matchcut.kernels.score import largest_norm
from matchcut.kernels.topk import search

Found = list[tuple[float, int, int, int]]


def in_float64(query: np.ndarray, row: np.ndarray) -> float:
    return float(np.add.reduce(query.astype(np.float64) * row.astype(np.float64)))


def in_rationals(query: np.ndarray, row: np.ndarray) -> Fraction:
    return sum((Fraction(a) * Fraction(b) for a, b in zip(query.tolist(), row.tolist(), strict=True)), Fraction())


def brute(
    queries: np.ndarray,
    rows: np.ndarray,
    *,
    groups: np.ndarray,
    k: int,
    eligible: np.ndarray | None = None,
    minimum: float | None = None,
    product: Callable[[np.ndarray, np.ndarray], float | Fraction] = in_float64,
) -> Found:
    """Every pair in order; the first of each group, as far as k."""
    pairs = [
        (-product(query, row), r, q)
        for r, row in enumerate(rows)
        if eligible is None or eligible[r]
        for q, query in enumerate(queries)
    ]
    best: dict[int, tuple[float, int, int, int]] = {}
    for negative, r, q in sorted(pairs):
        if minimum is None or -negative >= minimum:
            best.setdefault(int(groups[r]), (float(-negative), int(groups[r]), r, q))
    return list(best.values())[:k]


def unit(random: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    made = random.standard_normal((count, dimensions)) + 1e-9
    lengths: np.ndarray = np.linalg.norm(made, axis=1, keepdims=True)
    return np.asarray(made / lengths, np.float32)


@settings(max_examples=150, deadline=None)
@given(
    queries=st.integers(1, 5),
    rows=st.integers(0, 60),
    dimensions=st.sampled_from([1, 2, 31, 130]),
    k=st.sampled_from([1, 2, 7, 100]),
    block=st.sampled_from([1, 3, 16, 4096]),
    share=st.sampled_from([None, 0.0, 0.1, 0.5, 1.0]),
    minimum=st.sampled_from([None, -0.5, 0.0, 0.3, 2.0]),
    sort=st.booleans(),
    known=st.booleans(),
    copies=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_brute_force(
    queries: int,
    rows: int,
    dimensions: int,
    k: int,
    block: int,
    share: float | None,
    minimum: float | None,
    sort: bool,
    known: bool,
    copies: bool,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    matrix, asked = unit(random, rows, dimensions), unit(random, queries, dimensions)
    if copies and rows:
        matrix = matrix[random.integers(0, max(1, rows // 4), rows)]
        asked = asked[random.integers(0, queries, queries)]
    groups = random.integers(-3, max(1, rows // 2), rows)
    groups = np.sort(groups) if sort else groups
    eligible = None if share is None else random.random(rows) < share
    found = search(
        asked,
        matrix,
        groups=groups,
        k=k,
        eligible=eligible,
        minimum=minimum,
        radius=largest_norm(matrix) if known else None,
        block=block,
    )
    wanted = brute(asked, matrix, groups=groups, k=k, eligible=eligible, minimum=minimum)
    assert list(found) == wanted
    assert len(found) == len(wanted)
    assert found.scores.dtype == np.float64


@settings(max_examples=60, deadline=None)
@given(dimensions=st.sampled_from([1, 3, 16]), k=st.integers(1, 12), seed=st.integers(0, 2**32 - 1))
def test_near_ties_are_decided_exactly(dimensions: int, k: int, seed: int) -> None:
    """Rows one unit in the last place apart: float32 cannot tell them apart, rational numbers can.

    All values are multiples of 2**-24 and at most 1, so a sum of 16 products needs 52 bits: float64 is exact.
    """
    random = np.random.default_rng(seed)
    query = (random.integers(2**23, 2**24, (2, dimensions)) * 2.0**-24).astype(np.float32)
    row = random.integers(2**23 + 1, 2**24, dimensions)
    rows = ((row + random.integers(-1, 2, (30, dimensions))) * 2.0**-24).astype(np.float32)
    groups = np.arange(30) // 2
    found = search(query, rows, groups=groups, k=k, block=7)
    assert list(found) == brute(query, rows, groups=groups, k=k, product=in_rationals)


@settings(max_examples=100, deadline=None)
@given(
    kinds=st.sampled_from([1, 2, 50]),
    ulps=st.sampled_from([0, 1]),
    k=st.sampled_from([1, 3, 40]),
    group=st.sampled_from([1, 4, 50]),
    minimum=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_ties_are_decided_in_tiles_as_at_once(
    kinds: int, ulps: int, k: int, group: int, minimum: bool, seed: int
) -> None:
    """Still footage: copies, and what lies a unit in the last place beside them, on both sides, in tiles of 3 by 2."""
    random = np.random.default_rng(seed)
    middle = unit(random, 1, 24)

    def still(count: int) -> np.ndarray:
        made = middle + (random.integers(-ulps, ulps + 1, (kinds, 24)) * 2.0**-27).astype(np.float32)
        return np.asarray(made[random.integers(0, kinds, count)])

    queries, rows, groups = still(7), still(50), np.arange(50) // group
    least = float(in_float64(middle[0], middle[0])) if minimum else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decide, "_TALL", 3)
        patch.setattr(decide, "_SCORES", 6)
        patch.setattr(decide, "_WIDE", 24 * 5)
        found = search(queries, rows, groups=groups, k=k, minimum=least)
    assert list(found) == brute(queries, rows, groups=groups, k=k, minimum=least)


def test_a_minimum_is_compared_exactly() -> None:
    random = np.random.default_rng(3)
    query = unit(random, 1, 300)
    rows = query + (random.integers(-1, 2, (40, 300)) * 2.0**-27).astype(np.float32)
    groups = np.arange(40)
    scores = [score for score, *_ in brute(query, rows, groups=groups, k=40)]
    assert len(set(scores)) > 20
    for minimum in scores:
        kept = search(query, rows, groups=groups, k=40, minimum=minimum).scores.tolist()
        assert kept == [score for score in scores if score >= minimum]


@pytest.mark.parametrize("dimensions", [1, 31, 1280])
def test_equal_rows_tie_to_the_lower_one(dimensions: int) -> None:
    random = np.random.default_rng(dimensions)
    rows = unit(random, 1, dimensions).repeat(203, 0)
    queries = unit(random, 1, dimensions).repeat(3, 0)
    for block in (1, 5, 64, 4096):  # BLAS scores the last rows of a block in another order
        found = search(queries, rows, groups=np.arange(203), k=203, block=block)
        assert found.rows.tolist() == list(range(203))
        assert set(found.queries.tolist()) == {0}
        assert len(set(found.scores.tolist())) == 1


def test_a_shuffled_catalogue_ranks_the_same_vectors() -> None:
    random = np.random.default_rng(5)
    rows, query = unit(random, 500, 1280), unit(random, 1, 1280)
    shuffle = random.permutation(500)
    groups = np.arange(500)
    straight = search(query, rows, groups=groups, k=50)
    shuffled = search(query, np.ascontiguousarray(rows[shuffle]), groups=groups, k=50, block=77)
    assert shuffle[shuffled.groups].tolist() == straight.groups.tolist()
    assert shuffled.scores.tolist() == straight.scores.tolist()


def test_wide_vectors_against_brute_force() -> None:
    random = np.random.default_rng(6)
    rows, queries = unit(random, 400, 1280), unit(random, 4, 1280)
    groups = np.arange(400) // 3
    assert list(search(queries, rows, groups=groups, k=20)) == brute(queries, rows, groups=groups, k=20)


def test_negative_zero_is_zero() -> None:
    rows = np.array([[-0.0, 1.0], [0.0, 1.0]], np.float32)
    found = search(np.array([[-1.0, 0.0]], np.float32), rows, groups=np.arange(2), k=2)
    assert found.rows.tolist() == [0, 1]
    assert not np.signbit(found.scores).any()


def test_denormals_are_ranked() -> None:
    rows = (np.arange(20, dtype=np.float32) * np.float32(1e-45)).reshape(20, 1)
    query = np.array([[2**-10]], np.float32)  # in float32 every product vanishes
    assert search(query, rows, groups=np.arange(20), k=3).rows.tolist() == [19, 18, 17]


def test_where_float32_overflows_float64_decides() -> None:
    rows = np.array([[3e38, -3e38], [3e38, 3e38], [1.0, 1.0], [3.1e38, 3e38]], np.float32)
    query = np.array([[3e38, 3e38]], np.float32)
    for radius in (None, largest_norm(rows)):
        found = search(query, rows, groups=np.arange(4), k=4, radius=radius)
        assert found.rows.tolist() == [3, 1, 2, 0]
        assert found.scanned == 0
        assert found.rescored == 4


def test_sparse_rows_are_gathered() -> None:
    random = np.random.default_rng(8)
    rows, query = unit(random, 1000, 16), unit(random, 1, 16)
    eligible = np.zeros(1000, np.bool_)
    eligible[[5, 17, 900]] = True
    found = search(query, rows, groups=np.arange(1000), k=10, eligible=eligible, block=100)
    assert sorted(found.rows.tolist()) == [5, 17, 900]
    assert found.scanned == 3  # not 1000: blocks without one are skipped, in the others it is copied out


def test_few_pairs_are_scored_again() -> None:
    random = np.random.default_rng(9)
    rows, queries = unit(random, 5000, 256), unit(random, 3, 256)
    for k in (10, 5000):
        found = search(queries, rows, groups=np.arange(5000), k=k)
        assert found.scanned == 5000
        assert k <= found.rescored < k * 1.1


def test_many_queries_against_many_blocks() -> None:
    random = np.random.default_rng(10)
    rows, queries = unit(random, 300, 8), unit(random, 900, 8)
    groups = np.arange(300) // 4
    found = search(queries, rows, groups=groups, k=9, block=41)
    scores = rows.astype(np.float64) @ queries.T.astype(np.float64)
    best = scores.reshape(75, -1).max(axis=1)
    np.testing.assert_allclose(found.scores, np.sort(best)[::-1][:9], rtol=1e-12)
    np.testing.assert_allclose(found.scores, scores[found.rows, found.queries], rtol=1e-12)


def test_the_memory_for_scores_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        sizes.append((queries.dtype.name, len(queries) * len(rows)))
        return np.asarray(queries @ rows.T)

    monkeypatch.setattr(topk, "score", watched)
    monkeypatch.setattr(topk, "_SCORES", 1000)
    monkeypatch.setattr(decide, "wide_score", watched)
    monkeypatch.setattr(decide, "_SCORES", 1000)
    monkeypatch.setattr(decide, "_TALL", 100)
    random = np.random.default_rng(11)
    rows, queries = unit(random, 500, 4), unit(random, 30, 4)
    found = search(queries, rows, groups=np.arange(500), k=500)
    assert len(found) == 500
    assert {kind for kind, _ in sizes} == {"float32", "float64"}
    assert max(size for _, size in sizes) <= 1000


COPIES = np.full((4096, 64), 0.125, np.float32)


def nearly(seed: int) -> np.ndarray:
    """4096 unit vectors of 64 dimensions, no two equal, that float32 takes for one."""
    made = COPIES + (np.random.default_rng(seed).integers(-1, 2, COPIES.shape) * 2.0**-26).astype(np.float32)
    assert len(np.unique(made, axis=0)) == 4096
    return np.asarray(made)


@pytest.mark.parametrize("one_group", [True, False])
@pytest.mark.parametrize(
    ("queries", "rows"),
    [(COPIES, COPIES), (nearly(1), COPIES), (COPIES, nearly(2)), (nearly(3), nearly(4))],
    ids=["copies", "near queries", "near rows", "near both"],
)
def test_ties_cost_neither_memory_nor_time(queries: np.ndarray, rows: np.ndarray, one_group: bool) -> None:
    """All 16.8 million pairs tie in float32; as pairs of int64 they would take 268 MB."""
    groups = np.zeros(4096, np.int64) if one_group else np.arange(4096)
    tracemalloc.start()
    found = search(queries, rows, groups=groups, k=10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64e6
    assert len(found) == (1 if one_group else 10)
    assert found.rescored < 4096
    exact = rows.astype(np.float64) @ queries.T.astype(np.float64)
    best = np.sort(exact.max(axis=1))[::-1][: len(found)]
    np.testing.assert_allclose(found.scores, best, rtol=1e-14)
    np.testing.assert_allclose(found.scores, exact[found.rows, found.queries], rtol=1e-14)


def test_ties_that_float64_leaves_are_bounded_in_memory_too() -> None:
    """Distinct vectors with equal products: what differs is zero on the other side."""
    apart = np.eye(601, dtype=np.float32)
    queries, rows = apart[0] + apart[1:301], apart[0] + apart[301:]
    tracemalloc.start()
    found = search(queries, rows, groups=np.zeros(300, np.int64), k=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert list(found) == [(1.0, 0, 0, 0)]
    assert found.rescored == 300 * 300
    assert peak < 64e6  # all products of these pairs would take 433 MB


def test_copies_are_scored_once() -> None:
    random = np.random.default_rng(13)
    rows = unit(random, 2, 64)[random.integers(0, 2, 3000)]
    found = search(rows[:1], rows, groups=np.arange(3000), k=3000)
    assert len(found) == 3000
    assert found.rescored == 2  # both kinds lead, as all groups come back


class GoneError(Exception):
    pass


def test_a_search_that_nobody_waits_for_stops() -> None:
    random = np.random.default_rng(12)
    rows, queries = unit(random, 400, 16), unit(random, 3, 16)

    def stopped_at(call: int, **how: Any) -> int:
        calls = 0

        def check() -> None:
            nonlocal calls
            calls += 1
            if calls == call:
                raise GoneError

        with pytest.raises(GoneError) if call else nullcontext():
            search(queries, rows, groups=np.arange(400), k=400, block=100, check=check, **how)
        return calls

    assert stopped_at(0, radius=1.1) == 4 + 1 + 1  # blocks, tile, chunk of exact scores
    assert stopped_at(0) == 4 + 4 + 1 + 1  # and what looks for the radius
    for call in range(1, 11):
        assert stopped_at(call) == call


ONES = np.ones((3, 2), np.float32)
BROKEN = np.array([[1, 1], [np.nan, 1], [1, 1]], np.float32)
ENDLESS = np.array([[1, 1], [-np.inf, 1], [1, 1]], np.float32)


def test_what_is_not_eligible_may_be_anything() -> None:
    eligible = np.array([True, False, True])
    for rows in (BROKEN, ENDLESS):
        for radius in (None, 2.0):
            found = search(ONES[:1], rows, groups=np.arange(3), k=9, eligible=eligible, radius=radius)
            assert found.rows.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries": BROKEN}, "queries hold NaN"),
        ({"rows": BROKEN}, "rows 0 to 2 hold NaN"),
        ({"rows": ENDLESS}, "rows 0 to 2 hold NaN"),
        ({"rows": BROKEN, "radius": 2.0}, "rows 0 to 2 hold NaN"),
        ({"rows": ENDLESS, "radius": 2.0}, "rows 0 to 2 hold NaN"),
        ({"queries": ONES[:0]}, "no query"),
        ({"queries": ONES[:, :1]}, "1 dimensions, rows 2"),
        ({"rows": ONES.astype(np.float64)}, "rows must be"),
        ({"groups": np.arange(2)}, "groups must be"),
        ({"groups": np.zeros(3)}, "groups must be"),
        ({"eligible": np.ones(2, np.bool_)}, "eligible must be"),
        ({"eligible": np.ones(3)}, "eligible must be"),
        ({"k": 0}, "k must be"),
        ({"minimum": float("nan")}, "minimum must be"),
    ],
)
def test_says_what_is_wrong(change: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"queries": ONES[:1], "rows": ONES, "groups": np.arange(3), "k": 1}
    with pytest.raises(ValueError, match=message):
        search(**(given | change))
