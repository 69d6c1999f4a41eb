"""The certificate of codes.py: whatever the rows, the bounds read from the codes enclose the exact product."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from matchcut.kernels.basis import Axes, Basis, learn
from matchcut.kernels.codes import CodedQueries, CodedRows, Codes, code_queries
from matchcut.kernels.native.shared_library import LEVEL, Variant
from support.native import BASES, LIBRARY, RUNNABLE, Decoded, bases, basis, coded, decoded, steep, unit, waves

COUNT = 40
ULP = 2.0**-23
Bounds = tuple[np.ndarray, np.ndarray]


def enclosures(asked: CodedQueries, found: Decoded, rows: Basis, real: type[np.floating]) -> Iterator[Bounds]:
    """(lower, upper), both (b, n), after the dense part and after each level, in float32 as C or in float64."""
    arrays, dense = asked.arrays, rows.dense
    columns = {name: arrays[name].astype(real) for name in ("step", "spread", "reach", "slack")}
    scale, tail, tail_scale = (column.astype(real) for column in (found.scale, found.tail, found.tail_scale))
    halves = arrays["dense"].astype(np.int64)
    fine = halves[:, 0] if asked.parts == 1 else asked.radix * halves[:, 0] + halves[:, 1]
    pieces = arrays["tail"].astype(np.int64)
    tails = asked.radix * pieces[:, :, 0] + pieces[:, :, 1]

    def column(name: str, at: int) -> np.ndarray:
        return np.asarray(columns[name][:, at : at + 1])

    dots = (fine @ found.codes[:, :dense].T).astype(real)
    part = arrays["base"].astype(real)[:, np.newaxis] + scale * column("step", 0) * dots
    known = scale * column("spread", 0) + column("slack", 0)
    rest = tail * column("reach", 0)
    yield part - known - rest, part + known + rest
    for level in range(rows.levels):
        codes = found.codes[:, dense + level * LEVEL : dense + (level + 1) * LEVEL]
        part = part + tail_scale * column("step", level + 1) * (tails[:, level] @ codes.T).astype(real)
        known = scale * column("spread", 0) + tail_scale * column("spread", level + 1) + column("slack", level + 1)
        rest = tail * found.left[:, level].astype(real) / real(255) * column("reach", level + 1)
        yield part - known - rest, part + known + rest


def exact(queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Products of float32 are exact in float64, and fsum's sum of them is rounded once."""
    wide = rows.astype(np.float64)
    return np.array([[math.fsum(row) for row in (query * wide).tolist()] for query in queries.astype(np.float64)])


def assert_encloses(
    queries: np.ndarray, scores: np.ndarray, kept: CodedRows, variant: Variant, *, fine: bool | None = None
) -> None:
    """Around scores, (b, n), the exact products of these queries and the rows that are coded."""
    asked, found = code_queries(queries, kept, variant.limit, fine=fine), decoded(kept)
    assert asked is not None
    for real in (np.float32, np.float64):
        prefixes = list(enclosures(asked, found, kept.basis, real))
        assert len(prefixes) == 1 + kept.basis.levels
        for lower, upper in prefixes:
            assert (lower <= scores).all()
            assert (scores <= upper).all()


def spiked(random: np.random.Generator, dimensions: int) -> np.ndarray:
    """One huge value, all others tiny."""
    made = random.standard_normal((COUNT, dimensions)) * 1e-6
    made[np.arange(COUNT), random.integers(0, dimensions, COUNT)] = 1000
    return made


def ranging(random: np.random.Generator, dimensions: int) -> np.ndarray:
    """Within each row from 1e-30 to nearly as large as rows may be."""
    signs = random.choice([-1, 1], (COUNT, dimensions))
    return signs * 10 ** random.uniform(-30, 10, (COUNT, dimensions))


def denormal(random: np.random.Generator, dimensions: int) -> np.ndarray:
    made = random.standard_normal((COUNT, dimensions))
    made[::2] *= 1e-42
    made[1::4] = np.where(random.random((len(made[1::4]), dimensions)) < 0.5, 1e-45, made[1::4])
    return made


