"""What of the comparison and of the regression guard can be tested without timing: their arithmetic and formats."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parent / "bench"))

import common
import compare_goals
import compare_load
import compare_overlap
import compare_sweep
import compare_systems
import guard
import guard_judge
from guard_judge import Figure
from guard_pairs import Pair
from serving_peers import Missing

from matchcut.inference import grpc_service_pb2 as pb

MACHINE = {"cpu": "a processor", "scan": "cpu-avx2"}
# Ratios of nine rounds, about 1, with a standard deviation of 3 %.
NOISE = (0.97, 1.02, 1.04, 0.99, 0.96, 1.01, 1.03, 0.98, 1.00)


def committed_runs(*shifts: float, what: str = "decode") -> list[dict[str, str]]:
    """Rows of the results of runs whose ratios are NOISE times a shift."""
    figures = [guard_judge.figure([ratio * shift for ratio in NOISE]) for shift in shifts]
    return [{**MACHINE, "what": what, "ratio": f"{one.ratio:.5f}", "noise": f"{one.noise:.5f}"} for one in figures]


def judged(now: list[float], rows: list[dict[str, str]]) -> guard_judge.Verdict:
    then = guard_judge.history(rows, MACHINE)
    return guard_judge.judge("decode", guard_judge.figure(now), then.get("decode"))


@pytest.mark.parametrize("shifts", [(1.0,), (0.99, 1.0, 1.01)], ids=["one run", "three runs"])
def test_a_fifth_slower_is_found_in_noise_of_three_percent(shifts: tuple[float, ...]) -> None:
    found = judged([1.2 * ratio for ratio in reversed(NOISE)], committed_runs(*shifts))
    assert found.state == "slower"
    assert found.change == pytest.approx(0.2, abs=0.02)
    assert "slower" in str(found)


@pytest.mark.parametrize("shift", [0.97, 0.985, 1.0, 1.015, 1.03])
def test_noise_of_three_percent_is_not_a_change(shift: float) -> None:
    assert judged([shift * ratio for ratio in NOISE], committed_runs(1.0)).state == "same"


def test_a_fifth_faster_is_told_and_is_no_fault() -> None:
    assert judged([ratio / 1.25 for ratio in NOISE], committed_runs(1.0)).state == "faster"


@given(st.integers(0, 2**32 - 1))
def test_random_noise_of_three_percent_hides_no_fifth_and_makes_none(seed: int) -> None:
    random = np.random.default_rng(seed)
    before = guard_judge.figure(list(random.normal(1, 0.03, 25)))
    same = guard_judge.judge("decode", guard_judge.figure(list(random.normal(1, 0.03, 25))), before)
    slow = guard_judge.judge("decode", guard_judge.figure(list(random.normal(1.2, 0.036, 25))), before)
    assert same.state == "same"
    assert slow.state == "slower"


def test_where_noise_hides_a_fifth_nothing_is_said() -> None:
    wild = [1.0, 1.6, 0.5, 1.5, 0.6, 1.4, 0.7]
    assert judged(wild, committed_runs(1.0)).state == "noisy"
    assert judged([4 * ratio for ratio in wild], committed_runs(1.0)).state == "slower", "far beyond any noise"


def test_one_outlier_among_the_rounds_changes_nothing() -> None:
    assert judged([*NOISE[:-1], 9.0], committed_runs(1.0)).state == "same"


def test_runs_that_differ_widen_the_bound() -> None:
    alike = judged(list(NOISE), committed_runs(1.0, 1.0, 1.0))
    apart = judged(list(NOISE), committed_runs(0.97, 1.0, 1.03))
    assert apart.bound > alike.bound


def test_only_the_last_runs_count() -> None:
    rows = committed_runs(*[2.0] * 5, *[1.0] * guard_judge.RUNS)
    assert judged(list(NOISE), rows).state == "same"


def test_what_is_not_committed_of_such_a_machine_is_new() -> None:
    elsewhere = [{**row, "scan": "cpu-amx"} for row in committed_runs(1.0)]
    found = judged(list(NOISE), elsewhere)
    assert found.state == "new"
    assert "nothing committed" in str(found)


@pytest.mark.parametrize("ratios", [[], [1.0, 1.0], [1.0, 0.0, 1.0], [1.0, float("nan"), 1.0], [1.0, -1.0, 1.0]])
def test_ratios_that_tell_no_noise_are_refused(ratios: list[float]) -> None:
    with pytest.raises(ValueError, match="three ratios above 0"):
        guard_judge.figure(ratios)


@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=50), st.floats(0.01, 100))
def test_a_figure_scales_with_its_ratios(ratios: list[float], factor: float) -> None:
    one, other = guard_judge.figure(ratios), guard_judge.figure([factor * ratio for ratio in ratios])
    assert other.ratio == pytest.approx(factor * one.ratio)
    assert other.noise == pytest.approx(one.noise, abs=1e-9)


def test_the_committed_results_of_the_guard_are_readable() -> None:
    rows = list(csv.DictReader((common.RESULTS / "guard.csv").read_text().splitlines()))
    assert rows
    assert set(guard.COLUMNS) <= rows[0].keys()
    machine = {name: rows[-1][name] for name in MACHINE}
    found = guard_judge.history(rows, machine)
    assert rows[-1]["what"] in found
    assert all(each.ratio > 0 and each.noise >= 0 for each in found.values())


def test_a_run_measures_sides_in_turns_with_their_own_clocks() -> None:
    ticks = {"ours": 0.0, "baseline": 0.0}
    order: list[str] = []

    def side(name: str, cost: float) -> None:
        order.append(name)
        ticks[name] += cost

    pair = Pair(
        "made up",
        lambda: side("ours", 3.0),
        lambda: side("baseline", 2.0),
        (lambda: ticks["ours"], lambda: ticks["baseline"]),
    )
    run = guard.Run(pair)
    assert run.measure(0.0) == Figure(1.5, 0.0)
    assert len(run.ours) == len(run.baseline) == guard.ROUNDS
    changes = [here for here, there in pairwise(order) if here != there]
    assert len(changes) >= guard.ROUNDS, "each round has both sides"


def taken(**cpu: list[float]) -> dict[str, dict[int, list[compare_load.Load]]]:
    """Systems with these CPU seconds a clip in each round, which take ten times as long for each caller."""
    return {
        name.replace("_", " "): {
            callers: [compare_load.Load(callers, waits=[10 * each * callers], cpu=each) for each in rounds]
            for callers in (compare_goals.LOADS if "bare" not in name else (1,))
        }
        for name, rounds in cpu.items()
    }


def test_goals_are_judged_by_the_median_of_the_rounds_ratios() -> None:
    made = taken(
        matchcut=[1.0, 10.0, 1.1],  # one round met noise on both sides
        bare=[1.0, 9.9, 1.0],
        full=[0.4, 0.4, 0.4],
        glue_a=[1.2, 1.2, 1.2],
        **{"glue_opencv+torch": [2.0, 2.0, 2.0]},
    )
    found = {(v.who, v.section, v.what): v for v in compare_goals.judged(made, "full")}
    of_bare = found["matchcut", "CPU a clip", "to bare's"]
    assert of_bare.reached == pytest.approx(10.0 / 9.9)
    assert of_bare.met
    assert found["full", "CPU a clip", "to glue a's"].reached == pytest.approx(0.4 / 1.2)
    assert found["full", "CPU a clip", "to glue opencv+torch's"].wanted == 0.35
    assert found["full", "p99, c=8", "to glue a's"].met
    assert ("matchcut fp32", "CPU a clip", "to bare fp32's") not in found, "it was not measured"


def test_a_slower_p99_is_a_goal_missed() -> None:
    made = taken(matchcut=[2.0], full=[2.0], triton=[1.0])
    found = [v for v in compare_goals.judged(made, "full") if v.section.startswith("p99")]
    assert len(found) == 2 * len(compare_goals.LOADS)
    assert not any(v.met for v in found)


def test_on_a_busy_machine_waits_are_not_judged() -> None:
    found = list(compare_goals.judged(taken(matchcut=[1.0], full=[1.0], glue_a=[2.0]), "full", waits=False))
    assert [v.section for v in found] == ["CPU a clip"]


def test_without_peers_only_the_bare_loop_is_compared_with() -> None:
    assert compare_goals.best_glue(taken(matchcut=[1.0])) == ""
    found = list(compare_goals.judged(taken(matchcut=[1.0], bare=[1.0], full=[1.0]), "full"))
    assert [v.what for v in found] == ["to bare's"]


def test_overlap_is_the_share_of_the_best_in_common() -> None:
    ours, others = [["a", "b", "c"], ["a", "b", "c"]], [["b", "a", "x"], ["a", "b", "c"]]
    assert compare_overlap.overlap(ours, ours, 3) == 1.0
    assert compare_overlap.overlap(ours, others, 3) == pytest.approx((2 / 3 + 1) / 2)
    assert compare_overlap.overlap(ours, others, 1) == pytest.approx(0.5)
    assert compare_overlap.overlap([["a"]], [["a", "b"]], 2) == 0.5, "a short list lacks what it lacks"


def test_the_sweep_turns_one_knob_after_the_other_and_keeps_all_it_tried() -> None:
    peer = compare_sweep.Peer("p", "env", {"decoder": "x"}, {"batch": (1, 4), "threads": (1, 2)}, ({"w": 1}, {"w": 2}))

    def cost(tried: list[compare_systems.Settings]) -> list[float]:
        return [1 / one["batch"] + one["threads"] for one in tried]

    best, rows = compare_sweep.tuned(peer, cost, lambda settings: (1.0 / settings["w"], 0.5))
    assert best == {"decoder": "x", "batch": 4, "threads": 1, "w": 2}
    assert [row[1] for row in rows] == ["batch"] * 2 + ["threads"] * 2 + ["serving"] * 2
    assert [row[-1] for row in rows] == ["no", "yes", "yes", "no", "no", "yes"]
    assert json.loads(str(rows[-1][2])) == best


def test_the_last_settings_of_such_a_machine_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "sweep.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["date", "cpu", *compare_sweep.COLUMNS])
        for cpu, stage, batch, chosen in (
            (common.cpu(), "serving", 1, "yes"),
            (common.cpu(), "serving", 4, "yes"),
            (common.cpu(), "serving", 8, "no"),
            (common.cpu(), "batch", 16, "yes"),
            ("another", "serving", 32, "yes"),
        ):
            writer.writerow(["2026-01-01", cpu, "triton", stage, json.dumps({"batch": batch}), "1", "", chosen, ""])
    assert compare_sweep.chosen(path) == {"triton": {"batch": 4}}


@given(st.binary(max_size=300), st.text(max_size=20))
def test_a_request_carries_the_clip_and_the_name(clip: bytes, name: str) -> None:
    request = pb.ModelInferRequest.FromString(compare_systems.infer(2.0, clip, name))
    assert request.raw_input_contents[0] == len(clip).to_bytes(4, "little") + clip
    assert np.frombuffer(request.raw_input_contents[1], np.float32).tolist() == [2.0]
    assert [each.name for each in request.inputs] == ["clip", "rate", *(["name"] if name else [])]


@given(st.lists(st.text(max_size=20), max_size=10))
def test_names_are_read_back(given: list[str]) -> None:
    raw = b"".join(compare_systems.text(name.encode()) for name in given)
    answer = pb.ModelInferResponse(raw_output_contents=[raw])
    assert compare_systems.names(answer.SerializeToString()) == given


def test_a_peer_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"README\.md says how"):
        compare_systems.environment(tmp_path, "glue")
    python = tmp_path / "glue" / "bin" / "python"
    there = tmp_path / "glue" / "lib" / "python3.11" / "site-packages" / "faiss_cpu-1.2.dist-info"
    there.mkdir(parents=True)
    assert compare_systems.installed(python, "faiss-cpu") == "faiss-cpu=1.2"
    with pytest.raises(Missing, match="lacks decord"):
        compare_systems.installed(python, "decord", "faiss-cpu")


def test_the_repository_of_triton_is_made_anew(tmp_path: Path) -> None:
    for instances in (1, 2):
        compare_systems.repository(tmp_path, Path("e.onnx"), {"batch": 8, "instances": instances})
        told = (tmp_path / "triton" / "clips" / "config.pbtxt").read_text()
        assert f"count: {instances} " in told
        assert json.dumps(json.dumps({"batch": 8})) in told
    assert {path.name for path in (tmp_path / "triton" / "clips" / "1").iterdir()} == {
        "model.py",
        "clips.py",
        "torch_net.py",
    }


class Made(compare_systems.System):
    """A system that answers with what it is told."""

    def __init__(self, wrong: str = "", fails: bool = False) -> None:
        super().__init__("made", 1, "", "")
        self._wrong, self._fails = wrong, fails

    def add(self, clip: str) -> None: ...

    def caller(self) -> AbstractContextManager[compare_systems.Ask]:
        def ask(clip: str) -> list[str]:
            if self._fails:
                raise ConnectionError("gone")
            return ["other" if clip == self._wrong else clip]

        return nullcontext(ask)

    def cpu(self) -> float:
        return 1.0


@pytest.mark.parametrize("callers", [1, 4])
def test_callers_share_the_clips(callers: int) -> None:
    loaded = compare_load.load(Made(), callers, ["a", "b", "c", "d", "e"])
    assert len(loaded.waits) == 5
    assert loaded.firsts.keys() == set("abcde")
    assert loaded.cpu_per_clip == 0.0
    assert compare_load.percentiles([loaded])[0] <= compare_load.percentiles([loaded])[2]


def test_one_by_one_adds_up_the_clips_of_each_system() -> None:
    systems = [Made(), Made()]
    found = compare_load.one_by_one(systems, ["a", "b", "c"])
    assert [len(one.waits) for one in found] == [3, 3]
    assert all(one.firsts == {"a": "a", "b": "b", "c": "c"} for one in found)
    assert all(one.seconds >= sum(one.waits) for one in found)


def test_a_system_that_fails_or_answers_wrongly_ends_the_comparison() -> None:
    with pytest.raises(SystemExit, match=r"made failed: .*gone"):
        compare_load.load(Made(fails=True), 2, ["a", "b", "c"])
    with pytest.raises(SystemExit, match=r"answers \{'b': 'other'\} first"):
        compare_load.load(Made(wrong="b"), 2, ["a", "b", "c"])
