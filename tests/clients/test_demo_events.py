"""The demo's events: the command that writes them, and that they are what it says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from matchcut.client import Event
from matchcut.server.commands.event_rows import Rows

SCRIPT = Path(__file__).parents[2] / "clients" / "demo" / "events.py"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_help_and_no_argument_write_nothing(tmp_path: Path) -> None:
    shown = run(tmp_path, "--help")
    assert shown.returncode == 0
    assert "FILE" in shown.stdout
    refused = run(tmp_path)
    assert refused.returncode == 2
    assert "required: FILE" in refused.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_events(tmp_path: Path) -> None:
    assert run(tmp_path, "events.csv").returncode == 0
    rows = Rows(tmp_path / "events.csv")
    events = [event for _, event in rows]
    rows.close()
    assert len({event.user for event in events if isinstance(event, Event)}) == 120
    assert all(isinstance(event, Event) for event in events)
