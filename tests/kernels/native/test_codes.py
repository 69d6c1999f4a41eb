"""Codes grow as one would expect of a list: whole or not at all, and without changing what was seen before."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import pytest

from matchcut.kernels.basis import Basis, learn
from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.native.shared_library import CHUNK, LEVEL, LEVELS
from matchcut.kernels.sieve import Crew, search_coded
from matchcut.kernels.topk import Ranked, search
from support.native import BASES, LIBRARY, RUNNABLE, basis, coded, decoded, steep, unit

CREW = Crew(LIBRARY, LIBRARY.best)


def ranked(rows: np.ndarray, kept: CodedRows, count: int = 3) -> Ranked:
    queries = steep(np.random.default_rng(99), count, rows.shape[1])
    return search_coded(queries, rows, kept, crew=CREW, groups=np.arange(len(rows)) // 2, k=7)


def assert_equal(one: CodedRows, other: CodedRows) -> None:
    """The same codes and bounds."""
    assert (one.count, one.span) == (other.count, other.span)
    np.testing.assert_array_equal(one.stats, other.stats)
    mine, theirs = decoded(one), decoded(other)
    for name in ("codes", "scale", "tail", "tail_scale", "left"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


@pytest.mark.parametrize("variant", RUNNABLE, ids=lambda variant: variant.name)
def test_many_small_pieces_make_the_same_codes(variant: Any) -> None:
    rows = steep(np.random.default_rng(0), 2 * CHUNK + 100, 100)
    codes, at = Codes(basis("plain", 100), LIBRARY, variant), 0
    for size in (0, 1, 15, 1, 0, 1007, 1, 1023, 2, 40, 58):
        codes.extend(rows[at : at + size])
        at += size
        assert len(codes) == at
    assert at == len(rows)
    assert_equal(codes.view(), coded(rows, basis("plain", 100), variant))


@pytest.mark.parametrize("name", BASES)
def test_many_small_pieces_give_the_same_answers(name: str) -> None:
    """A turn's rounding depends on how many rows are turned at a time, so the codes may differ, but not by much."""
    rows = steep(np.random.default_rng(1), 2 * CHUNK + 100, 200)
    whole = coded(rows, basis(name, 200))
    codes = Codes(basis(name, 200), LIBRARY)
    for at in range(0, len(rows), 131):
        codes.extend(rows[at : at + 131], block=50)
    assert np.abs(decoded(codes.view()).codes - decoded(whole).codes).max() <= 1
    wanted = search(steep(np.random.default_rng(99), 3, 200), rows, groups=np.arange(len(rows)) // 2, k=7)
    assert list(ranked(rows, codes.view())) == list(ranked(rows, whole)) == list(wanted)


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("count", [CHUNK - 1, CHUNK, CHUNK + 24])
def test_a_view_does_not_change(name: str, count: int) -> None:
    random = np.random.default_rng(2)
    rows, more = steep(random, count, 200), unit(random, 3 * CHUNK, 200) * np.float32(50)
    codes = Codes(basis(name, 200), LIBRARY)
    codes.extend(rows)
    view = codes.view()
    assert codes.view() is view  # made once
    before, stats, answers = decoded(view), view.stats.copy(), list(ranked(rows, view))
    codes.extend(more)
    after = decoded(view)
    assert view.count == count
    for column in ("codes", "scale", "tail", "tail_scale", "left"):
        np.testing.assert_array_equal(getattr(after, column), getattr(before, column))
    np.testing.assert_array_equal(view.stats, stats)
    assert list(ranked(rows, view)) == answers
    assert codes.view().count == count + len(more)
    assert codes.view().span > 40 > view.span
    del codes  # a view owns its memory
    assert list(ranked(rows, view)) == answers


ROWS = unit(np.random.default_rng(3), 3000, 100)
BROKEN = ROWS.copy()
BROKEN[2999, 99] = np.nan
ENDLESS = ROWS.copy()
ENDLESS[0, 0] = -np.inf


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (BROKEN, "the rows hold NaN or infinity"),
        (ENDLESS, "the rows hold NaN or infinity"),
        (ROWS[0], r"rows must be \(n, 100\) float32, not \(100,\) float32"),
        (ROWS[:, :99], r"rows must be \(n, 100\) float32, not \(3000, 99\) float32"),
        (ROWS.astype(np.float64), r"rows must be \(n, 100\) float32, not \(3000, 100\) float64"),
    ],
)
@pytest.mark.parametrize("name", ["plain", "64"])
def test_what_cannot_be_coded_is_refused_as_a_whole(name: str, rows: np.ndarray, message: str) -> None:
    codes = Codes(basis(name, 100), LIBRARY)
    codes.extend(ROWS[:70])
    view, room = codes.view(), codes.nbytes
    with pytest.raises(ValueError, match=message):
        codes.extend(rows)
    assert (len(codes), codes.nbytes) == (70, room)
    assert codes.view() is view


