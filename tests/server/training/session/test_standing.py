"""What may be served of what was trained, and what is said of it: `matchcut train session`."""

from __future__ import annotations

import csv
import json
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from matchcut.server.__main__ import main
from matchcut.server.catalog import open_catalog
from matchcut.server.events import open_log
from matchcut.server.records import EncoderIdentity, Event, EventKind, Floats, Item, Segment, TimeRange
from matchcut.server.session.folder import current
from matchcut.server.training.session import folder, sources
from matchcut.server.training.session.dataset import Row
from matchcut.server.training.session.training import CHECKPOINT
from matchcut.server.vectors import unit

SMALL = ["--dimensions", "16", "--width", "24", "--window", "8", "--rate", "0.02", "--batch", "32", "--epochs", "1"]
DAY_US = 86_400_000_000


def wrote(path: Path, rows: list[Row]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("user", "item", "time_us", "strength"), *rows])
    return path


def run(*arguments: object) -> int:
    return main([str(each) for each in ("train", "session", *arguments)])


@pytest.fixture
def items(vectors: dict[str, Floats], tmp_path: Path) -> Path:
    path = tmp_path / "items.npz"
    rows = np.stack(list(vectors.values()))
    np.savez(path, ids=np.array(list(vectors)), vectors=rows, name="tiny", version="1", digest="d1")
    return path


@pytest.fixture
def data(rows: list[Row], vectors: dict[str, Floats], tmp_path: Path, encoder: EncoderIdentity) -> Path:
    """A server's data folder."""
    path = tmp_path / "data"
    path.mkdir()
    with closing(open_catalog(path)) as catalog:
        for item, vector in vectors.items():
            segment = Segment(TimeRange(0, 1), unit(vector, "v"))
            catalog.put("", Item(item), [segment], encoder, content=item.encode(), recipe="")
    happened(path, *((user, item, time_us + 1) for user, item, time_us, _ in rows))
    return path


def happened(path: Path, *likes: tuple[str, str, int]) -> None:
    """Likes of (user, item, time in microseconds) come in."""
    with closing(open_log(path / "events.sqlite", days=0)) as log:
        log.append("", [Event(f"{user}{item}{at}", user, item, EventKind.LIKE, at) for user, item, at in likes])


def test_too_few_to_judge_by_stop_it_before_the_training(
    rows: list[Row], items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = max(row[2] for row in rows)
    events = wrote(tmp_path / "e.csv", [*rows, ("new", "i00", newest + 2 * DAY_US, 1.0)])
    flags = (events, "--vectors", items, "--out", tmp_path / "out", "--deploy", *SMALL)
    assert run(*flags) == 1
    assert "0 users did something both" in (said := capsys.readouterr().err)
    assert "--holdout 3 would do" in said
    assert not (tmp_path / "out").exists()
    assert run(*flags, "--force") == 0
    printed = capsys.readouterr().out
    assert "801 events" in printed  # nothing is held out that nobody is judged by
    assert "not judged, and trained on all days: 0 users" in printed
    assert printed.endswith("version 1 is served now\n")
    assert current(tmp_path / "out") == 1
    assert run(*flags, "--holdout", "3", "--force", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["held_out"]["users"] == told["verdict"]["users"] == 80


def test_what_no_server_takes_is_said(
    rows: list[Row], items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events, out = wrote(tmp_path / "e.csv", rows), tmp_path / "out"
    given = tmp_path / "given.npz"
    with np.load(items) as file:
        np.savez(given, ids=file["ids"], vectors=file["vectors"])
    for vectors in ((), ("--vectors", given)):
        assert run(events, "--out", out, *vectors, *SMALL) == 0
        assert "no server takes this model" in capsys.readouterr().out.splitlines()[-1]
        assert run(events, "--out", out, *vectors, *SMALL, "--deploy") == 2
        assert "its own encoder's vectors only" in capsys.readouterr().err
    assert run(events, "--out", out, "--vectors", items, *SMALL) == 0
    assert capsys.readouterr().out.endswith(
        f"it is not served yet: train with --deploy, which judges it first, or write 3 to {out / 'CURRENT'}\n"
    )


def test_a_training_goes_on_although_events_came_in(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, write = tmp_path / "out", folder.write

    def breaks(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "write", breaks)
    flags = ("--data", data, "--out", out, "--deploy", *SMALL)
    assert run(*flags) == 130
    assert "--resume" in capsys.readouterr().err
    monkeypatch.setattr(folder, "write", write)
    happened(data, ("u00", "i05", 9 * DAY_US), ("new", "i01", 9 * DAY_US))
    assert run(*flags[:-1], "2", "--resume") == 2
    assert "--epochs was 1 and is 2 now" in capsys.readouterr().err
    assert run("--data", data, "--out", out, *SMALL, "--resume") == 2
    assert "--deploy was True and is False now" in capsys.readouterr().err
    assert run(*flags, "--resume", "--force") == 0
    assert "640 events" in capsys.readouterr().out
    assert not (out / CHECKPOINT).exists()
    # One that is late counts among what was read.
    monkeypatch.setattr(folder, "write", breaks)
    assert run(*flags, "--force") == 130
    happened(data, ("u00", "i05", DAY_US))
    capsys.readouterr()
    assert run(*flags, "--force", "--resume") == 2
    assert "is of other data" in capsys.readouterr().err


def test_events_of_the_future_wait_in_a_data_folder(data: Path, rows: list[Row]) -> None:
    now = time.time()
    newest = max(row[2] for row in rows) + 1
    happened(data, ("ahead", "i01", round((now + 80_000) * 1e6)))
    found, until = sources.read(data, None, "", now=now)
    assert until == newest
    assert len(found.events) == len(rows)
    found, until = sources.read(data, None, "", now=now + 90_000)
    assert len(found.events) == len(rows) + 1
    again, _ = sources.read(data, None, "", now=now + 90_000, until=newest)
    assert len(again.events) == len(rows)


@pytest.mark.parametrize("arguments", [("", "--out", "out"), ("e.csv", "--out", ""), ("e.csv", "--vectors", " ")])
def test_an_empty_path_is_not_the_working_folder(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        run(*arguments)
    assert left.value.code == 2
    assert "the path is empty; is a variable unset?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "rollback", ""])
    assert "the path is empty" in capsys.readouterr().err
