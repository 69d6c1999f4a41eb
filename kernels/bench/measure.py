"""What `matchcut bench scan` measures: made rows, every variant that this processor has, NumPy and FAISS."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.basis import Basis, learn
from matchcut.kernels.bench import contenders as timed
from matchcut.kernels.bench.rounds import Contender, Ints, Taken, exact, take_turns
from matchcut.kernels.bench.spec import Absence, Figure, Report, Spec, VariantState
from matchcut.kernels.bench.synthetic import power_law, structured, unstructured
from matchcut.kernels.codes import Codes
from matchcut.kernels.crew import Crew
from matchcut.kernels.native.shared_library import Absent, Library, load
from matchcut.kernels.plan import choose

_SAMPLE = 16_384  # rows that axes are learnt from
_DENSE = (64, 128)
_QUERIES = 16  # at least, so that no figure is that of one lucky query
_RADIUS = 1 + 1e-5  # at least the length of a unit vector in float32
_SPARE = 0.9  # of the free memory may be used
_GB = 1e9

Floats = NDArray[np.float32]
Tell = Callable[[str], None]


def measure(spec: Spec, tell: Tell) -> Report:
    """Makes rows, lets all contenders take turns, and reports."""
    report = Report(too_large="", native="", basis="", variants=[], figures=[], absent=[])
    library = load()
    if isinstance(library, Absent):
        report["native"] = library.why
    else:
        best = library.best
        report["variants"] = [VariantState(name=v.name, lacks=v.lacks, chosen=v is best) for v in library.variants]
    cells, free = spec.rows * spec.dimensions, _free_bytes() * _SPARE
    left = free - cells * (4 + len(_DENSE) + 2)  # the rows, and their codes in each basis
    if left < 0:
        report["too_large"] = f"this needs {(free - left) / _GB:.1f} GB of memory and {free / _GB:.1f} GB are free"
        return report
    source = unstructured(spec.dimensions)
    if spec.structure != "random":
        source = structured(power_law(spec.dimensions))
    tell(f"{spec.rows} x {spec.dimensions} values are made")
    rows = np.empty((spec.rows, spec.dimensions), np.float32)
    source.fill(rows, 0)
    queries = np.empty((-(-_QUERIES // spec.batch) * spec.batch, spec.dimensions), np.float32)
    source.fill(queries, 1)
    groups = np.arange(spec.rows)
    with ExitStack() as stack:
        contenders: list[Contender] = []
        if not isinstance(library, Absent):
            executor = stack.enter_context(ThreadPoolExecutor(spec.threads - 1)) if spec.threads > 1 else None
            basis = choose(rows)
            report["basis"] = (
                "plain" if basis.matrix is None else f"dense {basis.dense} of {basis.width} turned dimensions"
            )
            contenders += _coded(spec, library, executor, rows, groups, basis, tell)
        contenders.append(timed.Reference(rows, groups, _RADIUS))
        contenders += _faiss(spec, rows, queries, left, report["absent"], tell)
        tell("the right answers are computed in float64")
        truth = exact(queries, rows, spec.k)
        timed.suit(contenders, queries[: spec.batch], spec.k)
        taken = take_turns(contenders, queries, batch=spec.batch, k=spec.k, seconds=spec.seconds, tell=tell)
    report["figures"] = figures(contenders, taken, [truth] * len(taken), batch=spec.batch, k=spec.k)
    return report


def figures(
    contenders: Sequence[Contender],
    taken: Sequence[Taken],
    truths: Sequence[Ints],
    *,
    batch: int,
    k: int,
    clock: Callable[[Taken], float] = Taken.ms,
) -> list[Figure]:
    """The figure of each contender, judged by its truth; ratios are of the medians by that clock."""
    medians = {contender.name: clock(one) for contender, one in zip(contenders, taken, strict=True)}
    made: list[Figure] = []
    for contender, one, truth in zip(contenders, taken, truths, strict=True):
        ranks = contender.name != timed.READ
        right, asked = one.right(truth, batch, k) if ranks else (None, None)

        def faster(than: str, own: float = clock(one)) -> float | None:
            return medians[than] / own if than in medians else None

        made.append(
            Figure(
                who=contender.name,
                setting=contender.setting,
                rounds=len(one.wall),
                ms_median=one.ms(),
                ms_p99=one.ms(0.99),
                cpu_ms_median=one.cpu_ms(),
                faster_than_flat=faster(timed.FLAT),
                faster_than_panorama=faster(timed.PANORAMA),
                faster_than_numpy=faster(timed.NUMPY),
                of_read=clock(one) / medians[timed.READ] if timed.READ in medians else None,
                scanned=one.each("scanned", batch),
                survivors=one.each("survivors", batch),
                rescored=one.each("rescored", batch),
                code_bytes=one.each("code_bytes", batch),
                right=right,
                asked=asked,
            )
        )
    return made


def _coded(
    spec: Spec, library: Library, executor: Executor | None, rows: Floats, groups: Ints, chosen: Basis, tell: Tell
) -> Iterator[Contender]:
    """The plain read, then every variant with every basis."""
    plain = Basis.plain(spec.dimensions)
    bases = [plain] if chosen.matrix is None else [plain, chosen]
    if spec.structure != "random":
        axes = learn(rows[:: max(1, spec.rows // _SAMPLE)][:_SAMPLE])
        taken = {basis.dense for basis in bases}
        bases += [axes.basis(dense) for dense in _DENSE if axes and dense not in taken and dense < plain.dense]
    for basis in bases:
        codes = Codes(basis, library)
        coded = timed.coded_rows(codes, rows)
        if basis is plain:
            yield timed.PlainRead(coded, codes.nbytes)
        for variant in library.variants:
            if not variant.lacks:
                crew = Crew(library, variant, spec.threads, executor)
                contender = timed.Coded(crew, rows, coded, groups)
                tell(f"{contender.name} ({contender.setting}) is ready")
                yield contender


def _faiss(
    spec: Spec, rows: Floats, queries: Floats, room: float, absent: list[Absence], tell: Tell
) -> Iterator[Contender]:
    """FAISS' two exact indexes, as far as they are there and fit."""
    faiss, why = timed.optional("faiss")
    wanted = {timed.FLAT: "IndexFlatIP", timed.PANORAMA: "IndexFlatIPPanorama"}
    if faiss is None:
        absent += [Absence(who=who, why=f"{why}; pip install faiss-cpu") for who in wanted]
        return
    faiss.omp_set_num_threads(spec.threads)
    for who, kind in wanted.items():
        size = spec.rows * spec.dimensions * 4.5
        if not hasattr(faiss, kind):
            absent.append(Absence(who=who, why=f"FAISS {faiss.__version__} has no {kind}; 1.15 has"))
        elif size > room:
            absent.append(Absence(who=who, why=f"it needs {size / _GB:.1f} GB more, {room / _GB:.1f} GB are free"))
        else:
            room -= size
            tell(f"{who} {faiss.__version__} is filled")
            if who == timed.FLAT:
                yield timed.FlatIndex(faiss, rows)
            else:
                tried = timed.panorama_settings(spec.dimensions)
                index, setting, _ = timed.faiss_panorama(faiss, rows, queries, spec.k, tried)
                yield timed.FaissIndex(index, name=who, setting=setting)


def _free_bytes() -> float:
    """Memory that may be taken; as much as anyone wants where that cannot be known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), float("inf"))
