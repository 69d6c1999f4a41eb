"""`matchcut bench scan`: small sizes, in a process of its own as for a user."""

from __future__ import annotations

import dataclasses
import json
import os
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.kernels.bench import contenders, measure
from matchcut.kernels.bench.rounds import Answer, exact, take_turns
from matchcut.kernels.bench.spec import STRUCTURES, Spec
from matchcut.kernels.bench.synthetic import power_law, structured, unstructured
from matchcut.kernels.native.shared_library import Absent, load
from matchcut.server.__main__ import main
from matchcut.server.commands import bench

SMALL = ("--rows", "3000", "--dims", "192", "--seconds", "0.02")
ABSENT = 'raise ImportError("No module named faiss")\n'
# A FAISS of NumPy. It has no IndexFlatIPPanorama unless that is added.
FAKE = """
    import numpy as np
    from types import SimpleNamespace

    __version__ = "1.2"
    cvar = SimpleNamespace(distance_compute_blas_threshold=20)

    def omp_set_num_threads(threads):
        assert threads == 1

    class IndexFlatIP:
        def __init__(self, dimensions):
            self.rows = np.empty((0, dimensions), np.float32)

        def add(self, rows):
            self.rows = np.concatenate([self.rows, rows])

        def search(self, queries, k):
            scores = queries.astype(np.float64) @ self.rows.T.astype(np.float64)
            ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            return np.take_along_axis(scores, ids, axis=1), ids
"""
PANORAMA = """
    class IndexFlatIPPanorama(IndexFlatIP):
        def __init__(self, dimensions, levels, batch):
            super().__init__(dimensions)
            assert levels in (3, 6, 12) and batch == 1024
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules the measuring process prefers."""
    found = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(found))
    (tmp_path / "faiss.py").write_text(ABSENT)
    return tmp_path