def zeros(random: np.random.Generator, dimensions: int) -> np.ndarray:
    made = random.standard_normal((COUNT, dimensions))
    made[::3] = 0
    made[1::3] = np.where(random.random((len(made[1::3]), dimensions)) < 0.5, -0.0, made[1::3])
    return made


def constant(random: np.random.Generator, dimensions: int) -> np.ndarray:
    """Every code is as large as it gets, and all errors point the same way."""
    return np.repeat(random.standard_normal((COUNT, 1)), dimensions, axis=1)


def halves(random: np.random.Generator, dimensions: int) -> np.ndarray:
    """Behind a largest value of 127, values halfway between two codes."""
    made = random.integers(-126, 126, (COUNT, dimensions)) + 0.5
    made[:, 0] = 127
    return made


def alike(random: np.random.Generator, dimensions: int) -> np.ndarray:
    """No two more than a unit in the last place apart."""
    row = random.uniform(1, 2, dimensions)
    return np.asarray(row.astype(np.float32) + random.integers(-1, 2, (COUNT, dimensions)) * ULP)


KINDS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "random": lambda random, dimensions: unit(random, COUNT, dimensions),
    "steep": lambda random, dimensions: steep(random, COUNT, dimensions),
    "steep along other axes": lambda random, dimensions: steep(random, COUNT, dimensions, shift=1),
    "of many sizes": lambda random, d: unit(random, COUNT, d) * 2.0 ** random.integers(-60, 30, (COUNT, 1)),
    "far larger than learnt": lambda random, dimensions: unit(random, COUNT, dimensions) * 2.0**35,
    "far smaller than learnt": lambda random, dimensions: unit(random, COUNT, dimensions) * 2.0**-35,
    "spiked": spiked,
    "ranging": ranging,
    "denormal": denormal,
    "zeros": zeros,
    "constant": constant,
    "halves": halves,
    "alike": alike,
}


def questions(random: np.random.Generator, rows: np.ndarray, dimensions: int) -> np.ndarray:
    """A direction, a row's own, one coordinate, all values alike, and one of very different values."""
    longest = rows[np.argmax(np.abs(rows).max(axis=1))].astype(np.float64)
    one, even = np.zeros(dimensions), random.choice([-1.0, 1.0], dimensions)
    one[random.integers(dimensions)] = -3
    mixed = even * 10 ** random.uniform(-20, 3, dimensions)
    mixed[0] = 1
    return np.stack([unit(random, 1, dimensions)[0], longest / np.linalg.norm(longest), one, even, mixed]).astype("f4")


@pytest.mark.parametrize("dimensions", [1, 31, 63, 64, 65, 100, 512, 1280])
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_enclose_the_product(kind: str, dimensions: int) -> None:
    random = np.random.default_rng(dimensions)
    rows = KINDS[kind](random, dimensions).astype(np.float32)
    queries = questions(random, rows, dimensions)
    scores = exact(queries, rows)
    assert bases(dimensions) == BASES[: 4 if dimensions > 128 else 3 if dimensions > 64 else 2]
    for name in bases(dimensions):
        # The first variant and those after it code alike; queries of avx2 have smaller codes.
        for variant in {one.limit: one for one in RUNNABLE}.values():
            assert_encloses(queries, scores, coded(rows, basis(name, dimensions), variant), variant)


@pytest.mark.parametrize("variant", RUNNABLE, ids=lambda variant: variant.name)
def test_each_variant_codes_within_the_bounds(variant: Variant) -> None:
    random = np.random.default_rng(3)
    rows = np.concatenate([steep(random, COUNT, 512), halves(random, 512).astype(np.float32), unit(random, COUNT, 512)])
    queries = questions(random, rows, 512)
    for name in BASES:
        assert_encloses(queries, exact(queries, rows), coded(rows, basis(name, 512), variant), variant)