@pytest.mark.parametrize("name", BASES)
def test_rows_need_not_be_contiguous(name: str) -> None:
    wide = steep(np.random.default_rng(4), 300, 400)
    rows = wide[::3, ::2]
    assert not rows.flags.c_contiguous
    assert_equal(coded(rows, basis(name, 200)), coded(rows.copy(), basis(name, 200)))


@pytest.mark.parametrize(("dimensions", "name"), [(512, "64"), (512, "plain"), (1280, "128"), (1280, "plain")])
def test_a_row_takes_little_more_than_a_byte_for_each_dimension(dimensions: int, name: str) -> None:
    codes = Codes(basis(name, dimensions), LIBRARY)
    codes.reserve(20 * CHUNK)
    assert 20 * CHUNK * dimensions < codes.nbytes <= 1.05 * 20 * CHUNK * dimensions


def test_no_more_than_a_chunk_of_room_is_left_over() -> None:
    codes = Codes(basis("64", 100), LIBRARY)
    chunk = LIBRARY.functions.mc_chunk_bytes(64, 1)
    for count in (1, CHUNK - 1, 1, 2 * CHUNK, 5):
        codes.extend(np.resize(ROWS, (count, 100)))
        assert codes.nbytes == -(-len(codes) // CHUNK) * chunk


def test_what_was_reserved_needs_no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = Codes(basis("64", 100), LIBRARY)
    codes.extend(ROWS[:1000])
    codes.reserve(2000)
    codes.reserve(2000)  # that much more, not again as much
    room = codes.nbytes
    assert room == 3 * LIBRARY.functions.mc_chunk_bytes(64, 1)
    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", no_memory)
        codes.extend(ROWS[1000:])
    assert codes.nbytes == room
    assert_equal(codes.view(), coded(ROWS, basis("64", 100)))


def test_reserved_rows_are_not_scanned() -> None:
    codes = Codes(basis("plain", 100), LIBRARY)
    codes.reserve(50 * CHUNK)
    codes.extend(ROWS)
    assert len(codes.view().table) == 3
    assert ranked(ROWS, codes.view()).scanned == 3000


def no_memory(*_: Any, **__: Any) -> mmap.mmap:
    raise OSError(12, "Cannot allocate memory")


def test_without_memory_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = Codes(basis("64", 100), LIBRARY)
    codes.extend(ROWS[:10])
    view = codes.view()
    with monkeypatch.context() as patch:
        patch.setattr(mmap, "mmap", no_memory)
        with pytest.raises(MemoryError, match=r"no memory for the codes of 2048 rows: .*Cannot allocate"):
            codes.extend(ROWS[10:])
    assert len(codes) == 10
    assert codes.view() is view
    codes.extend(ROWS[10:])
    assert_equal(codes.view(), coded(ROWS, basis("64", 100)))


def test_where_memory_ends_half_way_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn of a block needs memory, too."""
    used = basis("64", 100)
    codes, turn, calls = Codes(used, LIBRARY), Basis.turn, []

    def turned(basis: Basis, rows: np.ndarray) -> np.ndarray:
        calls.append(len(rows))
        if len(calls) == 3:
            raise MemoryError
        return turn(basis, rows)

    with monkeypatch.context() as patch:
        patch.setattr(Basis, "turn", turned)
        with pytest.raises(MemoryError):
            codes.extend(ROWS, block=500)
    assert calls == [500] * 3
    assert (len(codes), codes.view().count) == (0, 0)
    codes.extend(ROWS[::-1])
    assert_equal(codes.view(), coded(ROWS[::-1], used))


def test_a_kernel_without_huge_pages_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Memory(mmap.mmap):
        def madvise(self, *_: Any) -> None:
            asked.append(len(self))
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Memory)
    codes = Codes(basis("plain", 100), LIBRARY)
    codes.reserve(150 * CHUNK)
    codes.extend(ROWS)
    assert asked
    assert min(asked) >= 16 << 20
    assert_equal(codes.view(), coded(ROWS, basis("plain", 100)))


@pytest.mark.parametrize("name", BASES)
def test_some_rows_are_copied(name: str) -> None:
    random = np.random.default_rng(5)
    rows = steep(random, 2500, 200)
    codes = Codes(basis(name, 200), LIBRARY)
    codes.extend(rows)
    some = random.permutation(2500)[:1500]
    kept = Codes.of(codes.view(), some, LIBRARY)
    assert (len(kept), kept.view().count) == (1500, 1500)
    assert kept.view().span == codes.view().span
    np.testing.assert_array_equal(kept.view().stats, codes.view().stats)
    copy, original = decoded(kept.view()), decoded(codes.view())
    for column in ("codes", "scale", "tail", "tail_scale", "left"):
        np.testing.assert_array_equal(getattr(copy, column), getattr(original, column)[some])
    kept.extend(rows[:600])
    both = np.concatenate([rows[some], rows[:600]])
    wanted = search(steep(np.random.default_rng(99), 3, 200), both, groups=np.arange(2100) // 2, k=7)
    assert list(ranked(both, kept.view())) == list(wanted)
    none = Codes.of(codes.view(), np.empty(0, np.int64), LIBRARY)
    none.extend(rows)
    assert list(ranked(rows, none.view())) == list(ranked(rows, codes.view()))


@pytest.mark.parametrize(
    ("count", "dimensions", "scale"),
    [(1, 100, 1), (0, 100, 1), (50, LEVEL, 1), (2, LEVEL * LEVELS + 1, 1), (50, 100, 1e25), (50, 100, 3e38)],
)
def test_there_may_be_nothing_to_learn(count: int, dimensions: int, scale: float) -> None:
    assert learn(unit(np.random.default_rng(6), count, dimensions) * np.float32(scale)) is None


def test_it_learns_the_axes() -> None:
    sample = steep(np.random.default_rng(7), 600, 200)
    axes = learn(sample)
    assert axes is not None
    apart = sample.astype(np.float64) - axes.mean
    np.testing.assert_allclose(axes.axes @ axes.axes.T, np.eye(200), atol=1e-12)
    np.testing.assert_allclose(np.square(apart @ axes.axes.T).mean(axis=0), axes.energy, atol=1e-7)
    assert (np.diff(axes.energy) <= 0).all()
    turned = axes.basis(64)
    assert (turned.width, turned.levels, turned.ratios.max()) == (256, 3, 1)
    off = np.linalg.norm(turned.turn(sample)[:, :200] - apart @ axes.axes.T, axis=1)
    assert (off <= turned.rho * np.linalg.norm(apart, axis=1) * 1.001).all()
    assert turned.rho < 1e-3
    assert turned.skew < 1e-4