@pytest.fixture
def native() -> list[str]:
    """Names of the variants that run here."""
    library = load()
    if isinstance(library, Absent):
        pytest.fail(library.why)
    return [f"matchcut {variant.name}" for variant in library.variants if not variant.lacks]


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert main(["bench", "scan", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_variant_is_timed_and_right(modules: Path, native: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    found = run_json(capsys, *SMALL)
    assert (found["rows"], found["dimensions"], found["k"], found["batch"]) == (3000, 192, 10, 1)
    assert found["cpu"]
    assert [one["who"] for one in found["figures"]] == ["plain read", *native, "NumPy reference"]
    for one in found["figures"]:
        assert 0 < one["ms_median"] <= one["ms_p99"]
        assert one["faster_than_flat"] is None
        if one["who"] == "plain read":
            assert one["right"] is None
            assert one["of_read"] == 1
            continue
        assert one["asked"] > 0
        assert one["right"] == one["asked"], one["who"]
        assert one["rescored"] >= 10
        if one["who"] != "NumPy reference":
            assert one["setting"] == "plain"
            assert one["scanned"] == 3000
            assert 10 <= one["survivors"] <= 3000
            assert one["code_bytes"] >= 3000 * 192
    assert sum(one["chosen"] for one in found["variants"]) == 1
    assert {one["who"] for one in found["absent"]} == {"FAISS flat", "FAISS Panorama"}
    assert "pip install faiss-cpu" in found["absent"][0]["why"]


def test_structure_batches_and_a_faiss_without_panorama(
    modules: Path, native: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (modules / "faiss.py").write_text(textwrap.dedent(FAKE))
    found = run_json(capsys, *SMALL, "--structure", "spectrum", "--batch", "32", "--k", "7")
    named = [(one["who"], one["setting"]) for one in found["figures"]]
    assert [who for who, setting in named if setting == "dense 64"] == native
    assert [who for who, setting in named if setting == "dense 128"] == native
    flat = next(one for one in found["figures"] if one["who"] == "FAISS flat")
    assert flat["setting"] in ("BLAS from 800", "BLAS from 20")
    assert flat["faster_than_flat"] == 1
    for one in found["figures"]:
        assert one["right"] == one["asked"]
    assert found["absent"] == [{"who": "FAISS Panorama", "why": "FAISS 1.2 has no IndexFlatIPPanorama; 1.15 has"}]


def test_the_table_says_it_all(modules: Path, native: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (modules / "faiss.py").write_text(textwrap.dedent(FAKE) + textwrap.dedent(PANORAMA))
    assert main(["bench", "scan", *SMALL]) == 0
    shown = capsys.readouterr().out
    for word in ("3000 x 192, random, k = 10, a query at a time, 1 thread", "plain", "yes", "the one that the server"):
        assert word in " ".join(shown.split())
    library = load()
    assert not isinstance(library, Absent)
    for variant in library.variants:
        assert variant.name[:6] in shown
        if variant.lacks:
            assert f"{variant.name} cannot run here: {variant.lacks}" in " ".join(shown.split())


def test_without_the_library_numpy_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "load", lambda: Absent("it was not built"))
    monkeypatch.setattr(contenders, "optional", lambda name: (None, f"no {name}"))
    told: list[str] = []
    report = measure.measure(Spec(500, 32, seconds=0.01), told.append)
    assert report["native"] == "it was not built"
    assert [one["who"] for one in report["figures"]] == ["NumPy reference"]
    assert report["variants"] == []
    assert any("rounds" in line for line in told)
    lines = list(bench._remarks(report, "NumPy"))
    assert "no native scan: it was not built" in lines
    assert "FAISS flat was not timed: no faiss; pip install faiss-cpu" in lines


def test_rows_that_do_not_fit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "scan", "--rows", str(10**12)]) == 2
    said = capsys.readouterr().err
    assert "GB are free; give fewer --rows" in said
    monkeypatch.setattr(measure, "_free_bytes", lambda: 1500.0 * 32 * 8)
    monkeypatch.setattr(contenders, "optional", lambda name: (np, ""))
    monkeypatch.setattr(np, "IndexFlatIP", None, raising=False)
    monkeypatch.setattr(np, "omp_set_num_threads", lambda threads: None, raising=False)
    report = measure.measure(Spec(1000, 32, seconds=0.01), lambda line: None)
    assert {one["who"]: one["why"].partition(" GB")[0] for one in report["absent"]} == {
        "FAISS flat": "it needs 0.0",
        "FAISS Panorama": f"FAISS {np.__version__} has no IndexFlatIPPanorama; 1.15 has",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rows", "0"], "'0' is not a whole number above zero"),
        (["--rows", "1.5"], "'1.5' is not a whole number above zero"),
        (["--k", "x"], "'x' is not a whole number above zero"),
        (["--seconds", "0"], "'0' is not a number above zero"),
        (["--structure", "cubic"], "invalid choice: 'cubic'"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "scan", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_nothing_to_measure_or_too_much_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench"])
    assert ended.value.code == 2
    assert "the following arguments are required: WHAT" in capsys.readouterr().err
    assert main(["bench", "scan", "--batch", "65"]) == 2
    assert "--batch is at most 64" in capsys.readouterr().err
    assert main(["bench", "scan", "--threads", "100000"]) == 2
    assert "--threads 100000: this process may use" in capsys.readouterr().err


def test_two_threads(modules: Path, native: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this process may use one core only")
    found = run_json(capsys, "--rows", "40000", "--dims", "64", "--seconds", "0.02", "--threads", "2")
    assert found["threads"] == 2
    assert all(one["right"] == one["asked"] for one in found["figures"])


def test_a_measuring_process_that_ends(modules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (modules / "faiss.py").write_text("import os; os.kill(os.getpid(), 9)")
    assert main(["bench", "scan", *SMALL]) == 1
    assert "ended by signal 9; was it short of memory? give fewer --rows" in capsys.readouterr().err
    (modules / "faiss.py").write_text("raise SystemExit(3)")
    assert main(["bench", "scan", *SMALL]) == 1
    assert "the measuring process failed; the reason is above" in capsys.readouterr().err


@dataclasses.dataclass
class Sleeper:
    """Says that it took some time, by a clock that it turns."""

    name: str
    takes: float
    clock: list[float]
    setting: str = ""
    asked: list[int] = dataclasses.field(default_factory=list)

    def ask(self, queries: Any, k: int) -> Answer:
        self.clock[0] += self.takes
        self.asked.append(int(queries[0, 0]))
        return Answer(np.full((len(queries), k), int(queries[0, 0])), survivors=len(queries) * 4)


def test_turns_are_fair_and_slow_ones_sit_out(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("matchcut.kernels.bench.rounds.time.perf_counter", lambda: clock[0])
    queries = np.arange(5, dtype=np.float32)[:, np.newaxis]
    quick, slow, slowest = (Sleeper(str(takes), takes, clock) for takes in (0.125, 0.5, 32.0))
    taken = take_turns([quick, slow, slowest], queries, batch=2, k=1, seconds=2.0)
    assert [len(one.wall) for one in taken] == [16, 4, 1]
    assert [one.ms() for one in taken] == [125, 500, 32000]
    assert quick.asked == [0] + [0, 2] * 8  # the fifth query makes no batch
    assert slowest.asked == [0]
    truth = np.array([[0], [0], [2], [0]])
    assert taken[0].right(truth, 2, 1) == (3, 4)
    assert taken[0].each("survivors", 2) == 4
    assert taken[0].each("rescored", 2) is None
    again = take_turns([slowest], queries, batch=2, k=1, seconds=2.0, least=3)
    assert len(again[0].wall) == 3


@pytest.mark.parametrize("structure", STRUCTURES)
def test_made_rows_are_unit_vectors_and_the_same_again(structure: str) -> None:
    source = unstructured(70) if structure == "random" else structured(power_law(70))
    rows, again = np.empty((2, 20_000, 70), np.float32)
    source.fill(rows, 1)
    source.fill(again, 1)
    np.testing.assert_array_equal(rows, again)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)
    source.fill(again, 2)
    assert not np.array_equal(rows, again)
    assert not np.array_equal(rows[:100], rows[16_384 : 16_384 + 100])


def test_float64_ranks_equal_rows_by_their_number_and_leaves_out_what_is_not_eligible() -> None:
    random = np.random.default_rng(0)
    rows = random.standard_normal((20_000, 4)).astype(np.float32)
    rows[19_000] = rows[17] = rows[5] = 100
    queries = np.ones((1, 4), np.float32)
    assert exact(queries, rows, 3).tolist() == [[5, 17, 19_000]]
    eligible = np.zeros(20_000, np.bool_)
    eligible[[17, 19_000]] = True
    assert exact(queries, rows, 3, eligible).tolist() == [[17, 19_000, -1]]
