"""The command line: what it prints, what it returns, and how it fails."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from matchcut.client import Client
from matchcut.server.__main__ import main
from matchcut.server.config import Config

CLIPS = ("bikes.mp4", "carphone.mp4")


@pytest.fixture
def folder(media: Path, tmp_path: Path) -> Path:
    """Two real clips, one of them in a folder below, and a file that is none."""
    clips = tmp_path / "clips"
    (clips / "below").mkdir(parents=True)
    shutil.copy(media / "bikes.mp4", clips / "bikes.mp4")
    shutil.copy(media / "carphone.mp4", clips / "below" / "carphone.mp4")
    (clips / "notes.txt").write_text("no video")
    return clips


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(one) for one in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    code, out, _ = run(capsys, *arguments, "--json")
    assert code == 0
    return json.loads(out)


def test_a_folder_goes_in_is_asked_and_goes_away(
    address: str, folder: Path, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(capsys, "index", folder, "--tag", "t", "--prefix", "tour/")
    assert code == 0
    assert "2 of 2 files are in the catalogue: 2 created" in out
    listed = run_json(capsys, "ls")
    assert [item["id"] for item in listed] == ["tour/below/carphone.mp4", "tour/bikes.mp4"]
    assert listed[1]["title"] == "bikes"
    assert listed[1]["uri"] == (folder / "bikes.mp4").resolve().as_uri()
    assert listed[1]["tags"] == ["t"]
    code, out, _ = run(capsys, "ls", "--not-tag", "t")
    assert code == 0
    assert out.startswith("0 items")
    code, out, _ = run(capsys, "query", media / "carphone_distorted.mp4")
    assert code == 0
    assert out.index("tour/below/carphone.mp4") < out.index("tour/bikes.mp4")
    for word in ("in the query", "in the item", "encode", "rank", "total", "frames decoded"):
        assert word in out
    found = run_json(capsys, "query", "--item", "tour/bikes.mp4")
    assert [match["item"]["id"] for match in found["matches"]] == ["tour/below/carphone.mp4"]
    assert found["final"] is True
    code, out, _ = run(capsys, "rm", "tour/bikes.mp4", "nothing")
    assert code == 1
    assert "removed 1 of 2" in out
    assert run_json(capsys, "rm", "nothing", "--missing-ok") == {"removed": [], "missing": ["nothing"]}
    assert [item["id"] for item in run_json(capsys, "ls")] == ["tour/below/carphone.mp4"]


def test_indexing_again_does_only_what_is_missing(
    address: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "index", folder / "bikes.mp4")
    shutil.copy(folder / "bikes.mp4", folder / "again.mp4")
    done = run_json(capsys, "index", folder)["done"]
    assert {one["item"]["id"]: one["outcome"] for one in done} == {
        "bikes.mp4": "unchanged",
        "again.mp4": "created",
        "below/carphone.mp4": "created",
    }


def test_one_bad_file_does_not_hold_up_the_others(
    address: str, folder: Path, media: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "broken.mp4").write_bytes(b"not a video at all" * 100)
    (folder / "half.mp4").write_bytes((media / "world.mp4").read_bytes()[:800_000])
    code, out, _ = run(capsys, "index", folder)
    assert code == 1
    assert "3 of 4 files are in the catalogue" in out
    assert "broken.mp4" in out
    assert "UNREADABLE_MEDIA" in out
    assert "half.mp4: TRUNCATED" in " ".join(out.split())


def test_names_with_brackets_are_names(address: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "[bold]x[").mkdir()
    (folder / "below" / "carphone.mp4").rename(folder / "[bold]x[" / "b].mp4")
    for arguments in (
        ["index", folder],
        ["ls"],
        ["query", folder / "[bold]x[" / "b].mp4"],
        ["query", "--item", "[bold]x[/b].mp4"],
    ):
        code, out, _ = run(capsys, *arguments)
        assert code == 0
        assert arguments[0] == "index" or "[bold]x[/b].mp4" in out.replace("\n", "")


def test_names_that_are_not_utf8_hold_up_nothing(
    address: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bikes.mp4").rename(folder / os.fsdecode(b"b\xff.mp4"))
    code, out, _ = run(capsys, "index", folder)
    assert code == 1
    assert "1 of 2 files are in the catalogue" in out
    assert "b\\udcff.mp4" in out
    assert "its name is not UTF-8; rename it" in " ".join(out.replace("│", " ").split())
    for command in (["rm", "b\udcff"], ["query", "--item", "b\udcff"], ["ls", "--tag", "b\udcff"]):
        code, _, err = run(capsys, *command)
        assert code == 2
        assert err == "matchcut: 'b\\udcff' is not UTF-8, as names must be\n"


def test_words_of_others_do_not_control_the_terminal(
    address: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bikes.mp4").rename(folder / "\x1b[31mre\u3000d\n.mp4")
    assert run(capsys, "index", folder)[0] == 0
    out = run(capsys, "ls")[1]
    assert "\x1b" not in out
    assert "\\x1b[31mre\u3000d\\n.mp4" in out


def test_a_reader_that_goes_is_no_failure(address: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "index", folder)
    for command in ("ls", "ls --json", f"query {folder / 'bikes.mp4'} --json"):
        pipe = f"set -o pipefail; {sys.executable} -m matchcut.server {command} | head -c 1"
        done = subprocess.run(["bash", "-c", pipe], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


def test_indexing_again_keeps_what_is_said_of_an_item(
    address: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Client(address) as client:
        client.ingest(
            "bikes.mp4", folder / "bikes.mp4", title="By the river", tags=["a"], attributes={"licence": "free"}
        )
    run(capsys, "index", folder / "bikes.mp4")
    (item,) = run_json(capsys, "ls")
    assert item["title"] == "By the river"
    assert item["tags"] == ["a"]
    assert item["attributes"] == {"licence": "free"}


def test_indexing_again_without_tags_keeps_them(address: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "index", folder / "bikes.mp4", "--tag", "a", "--tag", "b")
    run(capsys, "index", folder / "bikes.mp4")
    assert run_json(capsys, "ls")[0]["tags"] == ["a", "b"]
    run(capsys, "index", folder / "bikes.mp4", "--tag", "c")
    assert run_json(capsys, "ls")[0]["tags"] == ["c"]


def test_numbers_that_make_no_sense_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--rate", "0"], ["--rate", "inf"], ["--timeout", "-1"], ["--timeout", "soon"]):
        with pytest.raises(SystemExit) as caught:
            main(["query", str(folder / "bikes.mp4"), *wrong])
        assert caught.value.code == 2
        assert f"argument {wrong[0]}: {wrong[1]!r} is not a number above zero" in capsys.readouterr().err


def test_live_lists_improve(address: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "index", folder)
    code, out, _ = run(capsys, "query", folder / "bikes.mp4", "--live", "--rate", "25")
    assert code == 0
    assert "list 1" in out
    assert out.count("encoder layout") > 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["query"], "name either a file or --item"),
        (["query", "a.mp4", "--item", "b"], "name either a file or --item"),
        (["query", "--item", "b", "--live"], "--live needs a file"),
        (["query", "/nowhere.mp4"], "/nowhere.mp4: No such file or directory"),
        (["query", "--item", "x", "--limit", "5000"], "options.limit is 5000"),
        (["index", "/nowhere"], "/nowhere does not exist"),
        (["index", "--jobs", "0", "/"], "--jobs must be at least 1"),
    ],
)
def test_a_wrong_command_line_is_told_with_2(
    address: str, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert said in err
    assert err.startswith("matchcut: ")


def test_an_item_that_is_not_there_is_told_with_1(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "query", "--item", "none")
    assert code == 1
    assert "there is no item 'none'" in err


@pytest.mark.parametrize("command", [["ls"], ["rm", "x"], ["query", "--item", "x"], ["index"]])
def test_no_server_is_told_with_69(command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if command == ["index"]:
        command = ["index", str(folder)]
    code, _, err = run(capsys, *command, "--server", "127.0.0.1:1", "--timeout", "5")
    assert code == 69
    assert "no server answers at 127.0.0.1:1; start one with `matchcut serve`" in err


def test_a_server_that_says_why_it_is_unavailable_is_believed(
    address: str, folder: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its store is gone: it answers, so it is not told that none does."""
    shutil.rmtree(config.data)
    code, _, err = run(capsys, "rm", "x")
    assert (code, "no server answers" in err) == (69, False)
    assert "the file of the catalogue is gone from the disk" in err
    code, out, err = run(capsys, "index", "--json", str(folder))
    assert (code, "no server answers" in err) == (1, False)
    failed = json.loads(out)["failed"]
    assert {one["reason"] for one in failed} == {"STORE_GONE"}
    assert len(failed) == 2


