"""Ranking on the GPU against topk.search: ids, order and scores, bit by bit, whatever is asked.

Everywhere in Triton's interpreter, one kernel after the other; with MATCHCUT_TEST_GPU=1 on the GPU of the machine too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matchcut.kernels import topk
from matchcut.kernels.basis import Basis, learn
from matchcut.kernels.codes import Codes
from matchcut.kernels.cuda import launcher, ranking
from matchcut.kernels.cuda.errors import CudaAbsent
from matchcut.kernels.cuda.home import Cuda
from matchcut.kernels.cuda.one_pass import Pass
from matchcut.kernels.cuda.probe import Absent
from matchcut.kernels.launch.ranking import pairwise, tiles_of
from matchcut.kernels.native.shared_library import load
from matchcut.kernels.score import exact_score
from support.interpreted import Interpreted

GPU = os.environ.get("MATCHCUT_TEST_GPU") == "1"


class Home:
    """A Cuda to test, and what it has launched."""

    def __init__(self, where: str) -> None:
        self.on_gpu = where == "gpu"
        self._homes: dict[str, Cuda] = {}
        self._contexts: list[Interpreted] = []

    def __call__(self, kind: str = "int8") -> Cuda:
        if kind not in self._homes:
            context: Any = None
            if not self.on_gpu:
                context = Interpreted()
                self._contexts.append(context)
            self._homes[kind] = Cuda(scan=kind, context=context)
        return self._homes[kind]

    def ran(self, name: str) -> bool:
        """Whether such a kernel ran, or the one for this generation; on the GPU nobody counts."""
        launched = [context.only.launched for context in self._contexts]
        return self.on_gpu or any(one[name] or one[f"{name}_sm90"] for one in launched)

    def close(self) -> None:
        for home in self._homes.values():
            home.close()


@pytest.fixture(params=["interpreter", "gpu"] if GPU else ["interpreter"])
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    made = Home(request.param)
    yield made
    made.close()


def unit(random: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    rows = random.standard_normal((count, dimensions)).astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-20)
    return rows


def coded(rows: np.ndarray, dense: int | None = None) -> Codes:
    library = load()
    basis = Basis.plain(rows.shape[1])
    if dense is not None:
        axes = learn(rows)
        assert axes is not None
        basis = axes.basis(dense, len(rows))
    codes = Codes(basis, library)  # type: ignore[arg-type]  # the library is there, or nothing here can run
    codes.extend(rows)
    return codes


def same(found: topk.Ranked, wanted: topk.Ranked) -> None:
    np.testing.assert_array_equal(found.rows, wanted.rows)
    np.testing.assert_array_equal(found.groups, wanted.groups)
    np.testing.assert_array_equal(found.queries, wanted.queries)
    np.testing.assert_array_equal(found.scores, wanted.scores)
    assert not np.signbit(found.scores[found.scores == 0]).any()


def both(
    home: Cuda, queries: np.ndarray, rows: np.ndarray, codes: Codes, *, groups: np.ndarray | None = None, **rest: Any
) -> topk.Ranked:
    """Searches on both and compares; gives what the GPU found."""
    groups = np.arange(len(rows)) if groups is None else groups
    found = home.search(queries, rows, groups=groups, coded=codes.view(), **rest)
    same(found, topk.search(queries, rows, groups=groups, **rest))
    assert found.variant == home.scan
    return found


@pytest.mark.parametrize("kind", ["int8", "bf16", "fp32"])
@pytest.mark.parametrize(
    ("count", "dimensions", "batch", "k"),
    [(1, 1, 1, 1), (5, 31, 1, 10), (33, 1, 2, 3), (127, 8, 3, 7), (1023, 129, 5, 10), (1500, 33, 17, 4)],
)
def test_shapes(home: Home, kind: str, count: int, dimensions: int, batch: int, k: int) -> None:
    random = np.random.default_rng(count)
    rows, queries = unit(random, count, dimensions), unit(random, batch, dimensions)
    both(home(kind), queries, rows, coded(rows), k=k)
    columns = 8 if batch <= 8 else 64
    assert home.ran(f"scan_{kind}_{columns}_dense")
    assert home.ran("narrow") or batch <= 4


@pytest.mark.parametrize("batch", [2, 17])
def test_a_turned_prefix_and_its_tails(home: Home, batch: int) -> None:
    random = np.random.default_rng(1)
    rows = unit(random, 1200, 200) * np.linspace(3, 0.05, 200, dtype=np.float32) ** 2
    queries = rows[random.integers(0, 1200, batch)] + unit(random, batch, 200) / 8
    found = both(home(), queries, rows, coded(rows, 64), k=5)
    few = ("scan_int8_8_prefix", "seeds", "tails", "lowers", "narrow")
    for name in few if batch <= 8 else ("scan_int8_64_all", "lowers", "narrow"):
        assert home.ran(name)
    if batch <= 8:
        assert 0 < found.pieces < 3 * batch * len(rows)  # the prefix decides most of it


@pytest.mark.parametrize("dense", [None, 64])
def test_another_generation(dense: int | None) -> None:
    """Compute capability 8.6 has tiles of its own for many queries."""
    random = np.random.default_rng(10)
    context: Any = Interpreted()
    context.capability = 86
    rows = unit(random, 600, 160)
    both(Cuda(context=context), unit(random, 20, 160), rows, coded(rows, dense), k=6)
    assert context.only.launched["scan_int8_64_dense" if dense is None else "scan_int8_64_all"]


def test_1280_dimensions(home: Home) -> None:
    random = np.random.default_rng(2)
    rows = unit(random, 300, 1280)
    both(home(), rows[:1] + unit(random, 1, 1280) / 4, rows, coded(rows), k=3)


def test_groups_rank_once_each(home: Home) -> None:
    random = np.random.default_rng(3)
    rows = unit(random, 400, 40)
    for groups in (np.repeat(np.arange(40), 10), random.integers(0, 30, 400), np.zeros(400, np.int64)):
        both(home(), unit(random, 3, 40), rows, coded(rows), groups=groups, k=20)
    both(home(), unit(random, 3, 40), rows, coded(rows), groups=random.integers(-9, 2**40, 400) // 2**36, k=20)


def test_filters_minimum_and_exclusion(home: Home) -> None:
    random = np.random.default_rng(4)
    rows, queries = unit(random, 1000, 48), unit(random, 3, 48)
    groups = np.repeat(np.arange(250), 4)
    codes = coded(rows)
    for share in (0.5, 0.01, 0.0):
        both(home(), queries, rows, codes, groups=groups, k=10, eligible=random.random(1000) < share)
    both(home(), queries, rows, codes, groups=groups, k=250, minimum=0.25)
    assert len(both(home(), queries, rows, codes, groups=groups, k=10, minimum=2.0)) == 0
    excluded = [np.arange(0, 200), np.empty(0, np.int64), np.arange(250)]
    found = home().search_each(queries, rows, groups=groups, k=10, coded=codes.view(), excluded=excluded)
    assert home.ran("seeds")
    for at, one in enumerate(found):
        wanted = topk.search(queries[at : at + 1], rows, groups=groups, k=10, eligible=~np.isin(groups, excluded[at]))
        same(one, wanted)
    assert len(found[2]) == 0


def test_ties_go_to_the_lower_row(home: Home) -> None:
    random = np.random.default_rng(5)
    rows = np.repeat(unit(random, 40, 24), 20, axis=0)[random.permutation(800)]
    both(home(), unit(random, 2, 24), np.ascontiguousarray(rows), coded(rows), k=60)


def test_more_ties_than_the_device_places(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.ones((1500, 8), np.float32)
    settled: list[int] = []
    inner = Pass._settle

    def settle(*arguments: Any, **options: Any) -> Any:
        settled.append(1)
        return inner(*arguments, **options)

    monkeypatch.setattr(Pass, "_settle", settle)
    both(home(), np.ones((1, 8), np.float32), rows, coded(rows), k=3)
    assert settled


def test_a_list_that_overflows_is_made_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "_CAPACITY", {8: 16, 64: 16})
    random = np.random.default_rng(6)
    rows = unit(random, 700, 16)
    found = both(home(), unit(random, 3, 16), rows, coded(rows), k=30)
    assert found.survivors > 3 * 16


def test_values_at_the_edges_of_float32(home: Home) -> None:
    random = np.random.default_rng(7)
    rows = unit(random, 300, 20)
    rows[::7] *= np.float32(1e-30)
    rows[::11] *= np.float32(1e10)
    rows[5] = 0
    rows[6] = -0.0
    rows[9] = np.float32(1e-45)
    queries = unit(random, 2, 20)
    both(home(), queries, rows, coded(rows), k=40)
    both(home("fp32"), queries, rows, coded(rows), k=300)


def test_norms_that_nothing_bounds_are_left_to_numpy(home: Home) -> None:
    rows = np.full((50, 4), 1e30, np.float32)
    found = home().search(rows[:1], rows, groups=np.arange(50), k=3, coded=coded(rows).view())
    assert found.variant == "cpu-numpy"
    assert found.rows.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="too large or too small"):
        home().search_each(rows[:1], rows, groups=np.arange(50), k=3, coded=coded(rows).view())


def test_what_cannot_be_asked(home: Home) -> None:
    rows = np.eye(4, dtype=np.float32)
    codes, groups = coded(rows).view(), np.arange(4)
    with pytest.raises(ValueError, match="NaN"):
        home().search(np.full((1, 4), np.nan, np.float32), rows, groups=groups, k=1, coded=codes)
    with pytest.raises(ValueError, match="at most 4096"):
        home().search_each(rows, rows, groups=groups, k=4097, coded=codes)
    with pytest.raises(ValueError, match="4 queries need as many lists"):
        home().search_each(rows, rows, groups=groups, k=1, coded=codes, excluded=[])
    assert home().search(rows[:1], rows, groups=groups, k=9999, coded=codes).variant == "cpu-numpy"
    assert home().search(rows[:1], rows, groups=groups, k=2).variant == "cpu-numpy"
    empty = np.empty((0, 4), np.float32)
    assert len(home().search(rows[:1], empty, groups=np.empty(0, np.int64), k=2, coded=coded(empty).view())) == 0


def test_rows_that_come_later(home: Home) -> None:
    random = np.random.default_rng(8)
    rows, queries = unit(random, 2500, 32), unit(random, 2, 32)
    codes = coded(rows[:900])
    old = codes.view()
    both(home(), queries, rows[:900], codes, k=9)
    for count in (901, 1100, 2500):  # in the same chunk, in another, in a new allocation
        codes.extend(rows[len(codes) : count])
        both(home(), queries, rows[:count], codes, k=9)
    found = home().search(queries, rows[:900], groups=np.arange(900), k=9, coded=old)
    same(found, topk.search(queries, rows[:900], groups=np.arange(900), k=9))
    kept = np.sort(random.permutation(2500)[:1000])
    apart = home().copied(codes.view(), kept)
    both(home(), queries, np.ascontiguousarray(rows[kept]), apart, k=9)
    both(home(), queries, rows, codes, k=9)


def test_read_only_arrays_are_uploaded_once(home: Home) -> None:
    random = np.random.default_rng(9)
    rows = unit(random, 300, 16)
    codes, groups, eligible = coded(rows).view(), np.arange(300), random.random(300) < 0.5
    for array in (groups, eligible):
        array.flags.writeable = False
    ask: dict[str, Any] = {"groups": groups, "eligible": eligible, "k": 4, "coded": codes}
    first = home().search(rows[:1], rows, **ask)
    known = dict(home()._uploads)
    same(home().search(rows[:1], rows, **ask), first)
    assert {id(groups), id(eligible)} == set(known) == set(home()._uploads)
    del ask, groups, known
    assert len(home()._uploads) == 1


def test_check_may_stop_it(home: Home) -> None:
    rows = np.eye(8, dtype=np.float32)

    def check() -> None:
        raise TimeoutError("nobody waits")

    with pytest.raises(TimeoutError):
        home().search(rows, rows, groups=np.arange(8), k=1, coded=coded(rows).view(), check=check)


def test_scans_that_a_gpu_has_not() -> None:
    context: Any = Interpreted()
    with pytest.raises(ValueError, match="no scan 'avx2' on a GPU"):
        Cuda(scan="avx2", context=context)
    context.capability = 75
    with pytest.raises(ValueError, match=r"7\.5 scans no int8 rows"):
        Cuda(scan="int8", context=context)
    assert Cuda(context=context).scan == "cuda-fp32"


@pytest.mark.skipif(GPU, reason="there is a GPU")
def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "probe", lambda: Absent("there is no NVIDIA driver"))  # the simulated one may be
    with pytest.raises(CudaAbsent, match="driver"):
        Cuda()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_small_search(home: Home, data: st.DataObject) -> None:
    count, dimensions = data.draw(st.integers(1, 300)), data.draw(st.sampled_from([1, 3, 16, 70]))
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    rows = random.integers(-2, 3, (count, dimensions)).astype(np.float32)  # ties all over
    rows *= np.float32(2.0) ** data.draw(st.integers(-20, 20))
    queries = random.integers(-2, 3, (data.draw(st.integers(1, 5)), dimensions)).astype(np.float32)
    queries[:, 0] += 0.5
    groups = random.integers(0, data.draw(st.integers(1, 300)), count)
    eligible = random.random(count) < data.draw(st.floats(0, 1)) if data.draw(st.booleans()) else None
    both(
        home(data.draw(st.sampled_from(["int8", "bf16", "fp32"]))),
        *(queries, rows, coded(rows)),
        groups=groups,
        k=data.draw(st.integers(1, 40)),
        eligible=eligible,
        minimum=data.draw(st.sampled_from([None, 0.0, 1.0])),
    )


@pytest.mark.parametrize("dimensions", [1, 7, 8, 9, 31, 64, 127, 128, 129, 136, 200, 264, 512, 1000, 1280, 2048, 4095])
def test_the_plan_sums_as_numpy_does(dimensions: int) -> None:
    """In Python, step by step as the kernel does."""
    random = np.random.default_rng(dimensions)
    x, q = random.standard_normal((2, 1, dimensions)).astype(np.float32) * np.float32(1000)
    products = (x.astype(np.float64) * q.astype(np.float64))[0]
    plan, rest_from, rest = pairwise(dimensions)
    stack: list[float] = []
    for leaf, (begin, steps, joins) in enumerate(plan.tolist()):
        sums = np.zeros(8)
        for step in range(steps):
            sums += products[begin + 8 * step : begin + 8 * step + 8]
        total = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]))
        if leaf == len(plan) - 1:
            for one in range(rest):
                total += products[rest_from + one]
        for _ in range(joins):
            total = stack.pop() + total
        stack.append(total)
    assert stack == [exact_score(q, x)[0]]
    assert len(stack) == 1


@pytest.mark.parametrize("count", [1, 128, 129, 1000, 65_536, 1_000_000, 2**31 - 1])
def test_every_tile_is_visited_once(count: int) -> None:
    tiles, hop = tiles_of(count, 128)
    assert tiles == -(-count // 128)
    if tiles < 10_000:
        assert sorted(at * hop % tiles for at in range(tiles)) == list(range(tiles))
    assert np.gcd(hop, tiles) == 1


def test_a_replaced_basis_stands_for_other_memory(home: Home) -> None:
    rows = np.eye(6, dtype=np.float32)
    view = coded(rows).view()
    home().search(rows[:1], rows, groups=np.arange(6), k=1, coded=view)
    apart = replace(view, basis=replace(view.basis))
    assert home()._mirror(view) is not home()._mirror(apart)
    assert len(home()._mirrors) == 1 + home.on_gpu * 0 + 1
