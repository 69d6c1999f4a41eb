"""One section of scan.py under way: codes rows, lets contenders take turns, prints and keeps what they took."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata

import common
from libraries import PACKAGES, fit
from scan_data import Data, anonymous_bytes
from scan_goals import Verdict, judged

from matchcut.kernels.basis import Basis, learn
from matchcut.kernels.bench import contenders as timed
from matchcut.kernels.bench.measure import figures
from matchcut.kernels.bench.rounds import Contender, Ints, Taken, take_turns
from matchcut.kernels.bench.spec import Figure
from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.crew import Crew
from matchcut.kernels.native.shared_library import Library
from matchcut.kernels.plan import choose

COLUMNS = (
    *("versions", "section", "structure", "rows", "dims", "batch", "k", "who", "setting", "rounds"),
    *("cpu_ms_p50", "wall_ms_p50", "wall_ms_p99", "faster_than_flat", "faster_than_panorama", "of_read"),
    *("right", "asked", "candidates", "rescored", "code_bytes", "memory_mib"),
)
GOAL_COLUMNS = ("section", "what", "who", "reached", "wanted", "met")
DENSE = (64, 128)
SAMPLE = 16_384
LEAST = 3  # rounds of the slowest


@dataclass(frozen=True, slots=True)
class Coding:
    """Rows coded in one basis, and what memory that took."""

    coded: CodedRows
    size: int
    memory: int


@dataclass(slots=True)
class Bench:
    """One section under way. memory: bytes by (who, setting). record: whether results are appended."""

    section: str
    data: Data
    library: Library
    seconds: float
    record: bool
    codings: list[Coding] = field(default_factory=list)
    chosen: str = ""
    memory: dict[tuple[str, str], int] = field(default_factory=dict)

    def code(self) -> None:
        """Codes the rows plainly, as the cost model chooses, and with 64 and 128 dense dimensions."""
        rows = self.data.rows
        best = choose(rows)
        bases = [Basis.plain(rows.shape[1])] + ([] if best.matrix is None else [best])
        axes = None if best.matrix is None else learn(rows[:: max(1, len(rows) // SAMPLE)][:SAMPLE])
        taken = {basis.dense for basis in bases}
        bases += [axes.basis(dense) for dense in DENSE if axes is not None and dense not in taken]
        for basis in bases:
            gc.collect()
            before = anonymous_bytes()
            codes = Codes(basis, self.library)
            coded = timed.coded_rows(codes, rows)
            self.codings.append(Coding(coded, codes.nbytes, anonymous_bytes() - before))
        self.chosen = self.own(self.codings[-1 if len(bases) == 1 else 1]).setting
        print(f"a catalogue of these rows would be coded: {self.chosen}", flush=True)

    def own(self, coding: Coding, variant: str = "") -> timed.Coded:
        """The coded scan as a contender."""
        crew = Crew(self.library, self.library.variant(variant) if variant else self.library.best)
        one = timed.Coded(crew, self.data.rows, coding.coded, self.data.groups)
        self.memory[one.name, one.setting] = coding.memory
        return one

    def ours(self, *, scalar: bool) -> list[Contender]:
        """The read of the plain codes, then every variant that runs here with every basis."""
        names = [one.name for one in self.library.variants if not one.lacks and (scalar or one.name != "scalar")]
        plain = self.codings[0]
        return [timed.PlainRead(plain.coded, plain.size)] + [
            self.own(coding, name) for coding in self.codings for name in names
        ]

    def time(self, contenders: Sequence[Contender], *, batch: int, k: int, wall: bool = False) -> list[Figure]:
        """Lets them take turns, prints and keeps the figures."""
        for contender in contenders:
            fit(contender, self.data.queries[:batch], self.data.truth, k)
        return self.turns(contenders, [self.data.truth] * len(contenders), batch=batch, k=k, wall=wall)

    def turns(
        self, contenders: Sequence[Contender], truths: Sequence[Ints], *, batch: int, k: int, wall: bool = False
    ) -> list[Figure]:
        """The same with right answers for each contender, and with no setting sought."""
        queries = self.data.queries
        taken = take_turns(contenders, queries, batch=batch, k=k, seconds=self.seconds, least=LEAST)
        clock: Callable[[Taken], float] = Taken.ms if wall else Taken.cpu_ms
        made = figures(contenders, taken, truths, batch=batch, k=k, clock=clock)
        self.show(made, batch, k)
        return made

    def show(self, made: Iterable[Figure], batch: int, k: int) -> None:
        """Prints figures and appends them to the results."""
        kind = self.data.kind
        print(f"\n{self.section}: {kind.rows} x {kind.dimensions}, {kind.structure}, B={batch}, k={k}")
        print(
            f"  {'':34}{'CPU ms':>9}{'wall':>9}{'p99':>9}{'x flat':>8}{'x Pan.':>8}{'of read':>8}{'MB':>8}{'left':>8}"
        )
        rows = []
        for one in made:
            ratios = (one["faster_than_flat"], one["faster_than_panorama"], one["of_read"])
            times = (one["cpu_ms_median"], one["ms_median"], one["ms_p99"])
            exactly = "" if one["asked"] is None else f"float64 {one['right']} of {one['asked']}"
            left = "" if one["survivors"] is None else f"{one['survivors']:.0f}"
            shown = "".join(f"{value:9.2f}" for value in times) + "".join(f"{number(ratio):>8}" for ratio in ratios)
            shown += f"{number(one['code_bytes'] and one['code_bytes'] / 1e6):>8}{left:>8} {exactly}"
            print(f"  {one['who']:24.24}{one['setting'][:10]:10}{shown}", flush=True)
            counts = (one["right"], one["asked"], one["survivors"], one["rescored"], one["code_bytes"])
            bytes_held = self.memory.get((one["who"], one["setting"]))
            rows.append(
                (
                    *(versions(), self.section, kind.structure, kind.rows, kind.dimensions, batch, k),
                    *(one["who"], one["setting"], one["rounds"], *map(number, times), *map(number, ratios)),
                    *("" if count is None else round(count) for count in counts),
                    "" if bytes_held is None else round(bytes_held / 2**20),
                )
            )
        if self.record:
            common.keep("scan", COLUMNS, rows)

    def judge(self, made: Iterable[Figure], batch: int, k: int) -> None:
        """Judges what the server would use."""
        variant = self.library.best.name
        self.say(judged(self.section, made, batch=batch, k=k, variant=variant, basis=self.chosen))

    def say(self, verdicts: Iterable[Verdict]) -> None:
        """Prints verdicts and appends them to the results."""
        kept = list(verdicts)
        for one in kept:
            print(one, flush=True)
        if self.record:
            rows = [
                (one.section, one.what, one.who, number(one.reached), one.wanted, "yes" if one.met else "no")
                for one in kept
            ]
            common.keep("scan_goals", GOAL_COLUMNS, rows)


def number(value: float | None) -> str:
    """For the table and the results."""
    return "" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"


def versions() -> str:
    """Of the libraries that are there."""
    there = {one.metadata["Name"].lower() for one in metadata.distributions()}
    return common.versions("numpy", *(one for one in PACKAGES if one in there))
