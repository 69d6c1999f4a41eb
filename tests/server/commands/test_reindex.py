"""`matchcut reindex`: what it sends, what it cannot, how it goes on, and when the encoders change places."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matchcut.client import Client, Item, Unavailable
from matchcut.server.__main__ import main
from matchcut.server.commands import reindex
from matchcut.server.config import Config
from matchcut.server.ingest import ingest
from support.encoders import write_coarse

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(config: Config, tmp_path: Path) -> Config:
    """Options of a server whose next encoder is "coarse"."""
    return replace(config, next_encoder=write_coarse(tmp_path / "next"))


@pytest.fixture
def folder(media: Path, tmp_path: Path) -> Path:
    """Three clips, one of them in a folder below."""
    clips = tmp_path / "clips"
    (clips / "below").mkdir(parents=True)
    shutil.copy(media / "bikes.mp4", clips / "bikes.mp4")
    shutil.copy(media / "carphone.mp4", clips / "below" / "carphone.mp4")
    shutil.copy(media / "carphone_distorted.mp4", clips / "poor.mp4")
    return clips


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; its exit code, and what it printed with the table's lines joined."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(one) for one in arguments])
        shown = capsys.readouterr()
        return code, " ".join(shown.out.replace("│", " ").split()), shown.err

    return run


@pytest.fixture
def server(address: str) -> Iterator[Client]:
    with Client(address, timeout=60) as client:
        yield client


def lacking(server: Client) -> list[str]:
    return [item.id for item in server.items(lacking_next_encoder=True)]


def test_a_catalogue_changes_its_encoder(server: Client, folder: Path, run: Run) -> None:
    run("index", folder / "bikes.mp4", "--rate", "5", "--shots", "off", "--tag", "t")
    run("index", folder)
    before = server.get("bikes.mp4")
    code, out, _ = run("reindex", "--dry-run")
    assert (code, lacking(server)) == (0, ["below/carphone.mp4", "bikes.mp4", "poor.mp4"])
    assert "would send the media of 3 items" in out
    assert "0 of 3 items have vectors of coarse; layout goes on answering" in out
    code, out, _ = run("reindex")
    assert code == 0
    assert "sent the media of 3 items" in out
    assert "3 of 3 items have vectors of coarse, which answers from now on" in out
    assert "reindexing" in out
    assert "3/3 items" in out
    after = server.get("bikes.mp4")
    assert (before.encoder.name, after.encoder.name, after.item) == ("layout", "coarse", before.item)
    assert server.recommend(items=["bikes.mp4"]).encoder.name == "coarse"
    code, _, err = run("reindex")
    assert code == 1
    assert "the server answers with 'coarse' and has no other; start it with --next-encoder FILE" in err


def test_what_cannot_be_sent_is_in_the_way_and_told(server: Client, folder: Path, tmp_path: Path, run: Run) -> None:
    run("index", folder)
    server.ingest_vectors("numbers", [(None, [1.0] * 48)])
    server.ingest("nowhere", folder / "bikes.mp4")
    moved = tmp_path / "moved"
    (moved / "below").mkdir(parents=True)
    (folder / "bikes.mp4").rename(moved / "bikes.mp4")
    shutil.copy(folder / "poor.mp4", moved / "poor.mp4")
    shutil.copy(folder / "below" / "carphone.mp4", folder / "poor.mp4")
    code, out, _ = run("reindex", "--dry-run")
    assert code == 1
    assert "would send the media of 2 items" in out
    code, out, _ = run("reindex")
    assert code == 1
    assert "sent the media of 1 item" in out
    for item, reason in (("bikes.mp4", "NO_MEDIA"), ("nowhere", "NO_MEDIA"), ("numbers", "VECTORS")):
        assert f"{item} {reason}" in out
    assert "poor.mp4 OTHER_MEDIA" in out
    assert "1 of 5 items have vectors of coarse; layout goes on answering" in out
    assert server.page().encoder.name == "layout"
    code, out, _ = run("reindex", "--root", moved)  # it goes on: only what was in the way is sent
    assert code == 1
    assert "sent the media of 2 items" in out
    assert lacking(server) == ["nowhere", "numbers"]
    code, out, _ = run("reindex", "--force")
    assert code == 0
    assert "3 of 5 items have vectors of coarse, which answers from now on" in out
    assert "nowhere NO_MEDIA" in out
    assert server.recommend(clip=moved / "bikes.mp4").matches[0].item.id == "bikes.mp4"
    assert server.get("numbers").encoder.name == "layout"


def test_json_says_the_same(server: Client, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["index", str(folder)])
    server.ingest_vectors("numbers", [(None, [1.0] * 48)])
    capsys.readouterr()
    assert main(["reindex", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["before"]["name"], told["next"]["name"], told["switched"]) == ("layout", "coarse", False)
    assert (told["ready"], told["total"], sorted(told["done"])[0]) == (3, 4, "below/carphone.mp4")
    assert [(one["item"], one["reason"]) for one in told["failed"]] == [("numbers", "VECTORS")]


def test_other_tenants_are_named(server: Client, folder: Path, run: Run) -> None:
    run("index", folder / "bikes.mp4", "--tenant", "theirs")
    run("index", folder / "bikes.mp4")
    code, out, _ = run("reindex")
    assert code == 1
    assert "items of other tenants lack some, too: run it with --tenant for 'theirs'" in out
    code, out, _ = run("reindex", "--tenant", "theirs")
    assert code == 0
    assert "2 of 2 items have vectors of coarse" in out


def test_ctrl_c_leaves_what_is_done_and_the_next_run_goes_on(
    server: Client, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", folder)
    entered, opened = threading.Semaphore(0), threading.Semaphore(1)  # the first passes
    honest = ingest._segments

    def held(*arguments: Any) -> Any:
        entered.release()
        assert opened.acquire(timeout=60)
        return honest(*arguments)

    monkeypatch.setattr(ingest, "_segments", held)
    command = [sys.executable, "-m", "matchcut.server", "reindex", "--parallel", "1"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            for _ in range(2):
                assert entered.acquire(timeout=60)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
            opened.release(100)
    assert process.returncode == 130
    assert err == "matchcut: interrupted\n"
    assert lacking(server)[-1] == "poor.mp4"
    assert "below/carphone.mp4" not in lacking(server)
    assert server.page().encoder.name == "layout"
    code, out, _ = run("reindex")
    assert code == 0
    assert "3 of 3 items have vectors of coarse" in out


def test_items_that_come_and_go_meanwhile(
    server: Client, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", folder)
    honest, first = reindex.attempt, threading.Event()

    def attempt(client: Client, item: Item, arguments: argparse.Namespace) -> reindex.Failure | None:
        if not first.is_set():
            first.set()
            server.remove("poor.mp4")
            server.ingest("new", folder / "poor.mp4", uri=str(folder / "poor.mp4"))
        return honest(client, item, arguments)

    monkeypatch.setattr(reindex, "attempt", attempt)
    code, out, _ = run("reindex", "--parallel", "1")
    assert code == 0
    assert "3 of 3 items have vectors of coarse, which answers from now on" in out
    assert server.get("new").encoder.name == "coarse"


def test_an_item_that_was_replaced_is_looked_for_again() -> None:
    outcome = reindex.Outcome()
    arguments = argparse.Namespace(root=None)
    changed = reindex.Failure("a", "ITEM_CHANGED", "it was replaced")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reindex, "attempt", lambda *_: changed)
        reindex.one(Client("127.0.0.1:1"), outcome, arguments, item("a"))
    assert (outcome.done, outcome.failed, outcome.lost.is_set()) == ([], {}, False)


def test_a_server_that_goes_ends_the_run_with_69(
    server: Client, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", folder)
    tries: list[str] = []

    def attempt(client: Client, item: Item, arguments: argparse.Namespace) -> None:
        tries.append(item.id)
        raise Unavailable("gone", code="UNAVAILABLE")

    monkeypatch.setattr(reindex, "attempt", attempt)
    code, _, err = run("reindex", "--parallel", "1")
    assert (code, len(tries)) == (69, 1)
    assert "no server answers at" in err


def test_a_server_that_says_why_it_is_unavailable_is_believed(
    server: Client, folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", folder)

    def attempt(client: Client, item: Item, arguments: argparse.Namespace) -> None:
        raise Unavailable("its files are gone", code="UNAVAILABLE", reason="STORE_GONE")

    monkeypatch.setattr(reindex, "attempt", attempt)
    code, _, err = run("reindex", "--parallel", "1")
    assert code == 69
    assert err.endswith("matchcut: its files are gone\n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--parallel", "0"], 2, "--parallel must be at least 1"),
        (["--root", "/nowhere"], 2, "--root /nowhere is no folder"),
        (["--server", "127.0.0.1:1", "--timeout", "5"], 69, "no server answers at 127.0.0.1:1"),
    ],
)
def test_what_cannot_be_done_is_told(arguments: list[str], code: int, said: str, run: Run) -> None:
    found, _, err = run("reindex", *arguments)
    assert found == code
    assert said in err


def item(item_id: str, uri: str = "") -> Item:
    return Item(item_id, "", uri, (), {}, 0.0)


def test_only_files_that_may_be_meant_are_opened(tmp_path: Path) -> None:
    root, secret = tmp_path / "root", tmp_path / "secret"
    root.mkdir()
    for path in (secret, root / "clip.mp4", root / "a b%.mp4"):
        path.write_bytes(b"x")
    (root / "link").symlink_to(secret)
    os.mkfifo(root / "pipe")

    def found(item_id: str, uri: str = "", below: Path | None = root) -> list[Path]:
        return list(reindex.candidates(item(item_id, uri), below))

    assert found("clip.mp4") == [root / "clip.mp4"]
    assert found("clip.mp4", below=None) == []
    assert found("x", (root / "a b%.mp4").as_uri()) == [root / "a b%.mp4"]
    assert found("x", f"file://localhost{root}/clip.mp4") == [root / "clip.mp4"]
    assert found("clip.mp4", str(secret)) == [secret, root / "clip.mp4"]
    for hostile in ("../secret", str(secret), "link", "pipe", ".", "", "x" * 256, "\0", "clip.mp4/x"):
        assert found(hostile) == []
    for uri in (f"file://host{secret}", f"http://host{secret}", "file:///no\0where", "file://[", "secret", str(root)):
        assert found("x", uri) == []
    assert found("x", (root / "pipe").as_uri()) == []


def test_it_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["reindex", "--help"])
    shown = capsys.readouterr().out
    assert caught.value.code == 0
    assert "examples:" in shown
    for option in ("--root", "--parallel", "--force", "--dry-run", "--rate", "--shots", "--tenant"):
        assert option in shown