def test_bounds_are_close_where_the_spectrum_is_steep() -> None:
    random = np.random.default_rng(4)
    rows, queries = steep(random, 300, 512), steep(random, 5, 512)
    scores = exact(queries, rows)
    for name, dense, all_read in (("plain", 0.03, 0.03), ("mean", 0.03, 0.03), ("64", 0.1, 0.045), ("128", 0.08, 0.06)):
        kept = coded(rows, basis(name, 512), RUNNABLE[0])
        asked = code_queries(queries, kept, 127)
        assert asked is not None
        prefixes = list(enclosures(asked, decoded(kept), kept.basis, np.float64))
        gaps = [float(np.abs(side - scores).max()) for bounds in prefixes for side in bounds]
        assert max(gaps[:2]) < dense
        assert max(gaps[-2:]) < all_read


@pytest.mark.parametrize("name", BASES)
def test_codes_are_as_fine_as_asked_for(name: str) -> None:
    """Of many queries as of few; whatever was asked for, the bounds hold, and fine ones are the closer."""
    random = np.random.default_rng(14)
    rows, queries = steep(random, COUNT, 200), steep(random, 5, 200)
    kept, scores = coded(rows, basis(name, 200)), exact(queries, rows)
    slack = {}
    for fine in (True, False, None):
        for some in (queries[:1], queries):
            assert_encloses(some, scores[: len(some)], kept, RUNNABLE[0], fine=fine)
            asked = code_queries(some, kept, 127, fine=fine)
            assert asked is not None
            usual = kept.basis.levels > 0 or len(some) <= 2
            assert asked.parts == (2 if (usual if fine is None else fine) else 1)
            slack[fine] = asked.arrays["slack"][0, 0]
    assert 10 * slack[True] < slack[False]


def test_rows_that_came_later_widen_the_bounds_of_those_before() -> None:
    """Errors are the largest so far: a view's bounds hold for its rows whatever comes, the next one's for all."""
    random = np.random.default_rng(5)
    few, more = steep(random, COUNT, 200), spiked(random, 200).astype(np.float32)
    codes = Codes(basis("64", 200), LIBRARY)
    codes.extend(few)
    before = codes.view()
    codes.extend(more)
    rows = np.concatenate([few, more])
    queries = questions(random, rows, 200)
    assert_encloses(queries, exact(queries, few), before, RUNNABLE[0])
    assert_encloses(queries, exact(queries, rows), codes.view(), RUNNABLE[0])
    assert (codes.view().stats >= before.stats).all()
    assert (codes.view().stats > before.stats).any()


def test_the_turn_need_not_be_orthonormal() -> None:
    """Three percent too long: products of what was turned are off by six."""
    rows = steep(np.random.default_rng(11), COUNT, 200)
    axes = Axes(np.zeros(200, np.float32), waves(200) * 1.03, np.ones(200))
    kept = coded(rows, axes.basis(64))
    assert kept.basis.skew > 0.06
    assert_encloses(rows[:3], exact(rows[:3], rows), kept, RUNNABLE[0])


@pytest.mark.parametrize("error", [0.0499, -0.0499])
def test_the_turn_need_not_be_precise(monkeypatch: pytest.MonkeyPatch, error: float) -> None:
    """The row is turned with an error along the query, the query with one along the row, as large as they may be."""
    used = replace(Axes(np.zeros(200, np.float32), waves(200), np.ones(200)).basis(64), rho=0.05)
    row, query = unit(np.random.default_rng(12), 1, 200), unit(np.random.default_rng(13), 1, 200)
    turned = used.turn(np.concatenate([row, query]))
    monkeypatch.setattr(Basis, "turn", lambda *_: turned[:1] + np.float32(error) * turned[1:])
    monkeypatch.setattr(Basis, "turn_queries", lambda *_: (turned[1:] + error * turned[:1]).astype(np.float64))
    assert_encloses(query, exact(query, row), coded(row, used), RUNNABLE[0])


