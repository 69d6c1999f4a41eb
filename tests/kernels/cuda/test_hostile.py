"""Ranking on the GPU where something is out of the ordinary: numbers, memory, failures, threads."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from cuda_sim.contexts import simulated_context
from cuda_sim.simulation import Simulation
from matchcut.kernels import topk
from matchcut.kernels.basis import Basis, learn
from matchcut.kernels.codes import Codes
from matchcut.kernels.cuda import ranking
from matchcut.kernels.cuda.errors import OutOfDeviceMemory
from matchcut.kernels.cuda.home import Cuda
from matchcut.kernels.gpu.exact import KERNELS as EXACT
from matchcut.kernels.gpu.score import KERNELS as SCORE
from matchcut.kernels.gpu.topk import KERNELS as SELECT
from matchcut.kernels.launch.ranking import plain_questions
from matchcut.kernels.native.shared_library import load
from support.interpreted import Interpreted

ALL = (*SCORE, *EXACT, *SELECT)


class Home(Cuda):
    """In the interpreter, whose lane it knows."""

    def __init__(self, kind: str = "int8") -> None:
        context: Any = Interpreted()
        super().__init__(scan=kind, context=context)
        self.lane = context.only


def unit(random: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    rows = random.standard_normal((count, dimensions)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def coded(rows: np.ndarray, dense: int | None = None) -> Codes:
    basis = Basis.plain(rows.shape[1])
    if dense is not None:
        axes = learn(rows)
        assert axes is not None
        basis = axes.basis(dense, len(rows))
    codes = Codes(basis, load())  # type: ignore[arg-type]  # the library is there, or nothing here can run
    codes.extend(rows)
    return codes


def same(found: topk.Ranked, wanted: topk.Ranked) -> None:
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_array_equal(found.groups, wanted.groups)
    np.testing.assert_array_equal(found.queries, wanted.queries)
    np.testing.assert_array_equal(found.scores, wanted.scores)


def both(home: Cuda, queries: np.ndarray, rows: np.ndarray, codes: Codes, k: int = 5) -> topk.Ranked:
    """Searches on both and compares; gives what the GPU found."""
    groups = np.arange(len(rows))
    found = home.search(queries, rows, groups=groups, k=k, coded=codes.view())
    same(found, topk.search(queries, rows, groups=groups, k=k))
    return found


# ---- thresholds ----


@pytest.mark.parametrize(("dense", "batch"), [(None, 5), (64, 2), (64, 9)])
def test_groups_that_are_not_wanted_raise_no_threshold(dense: int | None, batch: int) -> None:
    random = np.random.default_rng(1)
    rows: np.ndarray = unit(random, 400, 130) * np.linspace(3, 0.05, 130, dtype=np.float32) ** 2
    queries: np.ndarray = rows[random.integers(0, 400, batch)] + unit(random, batch, 130) / 8
    groups, k = np.arange(400) // 2, 4
    asked = [queries[at : at + 1] for at in range(batch)]
    best = [topk.search(query, rows, groups=groups, k=30).groups for query in asked]
    best[0] = best[0][:0]
    found = Home().search_each(queries, rows, groups=groups, k=k, coded=coded(rows, dense).view(), excluded=best)
    for query, unwanted, one in zip(asked, best, found, strict=True):
        same(one, topk.search(query, rows, groups=groups, k=k, eligible=~np.isin(groups, unwanted)))


@pytest.mark.parametrize("kind", ["bf16", "fp32"])
@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize(
    ("query", "row"),
    [(2.0**-133, 2.0**60), (2.0**60, 2.0**-133), (3.4e38, 1e-3), (1e-3, 3.4e38), (0, 1)],
)
def test_norms_at_the_ends_of_float32(kind: str, batch: int, query: float, row: float) -> None:
    random = np.random.default_rng(2)
    rows = (unit(random, 130, 4) * row).astype(np.float32)
    queries = (unit(random, batch, 4) * query).astype(np.float32)
    if max(query, row) > 3e38:  # what would round to infinity
        queries[0], rows[0] = [query, 0, 0, 0], [row, 0, 0, 0]
    both(Home(kind), queries, rows, coded(rows))


@pytest.mark.parametrize(("kind", "batch"), [("bf16", 1), ("bf16", 9), ("fp32", 1)])
def test_the_bounds_of_plain_rows_hold_where_all_is_cut_off(kind: Any, batch: int) -> None:
    """One product, of the numbers that lose most: halfway between two bfloat16, and just under the second tf32."""
    worst = np.float32(1 + 2.0**-8 if kind == "bf16" else 1 + 2.0**-10 - 2.0**-23)
    asked = plain_questions(np.full((batch, 1), worst), kind, float(worst), 128, 90)
    assert asked is not None
    kept = (asked.queries.astype(np.uint32) << 16).view(np.float32) if kind == "bf16" else np.ones(1)
    said = float(kept[:, 0, 0].sum()) if kind == "bf16" else 1.0  # of a row that is 1 to the device
    assert abs(float(worst) ** 2 - said) <= asked.errors[0, 2]


# ---- memory ----


def test_a_growth_that_fails_leaves_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    rows, home = unit(random, 2500, 16), Home()
    codes = coded(rows[:900])
    both(home, rows[:1], rows[:900], codes)
    old = codes.view()
    codes.extend(rows[900:])

    def full(*_: Any, **__: Any) -> Any:
        raise OutOfDeviceMemory("no memory can be page-locked")

    for call in ("upload", "copy", "allocate"):
        with monkeypatch.context() as patched:
            patched.setattr(home.lane, call, full)
            with pytest.raises(OutOfDeviceMemory):
                home.prepare(rows, codes.view())
        ask: dict[str, Any] = {"groups": np.arange(900), "k": 5}
        same(home.search(rows[:1], rows[:900], coded=old, **ask), topk.search(rows[:1], rows[:900], **ask))
    both(home, rows[:1], rows, codes)


@pytest.mark.parametrize("overflows", [False, True])
def test_passes_use_memory_again(monkeypatch: pytest.MonkeyPatch, overflows: bool) -> None:
    random = np.random.default_rng(4)
    rows, home, taken = unit(random, 64, 8), Home(), list[int]()
    monkeypatch.setattr("matchcut.kernels.cuda.home.MANY", 2)
    if overflows:
        monkeypatch.setattr(ranking, "_CAPACITY", {8: 16})
    temporary = home.lane.temporary

    def counted(nbytes: int) -> Any:
        taken.append(nbytes)
        return temporary(nbytes)

    monkeypatch.setattr(home.lane, "temporary", counted)
    monkeypatch.setattr(ranking, "_AT_ONCE", 1)
    codes, used = coded(rows), list[int]()
    for batch in (2, 6):
        taken.clear()
        found = both(home, unit(random, batch, 8), rows, codes, 40)
        assert found.survivors > batch * 16
        used.append(len(taken))
    assert used[0] == used[1]


def test_a_shelf_that_goes_takes_its_memory_along() -> None:
    rows = np.eye(6, dtype=np.float32)
    home, codes, groups = Home(), coded(rows), np.arange(6)
    groups.flags.writeable = False
    home.search(rows[:1], rows, groups=groups, k=1, coded=codes.view())
    apart = home.copied(codes.view(), np.arange(3))
    both(home, rows[:1], rows[:3], apart)
    assert (len(home._mirrors), len(home._uploads)) == (2, 1)
    del codes, groups
    gc.collect()
    assert (len(home._mirrors), len(home._uploads)) == (1, 0)


# ---- failures ----


@pytest.mark.parametrize("kind", ["int8", "bf16"])
def test_a_query_that_nothing_bounds_behind_others(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found while passes are under way."""
    monkeypatch.setattr("matchcut.kernels.cuda.home.MANY", 2)
    random = np.random.default_rng(5)
    rows, queries, home = unit(random, 100, 4), unit(random, 5, 4), Home(kind)
    queries[4] *= np.float32(3e38)
    assert both(home, queries, rows, coded(rows)).variant == "cpu-numpy"
    assert both(home, queries[:4], rows, coded(rows)).variant == home.scan


