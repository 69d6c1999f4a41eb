"""Exact ranking on a GPU, beside the time that reading takes and beside torch; needs a GPU, PyCUDA and torch.

    python tests/bench/gpu.py [--rows 1000000] [--dims 512] [--seconds 1.0]

For each kind of scan, structure and number of queries, in one process and in turns: microseconds on the device, from
the first launch to the last (events), and by the wall clock from vectors to ranked ids, all of Python included. Each
reading asks other queries. Before it is timed, a setting's answers are compared with topk.search and torch in float64.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from gpu_common import card, reading, torch_events
from numpy.typing import NDArray

from matchcut.kernels import topk
from matchcut.kernels.basis import Basis
from matchcut.kernels.bench.synthetic import Source, structured, unstructured
from matchcut.kernels.codes import Codes
from matchcut.kernels.cuda.home import Cuda
from matchcut.kernels.cuda.one_pass import Task
from matchcut.kernels.cuda.ranking import rank
from matchcut.kernels.native.shared_library import Absent, load
from matchcut.kernels.plan import GPU, choose

BATCHES = (1, 8, 64, 512)
SPECTRUM = Path(__file__).parent / "data" / "spectrum.csv"


@dataclass
class Setting:
    """One thing to time. ask: answers queries by the wall clock; device: seconds of some work on the device."""

    name: str
    ask: Callable[[NDArray[np.float32]], Any] | None
    device: Callable[[NDArray[np.float32]], float]


class Ranking:
    """One kind of scan of the same rows."""

    def __init__(self, kind: str, rows: NDArray[np.float32], codes: Codes) -> None:
        self.home = Cuda(scan=kind)
        self.rows, self.coded = rows, codes.view()
        self.groups = np.arange(len(rows))
        self.groups.flags.writeable = False
        began = time.perf_counter()
        self.home.prepare(rows, self.coded)
        self.uploaded = time.perf_counter() - began

    def each(self, queries: NDArray[np.float32], k: int, eligible: NDArray[np.bool_] | None) -> list[topk.Ranked]:
        return self.home.search_each(queries, self.rows, groups=self.groups, k=k, coded=self.coded, eligible=eligible)

    def device(self, queries: NDArray[np.float32], k: int, eligible: NDArray[np.bool_] | None) -> float:
        """Seconds from the first launch to the end of the last pass, the queries' coding apart."""
        home, started = self.home, False
        with home.context.lane() as lane:
            resident = home._mirror(self.coded).resident(lane, self.rows, self.coded)
            mask = resident.ones if eligible is None else home._uploaded(lane, eligible, np.uint8).buffer
            known = home._uploaded(lane, self.groups, np.int32)
            asked = list(home._asked(queries, self.coded, resident, None))
            inner = lane.launch, lane.download

            def launch(name: str, grid: tuple[int, ...], *arguments: Any) -> None:
                nonlocal started
                if not started:
                    lane.mark("start")
                    started = True
                inner[0](name, grid, *arguments)

            def download(*arguments: Any) -> Any:
                lane.mark("end")
                return inner[1](*arguments)

            watched: Any = Proxy(lane, launch, download)
            rank(watched, Task(resident, mask, known.buffer, k, None, known.distinct), asked, self.groups)
            return sum(lane.times().values())

    def stages(self, queries: NDArray[np.float32], k: int) -> dict[str, float]:
        """Seconds of each kernel, one pass, with an event after each."""
        home = self.home
        with home.context.lane() as lane:
            resident = home._mirror(self.coded).resident(lane, self.rows, self.coded)
            known = home._uploaded(lane, self.groups, np.int32)
            asked = list(home._asked(queries, self.coded, resident, None))
            inner = lane.launch
            lane.mark("start")

            def launch(name: str, grid: tuple[int, ...], *arguments: Any) -> None:
                if name.startswith("sample"):
                    lane.mark("before")
                inner(name, grid, *arguments)
                lane.mark(name)

            watched: Any = Proxy(lane, launch, lane.download)
            rank(watched, Task(resident, resident.ones, known.buffer, k, None, known.distinct), asked, self.groups)
            return lane.times()