def test_what_was_learnt_from_rows_of_another_size_does_not_loosen_them() -> None:
    """Gains of 2**60 would make every tail of such rows count as 0, below what a scale can be."""
    random = np.random.default_rng(6)
    axes = learn(unit(random, 500, 128) * np.float32(2.0**60))
    assert axes is not None
    learnt = axes.basis(64)
    assert learnt.gains[0] > 2.0**50
    moved = Basis(128, 64, np.zeros(128, np.float32), learnt.gains, learnt.matrix, learnt.rho, learnt.skew)
    assert moved.matrix is not None
    turned = random.standard_normal((COUNT, 128)) * np.repeat([1e-3, 1], 64) * 2.0**-38
    rows = (turned @ moved.matrix).astype(np.float32)
    query = (np.repeat([0, 1], 64) * random.standard_normal(128) @ moved.matrix).astype(np.float32)[np.newaxis]
    kept = coded(rows, moved)
    assert (decoded(kept).tail_scale > 0).all()
    assert_encloses(query, exact(query, rows), kept, RUNNABLE[0])


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(
    ("row", "query"), [(2.0**41, 1), (2.0**-41, 1), (0, 1), (1, 2.0**41), (1, 2.0**-41), (1, 0), (3e38, 1), (1, 3e36)]
)
def test_beyond_the_range_it_says_nothing(name: str, row: float, query: float) -> None:
    random = np.random.default_rng(7)
    used = basis(name, 200)
    rows = used.mean + unit(random, COUNT, 200) * np.float32(row)
    queries = np.concatenate([unit(random, 2, 200), unit(random, 1, 200) * np.float32(query)])
    inside = coded(unit(random, COUNT, 200), used)
    assert code_queries(queries[:2], inside, 127) is not None
    if query != 1:
        assert code_queries(queries, inside, 127) is None
    elif name == "plain" or row > 1:  # else the mean is in the way: rows this small differ from it by rounding errors
        assert code_queries(queries, coded(rows, used), 127) is None


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_a_turn_that_overflows_is_not_taken_for_one_that_does_not(scale: float) -> None:
    """Parts of the sum overflow in both directions and make NaN, which is neither small nor large."""
    random = np.random.default_rng(8)
    used = basis("64", 512)
    huge = (random.choice([-1, 1], (1, 512)) * 3e38 * scale).astype(np.float32)
    assert np.isnan(used.turn(huge)).any()
    assert np.isfinite(huge).all()
    rows = np.concatenate([unit(random, COUNT, 512), huge, unit(random, 3000, 512)])
    assert code_queries(unit(random, 1, 512), coded(rows, used), 127) is None


@pytest.mark.parametrize("dense", [512, 576, 832, 1280])
def test_sums_fit_32_bits(dense: int) -> None:
    """A query and a row all of whose codes are the largest: finer ones would make products of 33 bits."""
    axes = Axes(np.zeros(1344, np.float32), waves(1344), np.ones(1344))
    turned = np.repeat(np.array([[1, 0]], np.float32), [dense, 1344 - dense], axis=1)
    learnt = axes.basis(dense)
    assert learnt.matrix is not None
    for used, vector in ((learnt, turned @ learnt.matrix), (Basis.plain(dense), turned[:, :dense])):
        kept = coded(vector, used)
        assert (decoded(kept).codes[0, :dense] >= 126).all()
        asked = code_queries(vector, kept, 127)
        assert asked is not None
        assert asked.parts == 2
        sums = asked.arrays["dense_sums"].astype(np.int64)[0]
        assert 0.8 * 2**30 < 127 * (asked.radix * sums[0] + sums[1]) < 2**31
        assert_encloses(vector, exact(vector, vector), kept, RUNNABLE[0])


def test_so_many_dimensions_that_no_sum_would_fit_are_left_alone() -> None:
    for dimensions, few in ((65_000, True), (66_000, False)):
        rows = unit(np.random.default_rng(10), 2, dimensions)
        assert (code_queries(rows, coded(rows, Basis.plain(dimensions)), 127) is not None) == few
