"""search_coded and search_each against topk.search: the same pairs with the same scores, in the same order."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matchcut.kernels import crew as module
from matchcut.kernels import sieve
from matchcut.kernels.codes import CodedRows
from matchcut.kernels.decide import decide
from matchcut.kernels.native.shared_library import Variant
from matchcut.kernels.sieve import Crew
from matchcut.kernels.topk import Ranked, search
from support.native import BASES, LIBRARY, RUNNABLE, basis, coded, ranked, ranked_each, steep, unit

VARIANTS = pytest.mark.parametrize("variant", RUNNABLE, ids=lambda variant: variant.name)
EACH_BASIS = pytest.mark.parametrize("name", BASES)
ULP = 2.0**-27  # of values from 1/16 to 1/8


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture(scope="module", autouse=True)
def threads_take_one_chunk_at_a_time() -> Iterator[None]:
    """So that small searches have several threads, too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_PARALLEL", 1)
        patch.setattr(module, "_SLICE", 1)
        yield


def assert_same(queries: np.ndarray, rows: np.ndarray, kept: CodedRows, crew: Crew, **how: Any) -> Ranked:
    """Both searches give what topk.search gives; returns what search_coded found."""
    ranked_each(queries, rows, kept, crew=crew, **how)
    return ranked(queries, rows, kept, crew=crew, **how)