class Proxy:
    """A lane whose launches and downloads are watched."""

    def __init__(self, lane: Any, launch: Any, download: Any) -> None:
        self.launch, self.download = launch, download
        self._lane = lane

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lane, name)


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Median and p99 in microseconds."""
    return float(np.median(seconds)) * 1e6, float(np.percentile(seconds, 99)) * 1e6


def fresh(source: Source, batch: int, dims: int) -> Iterator[NDArray[np.float32]]:
    """Other queries each time."""
    seed = 1
    while True:
        queries = np.empty((batch, dims), np.float32)
        source.fill(queries, seed)
        seed += 1
        yield queries


def measured(settings: list[Setting], source: Source, batch: int, dims: int, seconds: float) -> dict[str, Any]:
    """Readings of all settings in turns: {name: (device, wall)}, each a list of seconds."""
    made: dict[str, Any] = {setting.name: ([], []) for setting in settings}
    queries = fresh(source, batch, dims)
    for setting in settings:  # loads, compiles, fills pools
        for _ in range(3):
            some = next(queries)
            setting.device(some)
            if setting.ask:
                setting.ask(some)
    until = time.perf_counter() + seconds * len(settings)
    while time.perf_counter() < until or len(made[settings[0].name][0]) < 15:
        some = next(queries)
        for setting in settings:
            made[setting.name][0].append(setting.device(some))
            if setting.ask:
                began = time.perf_counter()
                setting.ask(some)
                made[setting.name][1].append(time.perf_counter() - began)
    return made


def right(found: list[topk.Ranked], queries: NDArray[np.float32], rows: Any, eligible: Any, k: int) -> None:
    """Compares ids, in order, and scores with float64. rows: a float32 tensor on the GPU."""
    wide = torch.from_numpy(queries).cuda().double()
    starts = range(0, len(rows), 131_072)
    scores = torch.cat([wide @ rows[start : start + 131_072].double().T for start in starts], dim=1)
    if eligible is not None:
        scores[:, torch.from_numpy(~eligible).cuda()] = -torch.inf
    best, ids = (one.cpu().numpy() for one in torch.topk(scores, k, dim=1))
    for at, one in enumerate(found):
        assert len(one) == k, (len(one), k)
        assert np.abs(best[at] - one.scores).max() < 1e-12
        assert (np.diff(one.scores) <= 0).all()
        if np.abs(np.diff(best[at])).min() > 1e-13:  # else torch's own rounding may swap neighbours
            assert np.array_equal(ids[at], one.rows), "the ids differ from float64's"


def rivals(rows: Any, k: int) -> list[Setting]:
    """torch.topk(queries @ rows.T), by float32 and by bfloat16 products."""

    def of(name: str, x: Any, dtype: Any) -> Setting:
        def ask(queries: NDArray[np.float32]) -> Any:
            best = torch.topk(torch.from_numpy(queries).cuda().to(dtype) @ x.T, k)
            return best.values.cpu(), best.indices.cpu()

        def device(queries: NDArray[np.float32]) -> float:
            there = torch.from_numpy(queries).cuda().to(dtype)
            return torch_events(lambda: torch.topk(there @ x.T, k))

        return Setting(name, ask, device)

    return [of("torch fp32", rows, torch.float32), of("torch bf16", rows.bfloat16(), torch.bfloat16)]


def own(ranking: Ranking, kind: str, k: int, eligible: NDArray[np.bool_] | None) -> Setting:
    """One kind of scan."""
    return Setting(
        f"matchcut {kind}",
        lambda queries: ranking.each(queries, k, eligible),
        lambda queries: ranking.device(queries, k, eligible),
    )


class Bench:
    """All measurements of one size."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.rows, self.dims, self.k, self.seconds = options.rows, options.dims, options.k, options.seconds
        self.where = card()
        self.figures: list[dict[str, Any]] = []
        self.limit: dict[str, float] = {}
        none = np.empty((1, 1), np.float32)
        for name, size in (("int8", 1), ("bf16", 2), ("fp32", 4), ("128 dimensions", 128 / self.dims)):
            one = reading(int(self.rows * self.dims * size))
            self.limit[name] = float(np.median([one(none) for _ in range(30)][3:])) * 1e6
            self.keep(what=f"plain read, {name}", device_us=round(self.limit[name], 1))

    def keep(self, **figure: Any) -> None:
        """Notes and prints one row."""
        print(*figure.values(), flush=True)
        self.figures.append({**self.where, "rows": self.rows, "dims": self.dims, **figure})

    def structure(self, name: str, kinds: Sequence[str]) -> None:
        """All batches and filters over rows of one structure."""
        source = unstructured(self.dims)
        if name == "spectrum":
            source = structured(np.loadtxt(SPECTRUM)[: self.dims])
        rows = np.empty((self.rows, self.dims), np.float32)
        source.fill(rows, 0)
        library = load()
        assert not isinstance(library, Absent), library.why
        codes = Codes(Basis.plain(self.dims) if name == "random" else choose(rows, prices=GPU), library)
        codes.reserve(self.rows)
        codes.extend(rows)
        there = torch.from_numpy(rows).cuda()
        ours = {kind: Ranking(kind, rows, codes) for kind in kinds}
        print(f"{name}: {codes.basis.dense} dense dimensions, {codes.basis.levels} levels; uploaded in seconds:")
        print({kind: round(one.uploaded, 2) for kind, one in ours.items()})
        random = np.random.default_rng(5)
        filters: dict[str, NDArray[np.bool_] | None] = {"all": None}
        for share in (0.5, 0.01):
            filters[f"{share:.0%}"] = random.random(self.rows) < share
        for some in filters.values():
            if some is not None:
                some.flags.writeable = False
        for batch in BATCHES:
            for label in filters if batch in (1, 64) else ("all",):
                self.batch(name, source, batch, label, filters[label], ours, there)
            spent = ours["int8"].stages(next(fresh(source, min(64, batch), self.dims)), self.k)
            print("  by kernel:", {kernel: round(seconds * 1e6, 1) for kernel, seconds in spent.items()})
        for one in ours.values():
            one.home.close()
        del there, ours
        gc.collect()
        torch.cuda.empty_cache()

    def batch(
        self,
        structure: str,
        source: Source,
        batch: int,
        label: str,
        eligible: NDArray[np.bool_] | None,
        ours: dict[str, Ranking],
        there: Any,
    ) -> None:
        """One number of queries and one filter."""
        some = next(fresh(source, min(batch, 16), self.dims))
        for ranking in ours.values():
            right(ranking.each(some, self.k, eligible), some, there, eligible, self.k)
        settings = [own(ranking, kind, self.k, eligible) for kind, ranking in ours.items()]
        settings += rivals(there, self.k) if eligible is None else []
        took = measured(settings, source, batch, self.dims, self.seconds)
        best = min((np.median(took[name][0]) for name in took if name.startswith("torch")), default=0.0) * 1e6
        for setting in settings:
            (device, device_p99), (wall, wall_p99) = map(percentiles, took[setting.name])
            survivors = rescored = 0
            if setting.name.startswith("matchcut"):
                found = ours[setting.name.split()[1]].each(next(fresh(source, batch, self.dims)), self.k, eligible)
                survivors = int(np.mean([one.survivors for one in found]))
                rescored = int(np.mean([one.rescored for one in found]))
            self.keep(
                what=setting.name,
                structure=structure,
                batch=batch,
                k=self.k,
                filter=label,
                device_us=round(device, 1),
                device_p99_us=round(device_p99, 1),
                wall_us=round(wall, 1),
                wall_p99_us=round(wall_p99, 1),
                of_bf16_read=round(device / self.limit["bf16"], 3),
                times_torch=round(best / device, 2) if best else "",
                survivors=survivors,
                rescored=rescored,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=0.7, help="for each setting")
    parser.add_argument("--structures", nargs="+", default=["random", "spectrum"], choices=["random", "spectrum"])
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--results", type=Path, help="folder for gpu_rank.csv; default: tests/bench/results")
    options = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    bench = Bench(options)
    print(bench.where)
    for structure in options.structures:
        bench.structure(structure, ("int8", "bf16", "fp32") if structure == "random" else ("int8",))
    if options.results:
        common.RESULTS = options.results
    columns = list(dict.fromkeys(key for figure in bench.figures for key in figure))
    print(common.keep("gpu_rank", columns, [[figure.get(key, "") for key in columns] for figure in bench.figures]))


if __name__ == "__main__":
    main()
