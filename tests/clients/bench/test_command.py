"""`matchcut bench load` from end to end: processes of its own, a scripted server, every way to end."""

from __future__ import annotations

import csv
import json
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from matchcut.bench.arrivals import Arrivals
from matchcut.bench.drive import Bounds
from matchcut.bench.plan import Mix, Plan
from matchcut.bench.prepared import Unary
from matchcut.bench.tally import Tally
from matchcut.bench.target import Target
from matchcut.bench.worker import Job
from matchcut.server.__main__ import main
from support.fake_server import FakeServer, SecureServer, ranking

# A noisy machine may make the generator late; what is counted must not depend on that.
PATIENT = ("--late", "60", "--timeout", "60", "--warmup", "0.1", "--seconds", "0.5")


def load(server: FakeServer, *arguments: str) -> int:
    return main(["bench", "load", "--server", server.target, *PATIENT, *arguments])


def test_two_processes_two_rates_three_files(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, rows = tmp_path / "load.html", tmp_path / "load.csv"
    files = ("--html", str(page), "--csv", str(rows), "--json")
    code = load(server, "--mix", "query=3,events=1", "--rates", "40,80", "--processes", "2", *files)
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert code == (1 if told["invalid"] else 0)
    assert [point["rate"] for point in told["points"]] == [40, 80]
    runs = [Tally.decoded(run) for point in told["points"] for run in point["runs"]]
    assert len(runs) == 2
    for run in runs:
        assert len(run.generators) == 2
        assert run.all.planned == run.all.ok > 0
        assert set(run.kinds) == {"query", "events"}
    asked = [call for call in server.calls if call.method in ("Recommend", "RecordEvents")]
    warm = sum(run.warmup["OK"] for run in runs)
    assert len(asked) == sum(run.all.ok for run in runs) + warm
    assert err.count("to warm up") == 2
    assert "Load on" in page.read_text()
    assert len(list(csv.DictReader(rows.read_text().splitlines()))) == 2 * 3
    assert told["environment"]["matchcut"]
    assert told["settings"]["mix"] == {"query": 3.0, "events": 1.0}


def test_the_table_tells_failures_apart_and_the_exit_code_too(
    server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("Recommend", *[FakeServer.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy")] * 3, answered)
    assert load(server, "--rate", "40", "--schedule", "constant", "--warmup", "0") == 1
    out = capsys.readouterr().out
    assert "3 of 20 planned requests had no success (3 RESOURCE_EXHAUSTED)" in out
    assert "latency counts from the planned time" in out
    assert "the server is on this machine" in out
    server.on("Recommend", FakeServer.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy"), answered)
    code = load(server, "--rate", "40", "--errors", "0.5", "--json")
    assert code == (1 if json.loads(capsys.readouterr().out)["invalid"] else 0)


def answered(requests: Iterator[Any], seen: Any, context: Any) -> Any:
    next(requests)
    return [ranking(1, "a", final=True)]


def test_a_server_that_goes_away(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("Recommend", *[answered] * 10, FakeServer.fails(grpc.StatusCode.UNAVAILABLE, "gone"))
    code = load(server, "--rate", "40", "--schedule", "constant", "--warmup", "0", "--seconds", "1.5", "--json")
    assert code == 69
    (point,) = json.loads(capsys.readouterr().out)["points"]
    assert point["kinds"]["query"]["ok"] == 10
    assert point["kinds"]["query"]["errors"] == {"UNAVAILABLE": 50}


def test_a_knee_that_there_is_not(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("Recommend", FakeServer.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy"))
    code = load(server, "--find-knee", "p99<50ms", "--rate", "40", "--json")
    told = json.loads(capsys.readouterr().out)
    assert code == 1
    assert told["knee"]["goal"] == "p99<50ms"
    assert told["knee"]["rate"] == 0
    assert [point["rate"] for point in told["points"]] == [40, 20]  # at 20 there are ten requests; fewer tell nothing
    assert told["knee"]["why"] == "the goal is missed even at 20 a second"


def test_the_knee_at_the_highest_rate(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert load(server, "--find-knee", "query.max<50s", "--rate", "20", "--highest", "30") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "knee: query.max<50s up to 30 a second; the search ended there: the highest rate to try is 30" in out


def test_tls_and_a_token(secure_server: SecureServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    token = tmp_path / "token"
    token.write_text("secret\n")
    chain, key = secure_server.certificate
    secure_server.target = secure_server.mutual
    shown = ["--tls-ca", str(secure_server.authorities), "--client-cert", str(chain), "--client-key", str(key)]
    load(secure_server, *shown, "--client-token-file", str(token), "--tenant", "films", "--rate", "20", "--json")
    (point,) = json.loads(capsys.readouterr().out)["points"]
    assert point["kinds"]["query"]["ok"] == point["kinds"]["query"]["planned"] > 0
    assert {call.metadata.get("authorization") for call in secure_server.calls} == {"Bearer secret"}
    assert {call.requests[0].tenant for call in secure_server.calls} == {"films"}


def test_a_trace_at_its_own_rate(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "trace"
    trace.write_text("".join(f"{number / 20}\n" for number in range(100)))
    load(server, "--trace", str(trace), "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["schedule"] == "trace"
    assert told["points"][0]["rate"] == pytest.approx(20)
    assert told["points"][0]["kinds"]["query"]["planned"] == 10


def test_nobody_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "load", "--server", "127.0.0.1:1", *PATIENT]) == 69
    assert "no server answers at 127.0.0.1:1; start one with `matchcut serve`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mix", "quer=1"], "there is no workload 'quer'; there are query, vector, clip, ingest, live, events, user"),
        (["--mix", "infer"], "infer needs a model; name it with --model"),
        (["--mix", "clip"], "the workload clip needs clips; name at least one with --clip"),
        (["--mix", "clip", "--clip", "nowhere.mp4"], "nowhere.mp4: No such file"),
        (["--find-knee", "p99"], "'p99' is no goal"),
        (["--find-knee", "events.p99<1s"], "is about events, which is not among the requests: query=1"),
        (["--find-knee", "p99<1s", "--rates", "1,2"], "--rates and --find-knee exclude each other"),
        (["--rate", "1", "--rates", "1,2"], "--rate and --rates exclude each other"),
        (["--rate", "1", "--streams", "2"], "--rate and --streams exclude each other"),
        (["--streams", "2", "--schedule", "poisson"], "--streams are cameras"),
        (["--schedule", "trace"], "--trace FILE and --schedule trace belong together"),
        (["--trace", "nowhere"], "nowhere: No such file"),
        (["--rate", "1e9"], "are more than 20000000 requests"),
        (["--model", "m"], "tells nothing of model 'm': UNIMPLEMENTED"),
        (["--html", "nowhere/x.html", "--rate", "20"], "nowhere/x.html: No such file"),
    ],
)
def test_what_cannot_be_measured(
    server: FakeServer, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(server, *arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rate", "0"], "'0' is not a number above zero"),
        (["--rates", "1,x"], "'x' is not a number above zero"),
        (["--warmup", "-1"], "'-1' is not a number from zero"),
        (["--jitter", "nan"], "'nan' is not a number from zero"),
        (["--processes", "0"], "'0' is not a whole number above zero"),
        (["--frame-size", "0x4"], "'0x4' is no size like 320x240"),
        (["--shape", "x"], "'x' is no shape like pixels=1,3,224,224"),
        (["--shape", "x=1,-1"], "is no shape"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "load", *arguments])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_without_the_library_it_says_what_to_install() -> None:
    program = "import sys; sys.modules['hdrh'] = None; from matchcut.server.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "bench", "load"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "needs hdrhistogram; install it with: pip install 'matchcut[load]'" in ended.stderr


def test_a_file_that_cannot_be_written_is_told_before_anything_is_measured(
    server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, fresh = tmp_path / "kept.csv", tmp_path / "fresh.csv"
    kept.write_text("of another run")
    for path in (kept, fresh):
        assert load(server, "--csv", str(path), "--html", str(tmp_path)) == 2
    assert "Is a directory" in capsys.readouterr().err
    assert kept.read_text() == "of another run"
    assert not fresh.exists()
    assert not server.calls


def test_a_table_has_no_latency_where_nothing_succeeded(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.on("Recommend", FakeServer.fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "busy"))
    assert load(server, "--rate", "20") == 1
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│   20 │")]
    assert [cell.strip() for cell in row.split("│")[3:7]] == ["-"] * 4


def test_ctrl_c_gives_what_there_is(server: FakeServer, tmp_path: Path) -> None:
    page = tmp_path / "load.html"
    command = [sys.executable, "-m", "matchcut.server", "bench", "load", "--server", server.target, "--json"]
    more = ["--rate", "50", "--seconds", "600", "--warmup", "0", "--processes", "2", "--html", str(page)]
    with subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, restore_signals=True
    ) as process:
        try:
            server.call(20)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    told = json.loads(out)
    assert told["partial"]
    (run,) = told["points"][0]["runs"]
    assert run["partial"]
    assert Tally.decoded(run).all.ok > 0
    assert "The measuring was interrupted: this is partial." in page.read_text()


def test_ctrl_c_during_the_cleaning_says_what_is_left(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, **options: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("matchcut.bench.workloads.Own.clean", interrupted)
    assert load(server, "--mix", "events", "--rate", "20") == 130
    first, second = capsys.readouterr().err.splitlines()[-2:]
    assert re.search(r"interrupted while .* was removed; users whose ids begin with bench-[0-9a-f]+- are left", first)
    assert second == "matchcut: interrupted"


def test_a_process_that_dies_is_told(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert load(server) == 1
    assert "a process of the load generator ended with exit code 1" in capsys.readouterr().err


def test_a_worker_whose_parent_is_gone_ends(server: FakeServer) -> None:
    request = b""
    job = Job(
        target=Target(address=server.target),
        prepared=(Unary("query", "/matchcut.v1.Recommender/Recommend", (request,)),),
        plan=Plan(Arrivals("constant"), Mix({"query": 1.0}), rate=50, seconds=600),
        bounds=Bounds(seconds=600, late=60),
        timeout=60,
    )
    command = [sys.executable, "-m", "matchcut.bench.worker"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(pickle.dumps(job))
            worker.stdin.flush()
            assert json.loads(worker.stdout.readline()) == {"ready": True}
            worker.stdin.write(b"0.0\n")  # long ago: all of it is late
            worker.stdin.close()
            tally = Tally.decoded(json.loads(worker.stdout.readline())["tally"])
            assert worker.wait(60) == 0
        finally:
            worker.kill()
    assert tally.partial
    assert tally.all.planned < 30_000
