"""The generator's processes: one that dies, one that is interrupted, at whatever moment; and what is said of it."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from matchcut.bench import fleet
from matchcut.bench.arrivals import Arrivals
from matchcut.bench.drive import Bounds
from matchcut.bench.errors import LoadError, WorkerDied
from matchcut.bench.plan import Mix, Plan
from matchcut.bench.prepared import Unary
from matchcut.bench.tally import Tally
from matchcut.bench.target import Target
from matchcut.bench.worker import Job
from matchcut.server.__main__ import main
from support.fake_server import FakeServer, serving

WORKER = [sys.executable, "-m", "matchcut.bench.worker"]


def job(server: FakeServer, seconds: float = 600, **changes: Any) -> Job:
    given: dict[str, Any] = {
        "target": Target(address=server.target),
        "prepared": (Unary("query", "/matchcut.v1.Recommender/Recommend", (b"",)),),
        "plan": Plan(Arrivals("constant"), Mix({"query": 1.0}), rate=50, seconds=seconds),
        "bounds": Bounds(seconds=seconds, late=60),
        "timeout": 60.0,
    }
    return Job(**{**given, **changes})


class Mortal(fleet._Worker):
    """Workers of which some are killed when they are told to start; as the kernel does where memory is short."""

    made = 0
    killed: frozenset[int] = frozenset()

    def __init__(self) -> None:
        super().__init__()
        self.number = Mortal.made
        Mortal.made += 1

    def tell(self, what: bytes) -> None:
        if "ready" in self.said and self.number in self.killed:
            self._process.kill()
            self._process.wait()
        super().tell(what)


def mortal(monkeypatch: pytest.MonkeyPatch, *killed: int) -> None:
    monkeypatch.setattr(Mortal, "made", 0)
    monkeypatch.setattr(Mortal, "killed", frozenset(killed))
    monkeypatch.setattr(fleet, "_Worker", Mortal)


def test_one_that_dies_is_noticed_while_the_others_work(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or this would take the 600 s of the plan, twice as long as a test may."""
    mortal(monkeypatch, 1)
    with pytest.raises(WorkerDied, match="a process of the load generator ended by signal 9"):
        fleet.run([job(server, process=process, processes=2) for process in range(2)])


def test_one_that_cannot_do_its_job_says_why(server: FakeServer) -> None:
    plan = Plan(Arrivals("poisson"), Mix({"query": 1.0}), rate=1, seconds=1e-9)
    with pytest.raises(LoadError, match="nothing would be sent in 1e-09 s") as told:
        fleet.run([job(server, plan=plan)])
    assert not isinstance(told.value, WorkerDied)