def grouped(random: np.random.Generator, kind: str, count: int) -> np.ndarray:
    return {
        "own": np.arange(count),
        "sorted": np.sort(random.integers(-3, max(1, count // 3), count)),
        "unsorted": random.integers(-3, max(1, count // 3), count),
        "one": np.full(count, 7),
        "one giant": np.where(random.random(count) < 0.9, -(2**60), np.arange(count) << 44),
    }[kind]


@EACH_BASIS
@VARIANTS
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.sampled_from([0, 1, 15, 16, 17, 300, 1023, 1024, 1025, 2100]),
    queries=st.integers(1, 9),
    k=st.sampled_from([1, 3, 10, 70, 5000]),
    groups=st.sampled_from(["own", "sorted", "unsorted", "one", "one giant"]),
    share=st.sampled_from([None, None, 0.5, 0.01, 0.0, 1.0]),
    minimum=st.sampled_from([None, None, -2.0, 0.0, 0.3, 2.0]),
    structure=st.booleans(),
    copies=st.sampled_from(["none", "rows", "queries", "both"]),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32 - 1),
)
def test_is_the_reference(
    variant: Variant,
    name: str,
    executor: ThreadPoolExecutor,
    count: int,
    queries: int,
    k: int,
    groups: str,
    share: float | None,
    minimum: float | None,
    structure: bool,
    copies: str,
    threads: int,
    seed: int,
) -> None:
    random = np.random.default_rng(seed)
    made = steep if structure else unit
    rows, asked = made(random, count, 130), made(random, queries, 130)
    if copies in ("rows", "both") and count:
        rows = rows[random.integers(0, max(1, count // 5), count)]
    if copies in ("queries", "both"):
        asked = asked[random.integers(0, queries, queries)]
    found = assert_same(
        asked,
        rows,
        coded(rows, basis(name, 130), variant),
        Crew(LIBRARY, variant, threads, executor),
        groups=grouped(random, groups, count),
        k=k,
        eligible=None if share is None else random.random(count) < share,
        minimum=minimum,
    )
    assert found.variant == ("" if count else "numpy")  # with no rows there is no span


@VARIANTS
@pytest.mark.parametrize("dimensions", [1, 31, 63, 64, 65, 100, 512])
def test_is_the_reference_whatever_the_dimensions(variant: Variant, dimensions: int) -> None:
    random = np.random.default_rng(dimensions)
    rows, queries = unit(random, 1500, dimensions), unit(random, 7, dimensions)
    groups = np.arange(1500) // 3
    for name in BASES[: 3 if dimensions > 64 else 2]:
        kept = coded(rows, basis(name, dimensions), variant)
        for some in (queries[:1], queries):
            found = assert_same(some, rows, kept, Crew(LIBRARY, variant), groups=groups, k=9)
            assert found.variant == ""


@EACH_BASIS
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.sampled_from([1, 2, 500]),
    ulps=st.sampled_from([0, 1]),
    k=st.sampled_from([1, 3, 40, 2000]),
    group=st.sampled_from([1, 4, 2000]),
    minimum=st.booleans(),
    threads=st.sampled_from([1, 2]),
    seed=st.integers(0, 2**32 - 1),
)
def test_near_ties_are_decided_as_the_reference_does(
    name: str,
    executor: ThreadPoolExecutor,
    kinds: int,
    ulps: int,
    k: int,
    group: int,
    minimum: bool,
    threads: int,
    seed: int,
) -> None:
    """Still footage: copies, and what lies a unit in the last place beside them, in rows and queries."""
    random = np.random.default_rng(seed)
    middle = unit(random, 1, 130)

    def still(count: int) -> np.ndarray:
        made = middle + (random.integers(-ulps, ulps + 1, (kinds, 130)) * ULP).astype(np.float32)
        return np.asarray(made[random.integers(0, kinds, count)])

    queries, rows = still(4), still(1300)
    least = float(np.add.reduce(middle[0].astype(np.float64) ** 2)) if minimum else None
    kept, crew = coded(rows, basis(name, 130)), Crew(LIBRARY, LIBRARY.best, threads, executor)
    found = assert_same(queries, rows, kept, crew, groups=np.arange(1300) // group, k=k, minimum=least)
    assert found.variant == ("" if kept.span > 2.0**-40 else "numpy")


@EACH_BASIS
def test_all_scores_equal(name: str, executor: ThreadPoolExecutor) -> None:
    """Rows that differ where the queries are zero."""
    random = np.random.default_rng(0)
    rows = np.concatenate([np.full((3000, 1), 0.5), random.standard_normal((3000, 129))], axis=1).astype(np.float32)
    queries = np.zeros((3, 130), np.float32)
    queries[:, 0] = (1, 1, -1)
    for crew in (Crew(LIBRARY, LIBRARY.best), Crew(LIBRARY, LIBRARY.best, 2, executor)):
        for groups in (np.arange(3000), np.arange(3000) // 7, np.arange(3000)[::-1].copy()):
            found = assert_same(queries, rows, coded(rows, basis(name, 130)), crew, groups=groups, k=10)
            assert found.variant == ""
            assert set(found.scores.tolist()) == {0.5}
            assert set(found.queries.tolist()) == {0}


@EACH_BASIS
def test_a_minimum_is_compared_exactly(name: str) -> None:
    random = np.random.default_rng(1)
    query = unit(random, 1, 200)
    rows = query + (random.integers(-1, 2, (40, 200)) * ULP).astype(np.float32)
    kept, groups, crew = coded(rows, basis(name, 200)), np.arange(40), Crew(LIBRARY, LIBRARY.best)
    scores = search(query, rows, groups=groups, k=40).scores.tolist()
    assert len(set(scores)) > 20
    for minimum in (*scores, -1e300, 1e300, -np.inf, np.inf, 3.5e38, -3.4028235e38, 0.0, -0.0):
        found = assert_same(query, rows, kept, crew, groups=groups, k=40, minimum=minimum)
        assert found.scores.tolist() == [score for score in scores if score >= minimum]


@pytest.mark.parametrize("pairs", [-1, 2**62])
@pytest.mark.parametrize("count", [1, 4])
def test_few_pairs_are_decided_as_many_are(monkeypatch: pytest.MonkeyPatch, pairs: int, count: int) -> None:
    """Of a few all that may decide are scored, of many `decide` takes care: near ties, copies, groups, a minimum."""
    calls: list[int] = []

    def noted(number: int, work: Any) -> Any:
        def call(*given: Any, **how: Any) -> Any:
            calls.append(number)
            return work(*given, **how)

        return call

    monkeypatch.setattr(sieve, "_PAIRS", pairs)
    monkeypatch.setattr(sieve, "decide", noted(0, decide))
    monkeypatch.setattr(sieve, "_best", noted(1, sieve._best))
    random = np.random.default_rng(7)
    queries, kinds = steep(random, count, 200), steep(random, 60, 200)
    rows = kinds[random.integers(0, 60, 900)] + (random.integers(-1, 2, (900, 200)) * ULP).astype(np.float32)
    scores = search(queries, rows, groups=np.arange(900), k=900).scores
    for groups in (np.arange(900), np.arange(900) // 5, random.integers(0, 40, 900)):
        for minimum in (None, float(scores[50])):
            found = assert_same(
                queries,
                rows,
                coded(rows, basis("64", 200)),
                Crew(LIBRARY, LIBRARY.best),
                groups=groups,
                k=30,
                minimum=minimum,
            )
            assert found.variant == ""
    assert set(calls) == {1 if pairs > 0 else 0}


@EACH_BASIS
@pytest.mark.parametrize("scale", [2.0**-35, 2.0**35])
def test_the_size_of_vectors_does_not_matter(name: str, scale: float) -> None:
    random = np.random.default_rng(2)
    rows, queries = steep(random, 2000, 200) * np.float32(scale), steep(random, 3, 200) * np.float32(1 / scale)
    kept = coded(rows, basis(name, 200))
    found = assert_same(queries, rows, kept, Crew(LIBRARY, LIBRARY.best), groups=np.arange(2000), k=10)
    assert found.variant == ""


@EACH_BASIS
def test_rows_of_very_different_sizes(name: str) -> None:
    """Zero, denormal and large ones; bounds are as wide as the largest row makes them."""
    random = np.random.default_rng(3)
    rows = steep(random, 2000, 200) * (2.0 ** random.integers(-140, 20, (2000, 1))).astype(np.float32)
    rows[::50] = 0
    queries, crew = steep(random, 3, 200), Crew(LIBRARY, LIBRARY.best)
    for sign in (1, -1):  # the largest rows win, or the smallest
        found = assert_same(sign * queries, rows, coded(rows, basis(name, 200)), crew, groups=np.arange(2000), k=30)
        assert found.variant == ""


@pytest.mark.parametrize("change", ["rising", "falling"])
@EACH_BASIS
def test_the_order_of_rows_does_not_matter(name: str, change: str) -> None:
    """Each row better than all before, so that every bar is low; or worse."""
    random = np.random.default_rng(4)
    rows, query = steep(random, 5000, 200), steep(random, 1, 200)
    order = np.argsort((rows @ query[0]) * (1 if change == "rising" else -1))
    rows = rows[order]
    for k in (1, 100):
        found = assert_same(
            query, rows, coded(rows, basis(name, 200)), Crew(LIBRARY, LIBRARY.best), groups=np.arange(5000), k=k
        )
        assert (found.variant, found.scanned) == ("", 5000)


@EACH_BASIS
@pytest.mark.parametrize("share", [None, 0.5])
def test_a_first_look_is_at_rows_from_everywhere(name: str, share: float | None) -> None:
    """Where each row is better than all before, most would be left if nothing were known of the last ones."""
    random = np.random.default_rng(8)
    rows, query = steep(random, 40_000, 200), steep(random, 1, 200)
    rows = rows[np.argsort(rows @ query[0])]
    eligible = None if share is None else random.random(40_000) < share
    kept, crew = coded(rows, basis(name, 200)), Crew(LIBRARY, LIBRARY.best)
    for groups, k in ((np.arange(40_000), 5), (np.arange(40_000) // 200, 3)):
        found = assert_same(query, rows, kept, crew, groups=groups, k=k, eligible=eligible)
        assert found.variant == ""
        assert found.survivors < 4000


@EACH_BASIS
def test_so_many_groups_are_asked_for_that_all_are(name: str) -> None:
    """Python's numbers have no end, C's have."""
    random = np.random.default_rng(5)
    rows, queries = steep(random, 1500, 200), steep(random, 2, 200)
    for k in (1500, 2**63, 2**64, 2**64 + 1):
        found = assert_same(
            queries, rows, coded(rows, basis(name, 200)), Crew(LIBRARY, LIBRARY.best), groups=np.arange(1500), k=k
        )
        assert (found.variant, len(found)) == ("", 1500)


def test_sums_in_another_order_are_off_by_other_roundings() -> None:
    """Rows of one group and of the same values, whose sum is 0.5 but for the rounding that their order makes."""
    random = np.random.default_rng(6)
    some = random.standard_normal(65) * 2.0 ** random.integers(-60, 1, 65)
    values = np.concatenate([[0.5], some, -some]).astype(np.float32)
    rows, query = np.stack([random.permutation(values) for _ in range(300)]), np.ones((1, 131), np.float32)
    assert len(set(rows.astype(np.float64).sum(axis=1).tolist())) > 5
    for name in BASES:
        kept = coded(rows, basis(name, 131))
        for groups in (np.zeros(300, np.int64), np.arange(300) // 10, np.arange(300)):
            found = assert_same(query, rows, kept, Crew(LIBRARY, LIBRARY.best), groups=groups, k=5)
            assert found.variant == ""
