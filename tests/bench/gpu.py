"""Exact ranking on a GPU, beside the time that reading takes and beside torch; needs a GPU, PyCUDA and torch.

    python tests/bench/gpu.py [--rows 1000000] [--dims 512] [--seconds 1.0]

For each kind of scan, structure and number of queries, in one process and in turns: microseconds on the device, from
the first launch to the last (events), and by the wall clock from vectors to ranked ids, all of Python included. Each
reading asks other queries. Before it is timed, a setting's answers are compared with topk.search and torch in float64.
"""

from __future__ import annotations

import argparse
import gc
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
import common
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


@triton.jit
def read(x, out, n, BLOCK: tl.constexpr):  # noqa: N803
    """Reads n int32 and all but nothing else."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.sum(tl.load(x + at, mask=at < n, other=0), axis=0)
    if total == 123456789:
        tl.store(out, total)


@dataclass
class Setting:
    """One thing to time. ask: answers queries by the wall clock; device: seconds of some work on the device."""

    name: str
    ask: Callable[[NDArray[np.float32]], Any] | None
    device: Callable[[NDArray[np.float32]], float]


def card() -> dict[str, str]:
    """What was measured on."""
    query = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
    line = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=True
    ).stdout
    values = [value.strip() for value in line.splitlines()[0].split(",")]
    return dict(zip(("card", "driver", "sm_clock", "sm_clock_max", "memory_clock", "power_limit"), values, strict=True))


def torch_events(work: Callable[[], Any]) -> float:
    """Seconds of some torch work on the device."""
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    work()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def reading(nbytes: int) -> Callable[[NDArray[np.float32]], float]:
    """Seconds that it takes to read so many bytes."""
    space = torch.zeros(nbytes // 4, dtype=torch.int32, device="cuda")
    out = torch.zeros(1, dtype=torch.int32, device="cuda")
    grid = (triton.cdiv(nbytes // 4, 4096),)
    return lambda _: torch_events(lambda: read[grid](space, out, nbytes // 4, BLOCK=4096, num_warps=4))


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
        return self.home.search_each(
            queries, self.rows, groups=self.groups, k=k, coded=self.coded, eligible=eligible
        )

    def device(self, queries: NDArray[np.float32], k: int, eligible: NDArray[np.bool_] | None) -> float:
        """Seconds from the first launch to the end of the last pass, the queries' coding apart."""
        home, started = self.home, False
        with home.context.lane() as lane:
            resident = home._mirror(self.coded).resident(lane, self.rows, self.coded)
            mask = resident.ones if eligible is None else home._uploaded(lane, eligible, np.uint8).buffer
            groups = home._uploaded(lane, self.groups, np.int32).buffer
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
            rank(watched, Task(resident, mask, groups, k, None), asked, self.groups)
            return sum(lane.times().values())

    def stages(self, queries: NDArray[np.float32], k: int) -> dict[str, float]:
        """Seconds of each kernel, one pass, with an event after each."""
        home = self.home
        with home.context.lane() as lane:
            resident = home._mirror(self.coded).resident(lane, self.rows, self.coded)
            groups = home._uploaded(lane, self.groups, np.int32).buffer
            asked = list(home._asked(queries, self.coded, resident, None))
            inner = lane.launch
            lane.mark("start")

            def launch(name: str, grid: tuple[int, ...], *arguments: Any) -> None:
                if name.startswith("sample"):
                    lane.mark("before")
                inner(name, grid, *arguments)
                lane.mark(name)

            watched: Any = Proxy(lane, launch, lane.download)
            rank(watched, Task(resident, resident.ones, groups, k, None), asked, self.groups)
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