def test_the_points_before_and_after_a_lost_run_are_kept(
    server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mortal(monkeypatch, 1)
    page, rows = tmp_path / "load.html", tmp_path / "load.csv"
    arguments = ["--rates", "20,40,60", "--late", "60", "--timeout", "60", "--warmup", "0", "--seconds", "0.4"]
    arguments += ["--html", str(page), "--csv", str(rows)]
    assert main(["bench", "load", "--server", server.target, "--json", *arguments]) == 1
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert [point["rate"] for point in told["points"]] == [20, 60]
    assert told["lost"] == ["40 a second: a process of the load generator ended by signal 9"]
    assert "40 a second: lost, as a process of the load generator ended by signal 9" in err
    assert "Runs were lost" in page.read_text()
    assert len(rows.read_text().splitlines()) == 3
    mortal(monkeypatch, 1)
    assert main(["bench", "load", "--server", server.target, *arguments]) == 1
    assert "LOST: 40 a second: a process of the load generator ended by signal 9" in capsys.readouterr().out


def ended(process: subprocess.Popen[bytes], sent: bytes) -> tuple[int, bytes, bytes]:
    out, err = process.communicate(sent, timeout=60)
    return process.returncode, out, err


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_a_worker_whose_parent_is_gone_at_the_beginning_says_nothing(server: FakeServer, share: float) -> None:
    """Nothing, half a job, a job and no start: the parent was interrupted."""
    packed = pickle.dumps(job(server))
    sent = packed[: int(len(packed) * share)]
    with subprocess.Popen(WORKER, stdin=-1, stdout=-1, stderr=-1) as worker:
        code, out, err = ended(worker, sent)
    assert (code, err) == (0, b"")
    assert out in (b"", b'{"ready": true}\n')
    assert not server.calls


def test_a_worker_whom_nobody_hears_any_more_says_nothing(server: FakeServer) -> None:
    with subprocess.Popen(WORKER, stdin=-1, stdout=-1, stderr=-1) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stderr is not None
        worker.stdin.write(pickle.dumps(job(server, seconds=0.2)))
        worker.stdin.flush()
        assert worker.stdout.readline() == b'{"ready": true}\n'
        worker.stdin.write(f"{time.monotonic()!r}\n".encode())
        worker.stdin.flush()
        worker.stdout.close()
        assert worker.stderr.read() == b""
        assert worker.wait(60) == 0


def test_an_interrupt_of_a_worker_is_the_parents_business_from_its_first_instruction_on(server: FakeServer) -> None:
    with fleet._Worker() as worker:
        for _ in range(20):
            os.kill(worker._process.pid, signal.SIGINT)
            time.sleep(0.01)
        worker.tell(pickle.dumps(job(server, seconds=0.2)))
        fleet._heard([worker], "ready")
        os.kill(worker._process.pid, signal.SIGINT)
        worker.tell(f"{time.monotonic()!r}\n".encode())
        (told,) = fleet._heard([worker], "tally")
    assert Tally.decoded(told).kinds["query"].ok == 10
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


INTERRUPTED_AT = """
import os, signal, sys

class Finder:
    at = sys.argv.pop(1)

    def find_spec(self, name, path=None, target=None):
        if name == self.at:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
from matchcut.server.__main__ import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "module",
    ["matchcut.server.commands.bench", "rich.console", "grpc", "matchcut.client", "hdrh", "matchcut.bench.workloads"],
)
def test_ctrl_c_while_the_command_is_imported_ends_it_with_one_line(module: str) -> None:
    command = [sys.executable, "-c", INTERRUPTED_AT, module, "bench", "load", "--server", "127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "matchcut: interrupted\n")


@pytest.mark.parametrize("patience", [0.0, 0.15, 0.4])
def test_ctrl_c_while_the_workers_start_ends_all_with_one_line(server: FakeServer, patience: float) -> None:
    command = [sys.executable, "-m", "matchcut.server", "bench", "load", "--server", server.target, "--rate", "50"]
    with subprocess.Popen(
        [*command, "--seconds", "600", "--processes", "2"], stdout=-1, stderr=-1, text=True, restore_signals=True
    ) as process:
        try:
            assert process.stderr is not None
            assert "to warm up" in process.stderr.readline()
            time.sleep(patience)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    # Where the workers were up already, there is a report of what they had sent, marked partial.
    assert err == "" if "interrupted: these figures are partial" in out else err == "matchcut: interrupted\n"


def test_a_server_that_stops_midway(capsys: pytest.CaptureFixture[str]) -> None:
    """What was answered before is told, and what is left behind; the exit code is that of a server that is away."""
    fake = FakeServer()
    entered = serving(fake)
    (address,) = entered.__enter__()
    over = threading.Event()

    def stop() -> None:
        while len(fake.calls) < 35 and not over.wait(0.01):  # some of them prepare
            pass
        entered.__exit__(None, None, None)

    stopping = threading.Thread(target=stop)
    stopping.start()
    arguments = ["--mix", "query,user-live", "--users", "3", "--rate", "40", "--schedule", "constant", "--warmup", "0"]
    arguments += ["--seconds", "3", "--late", "60"]
    try:
        code = main(["bench", "load", "--server", address, *arguments])
    finally:
        over.set()
        stopping.join()
    out, err = capsys.readouterr()
    assert code == 69, out
    assert "the server did not answer any more at the end" in out
    assert re.search(r"\d+ of 120 planned requests had no success \(\d+ UNAVAILABLE", out), out
    assert re.search(r"could not be removed: .*; users whose ids begin with bench-[0-9a-f]{8}- are left", err), err


def test_a_model_without_a_request_that_needs_it(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "load", "--server", server.target, "--model", "m", "--mix", "query"]) == 2
    assert "--model is of infer and infer-stream, which are not among the requests: query=1" in capsys.readouterr().err
