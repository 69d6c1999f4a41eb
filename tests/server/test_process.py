"""How a process ends that is not to wait for anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

BEGINNING = """
import atexit, logging, sys, threading
from matchcut.server import process
logging.basicConfig(format="%(message)s")
atexit.register(print, "taken apart")
print("printed", end="")
"""
ENDED = "printed"


def ended(program: str) -> subprocess.CompletedProcess[str]:
    """What became of a program; one that does not end fails the test."""
    command = [sys.executable, "-c", BEGINNING + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "program",
    [
        "process.end()",
        "process.end_quickly(); print(end=' to the last')",
        "process.end_within(0, lambda: logging.warning('told')); threading.Event().wait()",
    ],
    ids=["at once", "quickly", "within"],
)
def test_what_was_written_is_out_and_nothing_is_taken_apart(program: str) -> None:
    done = ended(f"logging.warning('logged'); {program}")
    assert (done.returncode, done.stdout) == (0, ENDED + " to the last" * ("quickly" in program))
    assert done.stderr.split() == ["logged", "told"][: 1 + ("within" in program)]


def test_a_thread_that_never_ends_is_not_waited_for() -> None:
    """Not even one that the interpreter would wait for, before all that is registered for its end."""
    waits = "threading.Thread(target=threading.Event().wait).start()"
    assert ended(f"process.end_within(0.1, int); process.end_quickly(); {waits}").returncode == 0


def test_words_that_cannot_be_written_are_not_waited_for() -> None:
    done = ended("process.end_within(0, threading.Event().wait); threading.Event().wait()")
    assert (done.returncode, done.stdout) == (0, ENDED)
    done = ended("logging.shutdown = threading.Event().wait; process.end()")
    assert (done.returncode, done.stdout) == (0, ENDED)


def test_without_a_reader_or_another_thread_it_ends_as_well() -> None:
    done = ended("sys.stdout.close(); process.end()")
    assert done.returncode == 0
    assert not done.stderr
    done = ended(
        "def none(self): raise RuntimeError\nthreading.Thread.start = none\nlogging.warning('logged'); process.end()"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, ENDED, "logged\n")


def test_a_program_that_fails_before_tells_its_code() -> None:
    done = ended("sys.exit(3)")
    assert (done.returncode, done.stdout) == (3, f"{ENDED}taken apart\n")