def test_two_files_of_one_name_are_told(address: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "index", folder / "bikes.mp4", folder / "below", "--prefix", "")
    assert code == 0
    shutil.copy(folder / "bikes.mp4", folder / "below" / "bikes.mp4")
    code, _, err = run(capsys, "index", folder / "bikes.mp4", folder / "below")
    assert code == 2
    assert "would both be the item 'bikes.mp4'" in err


def test_nothing_to_index(address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    code, _, err = run(capsys, "index", tmp_path / "empty")
    assert code == 2
    assert "no video file found" in err


def test_an_option_out_of_range_stops_serve_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "serve", "--batch", "0")
    assert code == 2
    assert "--batch: '0' is not at least 1" in err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"matchcut {metadata.version('matchcut')}\n"


def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["serve"], ["index"], ["query"], ["ls"], ["rm"], ["encoder"]):
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--help"])
        assert caught.value.code == 0
        shown = capsys.readouterr().out
        assert ("examples:" if arguments else "first steps:") in shown


def test_ctrl_c_ends_index_with_130_and_keeps_what_is_done(address: str, folder: Path) -> None:
    pipe = folder / "slow.mp4"
    os.mkfifo(pipe)  # a file that never ends: the command waits for it
    command = [sys.executable, "-m", "matchcut.server", "index", str(folder / "bikes.mp4"), str(pipe), "--jobs", "1"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            wait_until(lambda: bool(listed(address)), seconds=30)
            process.send_signal(signal.SIGINT)
            wait_until(lambda: released(pipe) and process.poll() is not None, seconds=30)
        finally:
            process.kill()
        _, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert listed(address) == ["bikes.mp4"]


def released(pipe: Path) -> bool:
    """Lets go of a reader that waits for the pipe to be opened. There may be none: the command may end before."""
    with contextlib.suppress(OSError):  # ENXIO: nobody waits
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    return True


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)


def listed(address: str) -> list[str]:
    with Client(address) as client:
        return [item.id for item in client.items()]
