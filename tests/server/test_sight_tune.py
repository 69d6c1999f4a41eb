"""The size of runs is measured once, and again where that does not hold any more."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path

import numpy as np
import pytest

from matchcut.server import models, sight
from matchcut.server.batcher import Batcher, Measured
from matchcut.server.batcher.timing import BUDGET, Timing, confirmed
from matchcut.server.engines import memory
from matchcut.server.records import EncoderIdentity, Floats, InputSize

MOST = 8
SECONDS = {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.032}  # so that 4 are the most that are worth it


class Toy:
    """An engine whose runs take what they are said to take."""

    def __init__(self, variant: str = "onnxruntime-fp32", digest: str = "ab") -> None:
        identity = EncoderIdentity("toy", "1", digest * 32, 3)
        self.encoder = models.Encoder(Path("encoder.onnx"), identity, InputSize(16, 16), (0, 0, 0), (1, 1, 1))
        self.variant = variant
        self.slower = 1.0
        self.runs: list[int] = []
        self.now = 0.0

    def run(self, batch: Floats) -> Floats:
        self.runs.append(len(batch))
        self.now += SECONDS.get(len(batch), 0.005 * len(batch)) * self.slower
        return np.zeros((len(batch), 3), np.float32)

    def close(self) -> None:
        pass


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    made = Toy()
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    return made


def tuned(toy: Toy, cache: Path | None, *, threads: int = 1, most: int = MOST) -> tuple[int, list[int], Batcher]:
    """What a start finds, which runs it makes for that, and the batcher."""
    toy.runs.clear()
    batcher = sight.shared(toy, most=most, queue=64)
    size = sight.tune(batcher, toy, threads=threads, cache=cache)
    return size, list(toy.runs), batcher


def test_it_is_remembered_and_confirmed_by_one_timed_run(toy: Toy, tmp_path: Path) -> None:
    size, runs, first = tuned(toy, tmp_path / "new")
    assert size == first.size == 4
    assert len(runs) > 8
    again, runs, second = tuned(toy, tmp_path / "new")
    assert (again, second.size, runs) == (4, 4, [1, 1])
    assert second._timing.known() == first._timing.known() == pytest.approx(SECONDS)
    assert second._timing.warm


def test_without_a_cache_it_is_measured_each_time(toy: Toy) -> None:
    assert tuned(toy, None)[1] == tuned(toy, None)[1]
    assert len(toy.runs) > 8


@pytest.mark.parametrize("slower", [3.0, 0.3])
def test_where_a_run_takes_something_else_now_it_is_measured_anew(toy: Toy, tmp_path: Path, slower: float) -> None:
    tuned(toy, tmp_path)
    toy.slower = slower
    assert len(tuned(toy, tmp_path)[1]) > 8
    _, runs, batcher = tuned(toy, tmp_path)
    assert runs == [1, 1], "what was measured anew was remembered in its stead"
    assert batcher._timing.seconds(1) == pytest.approx(SECONDS[1] * slower)


def test_what_matters_is_told_apart(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def anew(**options: int) -> bool:
        return len(tuned(toy, tmp_path, **options)[1]) > 2

    assert [anew(), anew()] == [True, False]
    assert [anew(threads=2), anew(threads=2)] == [True, False]
    assert [anew(most=4), anew(most=4)] == [True, False]
    toy.variant = "openvino-fp32"
    assert [anew(), anew()] == [True, False]
    toy.encoder = Toy(digest="cd").encoder
    assert [anew(), anew()] == [True, False]
    monkeypatch.setattr(memory, "CPUINFO", tmp_path / "nowhere")
    assert [anew(), anew()] == [True, False]
    assert len(list(tmp_path.iterdir())) == 6


def test_an_engine_of_a_gpu_is_measured_each_time(toy: Toy, tmp_path: Path) -> None:
    """Which GPU it is is not known here."""
    toy.variant = "tensorrt"
    assert len(tuned(toy, tmp_path)[1]) == len(tuned(toy, tmp_path)[1]) > 8
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "said",
    [
        {"size": 3},
        {"size": 0},
        {"size": -1},
        {"size": 1 << 40},
        {"size": float("inf")},
        {"size": None},
        {"size": [4]},
        {"seconds": {}},
        {"seconds": []},
        {"seconds": {"4": 0.016}},
        {"seconds": {"1": 0.01, "4": float("nan")}},
        {"seconds": {"1": 0.0, "4": 0.1}},
        {"seconds": {"1": -1, "4": 0.1}},
        {"seconds": {"one": 1, "4": 0.1}},
        {"seconds": {"1": 0.01, "4": "x"}},
    ],
)
def test_what_cannot_be_true_is_measured_anew(toy: Toy, tmp_path: Path, said: dict[str, object]) -> None:
    tuned(toy, tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_text()
    file.write_text(json.dumps({**json.loads(whole), **said}))
    size, runs, _ = tuned(toy, tmp_path)
    assert (size, len(runs) > 8) == (4, True)
    assert json.loads(file.read_text())["size"] == 4


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '{"size": 4}', "\x00\xff", "[" * 100_000])
def test_a_damaged_file_is_measured_anew(toy: Toy, tmp_path: Path, damage: str) -> None:
    tuned(toy, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(damage)
    assert len(tuned(toy, tmp_path)[1]) > 8
    assert json.loads(file.read_text())["size"] == 4


def test_a_cache_that_cannot_be_written(toy: Toy, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert tuned(toy, tmp_path / "file")[0] == 4
    assert "cannot be remembered" in caplog.text


def test_nothing_half_written_is_left_where_it_cannot_be_put_in_its_place(
    toy: Toy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tuned(toy, tmp_path)
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.mkdir()
    with caplog.at_level(logging.WARNING):
        assert tuned(toy, tmp_path)[0] == 4
    assert "cannot be remembered" in caplog.text
    assert list(tmp_path.iterdir()) == [file]


def test_what_is_not_confirmed_is_not_learnt(toy: Toy) -> None:
    def run(count: int) -> None:
        toy.now += SECONDS[count]

    for found in (Measured(4, {4: 0.016}), Measured(9, {1: 0.01}), Measured(1, {1: 0.021}), Measured(1, {1: 0.0049})):
        timing = Timing()
        assert not confirmed(run, found, MOST, timing)
        assert (timing.warm, timing.known()) == (False, {})
    timing = Timing()
    assert confirmed(run, Measured(4, SECONDS), MOST, timing)
    assert timing.known() == SECONDS
    assert 2 * SECONDS[1] < BUDGET, "which is all that it costs"
