"""From events to a model that is served, and back: `matchcut train session` and `matchcut train rollback`."""

from __future__ import annotations

import csv
import json
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from matchcut.server.__main__ import main
from matchcut.server.catalog import open_catalog
from matchcut.server.errors import InvalidInput, NotFound
from matchcut.server.events import open_log
from matchcut.server.records import EncoderIdentity, Event, EventKind, Floats, Item, Segment, TimeRange
from matchcut.server.session.folder import current
from matchcut.server.session.onnx import OnnxSession
from matchcut.server.training.progress import Bar
from matchcut.server.training.session import folder, sources, training
from matchcut.server.training.session.dataset import Row
from matchcut.server.training.session.settings import Settings
from matchcut.server.vectors import unit

SMALL = ["--dimensions", "16", "--width", "24", "--window", "8", "--rate", "0.02", "--batch", "32", "--epochs", "8"]


@pytest.fixture
def events(rows: list[Row], tmp_path: Path) -> Path:
    path = tmp_path / "events.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("user", "item", "time_us", "strength"), *rows])
    return path


@pytest.fixture
def items(vectors: dict[str, Floats], tmp_path: Path) -> Path:
    path = tmp_path / "items.npz"
    ids = np.array(list(vectors))
    np.savez(path, ids=ids, vectors=np.stack(list(vectors.values())), name="tiny", version="1", digest="d1")
    return path


def run(*arguments: object) -> int:
    return main([str(each) for each in ("train", *arguments)])