def right(found: list[topk.Ranked], queries: NDArray[np.float32], on_gpu: Any, eligible: Any, k: int) -> None:
    """Compares ids, in order, and scores with float64."""
    wide = torch.from_numpy(queries).cuda().double()
    parts = []
    for start in range(0, len(on_gpu), 131072):
        parts.append(wide @ on_gpu[start : start + 131072].double().T)
    scores = torch.cat(parts, dim=1)
    if eligible is not None:
        scores[:, torch.from_numpy(~eligible).cuda()] = -torch.inf
    best, ids = torch.topk(scores, k, dim=1)
    for at, one in enumerate(found):
        assert len(one) == k, (len(one), k)
        assert np.abs(best[at].cpu().numpy() - one.scores).max() < 1e-12
        assert (np.diff(one.scores) <= 0).all()
        gaps = np.abs(np.diff(best[at].cpu().numpy())).min()
        if gaps > 1e-13:  # else torch's own rounding may swap neighbours
            assert np.array_equal(ids[at].cpu().numpy(), one.rows), "the ids differ from float64's"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dims", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=0.7, help="for each setting")
    parser.add_argument("-k", type=int, default=100)
    parser.add_argument("--results", type=Path, help="folder for gpu_rank.csv; default: tests/bench/results")
    options = parser.parse_args()
    n, d, k = options.rows, options.dims, options.k
    library = load()
    assert not isinstance(library, Absent), library.why
    where = card()
    print(where)
    torch.backends.cuda.matmul.allow_tf32 = False
    figures: list[dict[str, Any]] = []
    limits = {name: reading(n * d * size) for name, size in (("int8", 1), ("bf16", 2), ("fp32", 4))}
    none = np.empty((1, d), np.float32)
    for one in limits.values():
        one(none)
    limit = {name: float(np.median([one(none) for _ in range(30)])) * 1e6 for name, one in limits.items()}
    prefix = reading(n * 128)
    limit["prefix of 128"] = float(np.median([prefix(none) for _ in range(30)])) * 1e6
    print("plain read, us:", {name: round(us, 1) for name, us in limit.items()})
    del limits, prefix
    energies = np.loadtxt(SPECTRUM)[:d]
    for structure in ("random", "spectrum"):
        source = unstructured(d) if structure == "random" else structured(energies)
        began = time.perf_counter()
        rows = np.empty((n, d), np.float32)
        source.fill(rows, 0)
        made = time.perf_counter() - began
        basis = Basis.plain(d) if structure == "random" else choose(rows, prices=GPU)
        codes = Codes(basis, library)
        codes.reserve(n)
        began = time.perf_counter()
        codes.extend(rows)
        print(f"{structure}: made in {made:.1f} s, coded in {time.perf_counter() - began:.1f} s, {basis.dense} dense")
        on_gpu = torch.from_numpy(rows).cuda()
        kinds = ["int8", "bf16", "fp32"] if structure == "random" else ["int8"]
        homes = {kind: Ranking(kind, rows, codes) for kind in kinds}
        print("uploaded, s:", {kind: round(home.uploaded, 2) for kind, home in homes.items()})
        random = np.random.default_rng(5)
        filters: list[tuple[str, NDArray[np.bool_] | None]] = [("all", None)]
        for share in (0.5, 0.01):
            some = random.random(n) < share
            some.flags.writeable = False
            filters.append((f"{share:.0%}", some))
        for batch in BATCHES:
            for label, eligible in filters if batch in (1, 64) else filters[:1]:
                settings = []
                for kind, home in homes.items():
                    checked = next(fresh(source, min(batch, 16), d))
                    right(home.each(checked, k, eligible), checked, on_gpu, eligible, k)
                    settings.append(
                        Setting(
                            f"matchcut {kind}",
                            lambda q, home=home, eligible=eligible: home.each(q, k, eligible),
                            lambda q, home=home, eligible=eligible: home.device(q, k, eligible),
                        )
                    )
                if label == "all":
                    half = on_gpu.bfloat16()

                    def ask(q: NDArray[np.float32], x: Any, dtype: Any) -> Any:
                        best = torch.topk(torch.from_numpy(q).cuda().to(dtype) @ x.T, k)
                        return best.values.cpu(), best.indices.cpu()

                    for name, x, dtype in (("torch fp32", on_gpu, torch.float32), ("torch bf16", half, torch.bfloat16)):
                        settings.append(
                            Setting(
                                name,
                                lambda q, x=x, dtype=dtype: ask(q, x, dtype),
                                lambda q, x=x, dtype=dtype: (
                                    lambda on: torch_events(lambda: torch.topk(on @ x.T, k))
                                )(torch.from_numpy(q).cuda().to(dtype)),
                            )
                        )
                took = measured(settings, source, batch, d, options.seconds)
                best = min(np.median(took[name][0]) for name in took if name.startswith("torch")) if label == "all" else 0
                for setting in settings:
                    device, wall = took[setting.name]
                    median, p99 = percentiles(device)
                    figure = {
                        **where,
                        "structure": structure,
                        "rows": n,
                        "dims": d,
                        "batch": batch,
                        "k": k,
                        "filter": label,
                        "what": setting.name,
                        "device_us": round(median, 1),
                        "device_p99_us": round(p99, 1),
                        "wall_us": round(percentiles(wall)[0], 1),
                        "wall_p99_us": round(percentiles(wall)[1], 1),
                        "of_bf16_read": round(median / limit["bf16"], 3),
                        "torch_times": round(best * 1e6 / median, 2) if best else "",
                    }
                    if setting.name.startswith("matchcut"):
                        home = homes[setting.name.split()[1]]
                        found = home.each(next(fresh(source, batch, d)), k, eligible)
                        figure["survivors"] = int(np.mean([one.survivors for one in found]))
                        figure["rescored"] = int(np.mean([one.rescored for one in found]))
                    figures.append(figure)
                    print(*[f"{figure[key]}" for key in list(figure)[6:] if key in figure], flush=True)
            print("stages of int8, us:", {
                name: round(s * 1e6, 1) for name, s in homes["int8"].stages(next(fresh(source, min(64, batch), d)), k).items()
            })
        for home in homes.values():
            home.home.close()
        del homes, on_gpu, codes, rows
        gc.collect()
        torch.cuda.empty_cache()
    for name, us in limit.items():
        figures.append({**where, "rows": n, "dims": d, "what": f"plain read, {name}", "device_us": round(us, 1)})
    if options.results:
        common.RESULTS = options.results
    columns = list(dict.fromkeys(key for figure in figures for key in figure))
    print(common.keep("gpu_rank", columns, [[figure.get(key, "") for key in columns] for figure in figures]))


if __name__ == "__main__":
    main()
