"""How a scan goes: what it reads, who takes part in it, and how it ends early."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
import pytest

from matchcut.kernels import crew as module
from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.crew import Found
from matchcut.kernels.native.shared_library import CHUNK, Variant
from matchcut.kernels.sieve import Crew, search_each
from matchcut.kernels.topk import Ranked
from support.native import BASES, LIBRARY, RUNNABLE, basis, coded, ranked, steep

ALONE = Crew(LIBRARY, LIBRARY.best)
VARIANTS = pytest.mark.parametrize("variant", RUNNABLE, ids=lambda variant: variant.name)
COUNT = 20_000
ROWS = steep(np.random.default_rng(0), COUNT, 200)
QUERIES = steep(np.random.default_rng(1), 3, 200)
GROUPS = np.arange(COUNT) // 2


@pytest.fixture(scope="module", params=BASES)
def kept(request: pytest.FixtureRequest) -> CodedRows:
    return coded(ROWS, basis(request.param, 200))


class Pool(ThreadPoolExecutor):
    """Remembers what it was given."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(super().submit(fn, *args, **kwargs))
        return self.futures[-1]


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pool]:
    monkeypatch.setattr(module, "_SLICE", 1)  # so that there are turns for all
    with Pool(2) as made:
        yield made


def ask(kept: CodedRows, crew: Crew = ALONE, k: int = 10, **how: Any) -> Ranked:
    return ranked(QUERIES, ROWS, kept, crew=crew, groups=GROUPS, k=k, **how)


# -- what is read --


@VARIANTS
@pytest.mark.parametrize("name", BASES)
def test_few_pairs_are_left(name: str, variant: Variant) -> None:
    found = ask(coded(ROWS, basis(name, 200), variant), Crew(LIBRARY, variant))
    assert (found.variant, found.scanned) == ("", COUNT)
    assert 10 <= found.survivors < 3 * COUNT * 0.25
    assert 10 <= found.rescored < 40
    if name.isdigit():
        assert 0 < found.pieces < 2 * found.survivors  # the tail was read, mostly not to its end
    else:
        assert found.pieces == 0  # there is none


def test_what_a_filter_leaves_out_is_not_scanned(kept: CodedRows) -> None:
    """By blocks of 16 rows; of one with few eligible rows these alone are scored, where there is no tail."""
    eligible = np.zeros(COUNT, np.bool_)
    assert ask(kept, eligible=eligible).scanned == 0
    eligible[4992:5184] = True  # 12 whole blocks
    found = ask(kept, eligible=eligible)
    assert (found.variant, found.scanned) == ("", 192)
    eligible[[0, COUNT - 1]] = True
    assert ask(kept, eligible=eligible).scanned == 192 + 2 * (16 if kept.basis.levels else 1)
    many = steep(np.random.default_rng(2), 9, 200)
    assert ranked(many, ROWS, kept, groups=GROUPS, k=3, eligible=eligible).scanned == 192 + 2 * 16  # they share it
    assert ask(kept, eligible=np.ones(COUNT, np.bool_)).scanned == COUNT


@pytest.mark.parametrize("share", [0.001, 0.005, 0.05, 0.3])
def test_what_is_eligible_may_lie_anywhere(kept: CodedRows, share: float) -> None:
    eligible = np.random.default_rng(3).random(COUNT) < share
    rows, blocks = int(eligible.sum()), int(eligible.reshape(-1, 16).any(axis=1).sum())
    found = ask(kept, eligible=eligible)
    assert found.variant == ""
    if share <= 0.005 and not kept.basis.levels:
        assert found.scanned == rows < 200
    elif share <= 0.005:
        assert found.scanned == 16 * blocks < 2000
    else:  # so many blocks that all are read may be faster
        assert 16 * blocks <= found.scanned <= COUNT


def test_the_last_block_counts_the_rows_that_it_has() -> None:
    rows = ROWS[: COUNT - 7]
    eligible = np.zeros(len(rows), np.bool_)
    eligible[-1] = True
    for name in BASES:
        kept = coded(rows, basis(name, 200))
        found = ranked(QUERIES, rows, kept, groups=GROUPS[:-7], k=3, eligible=eligible)
        assert (found.scanned, found.rows.tolist()) == (9 if name.isdigit() else 1, [COUNT - 8])


def test_queries_of_their_own_share_a_pass(kept: CodedRows, monkeypatch: pytest.MonkeyPatch) -> None:
    found = search_each(QUERIES, ROWS, kept, crew=ALONE, groups=GROUPS, k=10)
    assert [one.scanned for one in found] == [COUNT] * 3
    assert len({(one.survivors, one.pieces) for one in found}) == 1
    monkeypatch.setattr("matchcut.kernels.sieve._TOGETHER", 2)
    apart = search_each(QUERIES, ROWS, kept, crew=ALONE, groups=GROUPS, k=10)
    assert [list(one) for one in apart] == [list(one) for one in found]
    assert apart[0].survivors == apart[1].survivors
    assert apart[2].survivors < found[2].survivors


# -- who takes part --


def test_all_by_other_threads(kept: CodedRows, pool: Pool) -> None:
    """The caller's own thread waits until nothing is left for it."""

    def check() -> None:
        wait(pool.futures)

    found = ask(kept, Crew(LIBRARY, LIBRARY.best, 3, pool), check=check)
    assert len(pool.futures) == 2
    assert found.scanned == COUNT
    others = sum(future.result().scanned for future in pool.futures if not future.cancelled())
    assert COUNT - CHUNK <= others <= COUNT  # but for the first turn, if it came to that