def test_codes_of_other_rows_are_refused() -> None:
    rows, home = np.eye(8, dtype=np.float32), Home()
    for codes in (coded(rows[:7]), coded(np.eye(9, dtype=np.float32)), coded(rows[:, :4].copy())):
        with pytest.raises(ValueError, match="the codes are of"):
            home.search(rows[:1], rows, groups=np.arange(8), k=1, coded=codes.view())
        with pytest.raises(ValueError, match="the codes are of"):
            home.search_each(rows[:1], rows, groups=np.arange(8), k=1, coded=codes.view())


# ---- threads ----


def test_threads_search_while_rows_come_and_memory_moves(simulation: Simulation) -> None:
    random = np.random.default_rng(6)
    rows, queries = unit(random, 2100, 8), unit(random, 1, 8)
    with simulated_context(ALL, lanes=2) as context:
        home, codes = Cuda(scan="int8", context=context), coded(rows[:900])
        views = [codes.view()]
        for count in (950, 1100, 2100):
            codes.extend(rows[len(codes) : count])
            views.append(codes.view())

        def ask(at: int) -> None:
            view = views[at]
            some, groups = rows[: view.count], np.arange(view.count)
            groups.flags.writeable = at % 2 == 0
            found = home.search(queries, some, groups=groups, k=5, coded=view)
            same(found, topk.search(queries, some, groups=groups, k=5))

        with ThreadPoolExecutor(3) as pool:
            for done in [pool.submit(ask, at) for at in (0, 1, 0, 2, 3, 0)]:
                done.result()