def test_a_model_is_trained_served_beaten_and_brought_back(
    events: Path, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], encoder: EncoderIdentity
) -> None:
    out = tmp_path / "sessions"
    assert run("session", events, "--vectors", items, "--out", out, "--deploy", *SMALL) == 0
    printed = capsys.readouterr().out
    assert "the decaying mean" in printed
    assert "on the days held out, from 1970-01-04 12:01 UTC on, 80 users: " in printed
    assert printed.endswith("version 1 is served now\n")
    assert current(out) == 1
    said = tomllib.loads((out / "1" / "session.toml").read_text())
    assert said["name"] == "sessions"
    assert said["metrics"]["model ndcg@10 seen kept"] > said["metrics"]["popularity ndcg@10 seen kept"] + 0.3
    assert said["training"]["users"] == 80
    assert (out / "1" / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((out / "1" / "report.json").read_text())["settings"]["window"] == 8
    OnnxSession(out / "1", encoder).close()

    # One that has learnt next to nothing loses to it, and is not served.
    worse = [*SMALL[:-2], "--epochs", "1", "--rate", "1e-9"]
    assert run("session", events, "--vectors", items, "--out", out, "--deploy", *worse) == 1
    assert "not deployed: it ranks worse" in capsys.readouterr().out
    assert current(out) == 1
    assert (out / "2").is_dir()
    assert run("session", events, "--vectors", items, "--out", out, "--deploy", "--force", "--json", *worse) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["deployed"] == 3
    assert not told["verdict"]["better"]
    assert current(out) == 3
    assert run("rollback", out) == 0
    assert "version 1 is served now, as before version 3" in capsys.readouterr().out
    assert current(out) == 1
    assert run("rollback", out) != 0


def test_the_days_that_are_held_out_are_not_learnt_from(events: Path, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "sessions"
    run("session", events, "--vectors", items, "--out", out, "--deploy", "--force", *SMALL[:-1], "1")
    run("session", events, "--vectors", items, "--out", out, *SMALL[:-1], "1")
    counts = [tomllib.loads((out / n / "session.toml").read_text())["training"]["events"] for n in ("1", "2")]
    assert counts == [800 - 160, 800]
    assert current(out) == 1


def test_a_training_that_was_broken_off_goes_on(
    events: Path,
    items: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, write = tmp_path / "sessions", folder.write

    def breaks(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "write", breaks)
    flags = ("session", events, "--vectors", items, "--out", out, *SMALL[:-1], "2")
    with pytest.raises(KeyboardInterrupt):
        training.train(options(events, items, out), quiet())
    assert (out / training.CHECKPOINT).is_file()
    assert current(out) is None
    capsys.readouterr()
    assert run(*flags, "--resume") == 2
    assert "--rate was 0.003 and is 0.02 now" in capsys.readouterr().err
    assert run(*flags) == 130
    assert "the same command with --resume goes on" in capsys.readouterr().err
    monkeypatch.setattr(folder, "write", write)
    assert run(*flags) == 0
    assert not (out / training.CHECKPOINT).exists()
    assert [path.name for path in out.iterdir()] == ["1"]


def options(events: Path, items: Path, out: Path) -> training.Options:
    settings = Settings(dimensions=16, width=24, window=8, epochs=1)
    return training.Options(events, out, vectors=items, settings=settings)


def quiet() -> Bar:
    return Bar(None, silent=True)


def test_a_private_model_tells_its_epsilon_and_nothing_of_users(
    events: Path, items: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sessions"
    flags = ["--epsilon", "8", "--delta", "1e-3", "--users", "40", "--items", "content", *SMALL[:-1], "2"]
    assert run("session", events, "--vectors", items, "--out", out, *flags) == 0
    printed = capsys.readouterr().out
    assert "private: epsilon 7.9" in printed
    assert "for each user" in printed
    said = tomllib.loads((out / "1" / "session.toml").read_text())
    assert 0 < said["privacy"]["epsilon"] <= 8
    assert said["privacy"]["unit"] == "user"
    assert said["privacy"]["delta"] == 1e-3
    assert not {"metrics", "training"} & said.keys()
    assert "users" not in said["privacy"]
    assert not (out / "1" / "report.json").exists()


def test_smoke_is_short(events: Path, tmp_path: Path) -> None:
    out = tmp_path / "sessions"
    assert run("session", events, "--out", out, "--smoke", *SMALL[:-2]) == 0
    said = tomllib.loads((out / "1" / "session.toml").read_text())
    assert said["training"]["epochs"] == 3
    assert said["encoder"]["name"] == "none"
    assert said["settings"]["content"] is False


def test_a_servers_data_folder_is_read_while_it_is_used(
    rows: list[Row], vectors: dict[str, Floats], tmp_path: Path, encoder: EncoderIdentity
) -> None:
    catalog = open_catalog(tmp_path)
    log = open_log(tmp_path / "events.sqlite", days=0)
    try:
        for item, vector in vectors.items():
            halves = [unit(vector + shift, "v") for shift in (0.1, -0.1)]
            segments = [Segment(TimeRange(at, at + 1), half) for at, half in enumerate(halves)]
            catalog.put("t", Item(item), segments, encoder, content=item.encode(), recipe="")
        events = [
            Event(f"e{at}", user, item, EventKind.LIKE, time_us + 1, weight=strength)
            for at, (user, item, time_us, strength) in enumerate(rows)
        ]
        log.append("t", events)
        log.append("other", [Event("x", "u", "i00", EventKind.LIKE, 1)])
        data, until = sources.read(tmp_path, None, "t", now=time.time())
        assert until == max(time_us for _, _, time_us, _ in rows) + 1
        assert data.encoder == encoder
        assert len(data.events) == len(rows)
        assert len(data.events.user_ids) == 80
        assert sorted(set(data.events.weights.tolist())) == [0.5, 1.0]
        assert data.events.item_ids == tuple(sorted(vectors))
        np.testing.assert_allclose(data.content[3], unit(vectors["i03"], "v"), atol=0.05)
        with pytest.raises(NotFound, match="tenant 'nobody' has no items"):
            sources.read(tmp_path, None, "nobody", now=0)
    finally:
        log.close()
        catalog.close()


def test_what_is_missing_is_said(events: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sessions"
    for arguments, says in (
        (("session",), "give --out, or --check"),
        (("session", "--out", out, "--data", tmp_path / "nothing"), "nothing; give a server's data folder or a file"),
        (("session", tmp_path / "none.csv", "--out", out), "there is no file"),
        (("session", tmp_path, "--out", out), "holds no catalog.sqlite"),
        (("session", events, "--out", out, "--deploy"), "takes a model of its own encoder's vectors only"),
        (("session", events, "--out", out, "--items", "content"), "there are no vectors to make items of"),
        (("session", events, "--out", out, "--epsilon", "1"), "items need vectors"),
        (("session", events, "--out", out, "--rate", "0"), "rate is 0.0"),
        (("session", events, "--out", out, "--holdout", "0"), "--holdout must be above 0"),
        (("rollback", out), "cannot be read"),
    ):
        assert run(*arguments) != 0
        assert says in capsys.readouterr().err
    with pytest.raises(InvalidInput):
        sources.read(events, events, "", now=0)