def test_every_thread_takes_part(kept: CodedRows, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the others before it scans, and what all found makes one answer."""
    barrier, scan = threading.Barrier(3, timeout=30), module._scan_some

    def together(*args: Any) -> bool:
        barrier.wait()
        return scan(*args)

    monkeypatch.setattr(module, "_scan_some", together)
    for _ in range(5):
        pool.futures.clear()
        found = ask(kept, Crew(LIBRARY, LIBRARY.best, 3, pool))
        assert found.scanned == COUNT
        assert len(pool.futures) == 2
        assert all(isinstance(future.result(), Found) for future in pool.futures)


def test_a_busy_pool_is_not_waited_for(kept: CodedRows, pool: Pool) -> None:
    """As where a search is made from within the very pool: its tasks would never begin."""
    held = threading.Event()
    busy = [pool.submit(held.wait, 30) for _ in range(2)]
    began = time.monotonic()
    found = ask(kept, Crew(LIBRARY, LIBRARY.best, 3, pool))
    assert time.monotonic() - began < 15
    assert found.scanned == COUNT
    assert all(future.cancelled() for future in pool.futures[2:])
    assert len(pool.futures) == 4
    held.set()
    assert all(future.result() for future in busy)


def test_a_pool_that_was_shut_down_is_done_without(kept: CodedRows, pool: Pool) -> None:
    pool.shutdown()
    assert ask(kept, Crew(LIBRARY, LIBRARY.best, 3, pool)).scanned == COUNT
    assert not pool.futures


def test_few_rows_are_scanned_by_one(kept: CodedRows, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(kept.table) == 20
    monkeypatch.setattr(module, "_PARALLEL", 21)
    assert ask(kept, Crew(LIBRARY, LIBRARY.best, 3, pool)).scanned == COUNT
    assert not pool.futures


def test_rows_may_be_added_while_others_are_searched() -> None:
    """A view's last chunk is written behind its rows, and the bounds of later rows are no concern of its own."""
    codes, views, later = Codes(basis("64", 200), LIBRARY), [], 2000 + 450 * 18
    codes.extend(ROWS[:2000])
    done = threading.Event()

    def add() -> None:
        for start in range(2000, COUNT, 450):
            codes.extend(ROWS[start : start + 450] if start < later else 30 * ROWS[start : start + 450])
            views.append(codes.view())
        done.set()

    with ThreadPoolExecutor(1) as other:
        adding = other.submit(add)
        searched = 0
        while not done.is_set() or searched < 5:
            view = views[-1] if views else codes.view()
            rows = ROWS[: view.count].copy()
            rows[later:] *= 30
            ranked(QUERIES, rows, view, groups=GROUPS[: view.count], k=10)
            searched += 1
        adding.result()
    assert len(codes) == COUNT


# -- how it ends early --


class GoneError(Exception):
    pass


def gone_at(call: int) -> Callable[[], None]:
    calls = iter(range(1, call + 1))

    def check() -> None:
        if next(calls) == call:
            raise GoneError

    return check


def test_a_search_that_nobody_waits_for_stops(kept: CodedRows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLICE", 1)
    calls: list[int] = []
    ask(kept, check=lambda: calls.append(1))
    assert len(calls) >= 20 + 1  # each chunk, and what is left of them
    for call in range(1, len(calls) + 1):
        with pytest.raises(GoneError):
            ask(kept, check=gone_at(call))
        with pytest.raises(GoneError):
            search_each(QUERIES, ROWS, kept, crew=ALONE, groups=GROUPS, k=3, check=gone_at(call))


def test_other_threads_stop_too(kept: CodedRows, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are held at their first check until the caller's thread has given up, and ended before it returns."""
    stopper = module._stopper

    def late(stop: list[bool]) -> Callable[[], None]:
        def check() -> None:
            until = time.monotonic() + 30
            while not stop and time.monotonic() < until:
                time.sleep(0.001)
            stopper(stop)()

        return check

    def begun() -> None:
        while not all(future.running() for future in pool.futures):
            time.sleep(0.001)
        raise GoneError

    monkeypatch.setattr(module, "_stopper", late)
    with pytest.raises(GoneError):
        ask(kept, Crew(LIBRARY, LIBRARY.best, 3, pool), check=begun)
    assert len(pool.futures) == 2
    for future in pool.futures:
        assert future.done()
        assert "given up" in str(future.exception())


def test_what_goes_wrong_in_another_thread_is_raised(
    kept: CodedRows, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out wherever it is not the caller's thread that asks."""
    opened = module._opened

    def starved(*args: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError("no memory to search")
        wait(pool.futures)
        return opened(*args)

    monkeypatch.setattr(module, "_opened", starved)
    with pytest.raises(MemoryError, match="no memory to search"):
        ask(kept, Crew(LIBRARY, LIBRARY.best, 3, pool))
    assert len(pool.futures) == 2


@pytest.mark.parametrize("failing", ["mc_open", "mc_dense", "mc_tail", "mc_narrow"])
def test_without_memory_it_says_so(kept: CodedRows, failing: str) -> None:
    class Functions:
        def __getattr__(self, name: str) -> Any:
            if name == failing:
                return lambda *_: None if failing == "mc_open" else -1
            return getattr(LIBRARY.functions, name)

    library: Any = type("Starved", (), {"functions": Functions()})()
    with pytest.raises(MemoryError, match="no memory to search"):
        ask(kept, Crew(library, LIBRARY.best))
