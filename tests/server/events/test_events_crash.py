"""A process that dies in the midst of appending leaves whole calls only, and all that it had answered for."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

from matchcut.server.events import open_log

SIZE = 40
# Appends calls of SIZE events in four threads, all of a call with the call's name as item, and says what is done.
CHILD = f"""
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from matchcut.server.events import open_log
from matchcut.server.records import Event, EventKind

log = open_log(Path(sys.argv[1]), days=0, user_events=0)

def work(thread):
    for call in range(10**6):
        name = f"{{sys.argv[2]}}-{{thread}}-{{call}}"
        log.append("", [Event(f"{{name}}-{{n}}", f"u{{n}}", name, EventKind.LIKE, call) for n in range({SIZE})])
        if call % 50 == 30:
            log.forget("", f"u{{thread}}")
        sys.stdout.write(name + "\\n")
        sys.stdout.flush()

with ThreadPoolExecutor(4) as pool:
    for future in [pool.submit(work, thread) for thread in range(4)]:
        future.result()
"""


def test_killed_in_the_midst(tmp_path: Path) -> None:
    path = tmp_path / "events.sqlite"
    answered: set[str] = set()
    for run, lines in enumerate((40, 150, 90)):
        answered |= append_until_killed(path, run, lines)
        with closing(open_log(path, days=0, user_events=0, threshold=0)) as log:
            kept = Counter(
                event.item_id for at in range(4, SIZE) for event in log.events(log.key("", f"u{at}"))
            )  # the first four are forgotten now and then
            assert answered <= kept.keys()
            assert set(kept.values()) == {SIZE - 4}
            popular = log.popularity("")
            assert all(popular[name] >= SIZE - 4 for name in answered)
        with closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            count = db.execute("SELECT count(*) FROM events").fetchall()
            assert db.execute("SELECT sum(events) FROM tenants").fetchall() == count


def append_until_killed(path: Path, run: int, lines: int) -> set[str]:
    """The names of the calls that were answered."""
    command = [sys.executable, "-c", CHILD, str(path), str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        assert all(said), "the child died by itself"
        child.kill()
        said += child.stdout.readlines()  # what it had said before the kill took effect
    assert child.returncode == -9
    return {line.strip() for line in said if line.endswith("\n")}
