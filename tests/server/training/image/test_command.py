"""`matchcut train image` as people call it."""

from __future__ import annotations

import builtins
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from matchcut.server.__main__ import main
from matchcut.server.commands import train

MakeFolder = Callable[..., Path]
QUICK = ("--smoke", "--threads", "1")


def test_it_says_what_it_found_and_wrote(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = make_folder(each=8), tmp_path / "stripes"
    (data / "stripes0" / "copy.png").write_bytes((data / "stripes0" / "00.png").read_bytes())
    (data / "stripes1" / "bad\x1b[2J.jpg").write_bytes(b"?")
    assert main(["train", "image", str(data), "--out", str(out), *QUICK]) == 0
    said = capsys.readouterr()
    assert "25 pictures of 3 classes" in said.out
    assert "unreadable: 1" in said.out
    assert r"stripes1/bad\x1b[2J.jpg: " in said.out
    assert "\x1b[2J" not in said.out
    assert "equal: 1\n  stripes0/00.png = stripes0/copy.png" in said.out
    assert re.search(r"test accuracy [01]\.\d{4} \(95 % interval", said.out)
    assert f"wrote {out / '1'}" in said.out
    assert "epoch: 2 in" in said.err


def test_near_copies_are_told_before_the_class_that_they_leave_too_small(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = make_folder(each=4), str(tmp_path / "out")
    first = Image.open(data / "stripes0" / "00.png")
    for number in range(1, 4):
        first.point([min(255, value + number) for value in range(256)] * 3).save(data / "stripes0" / f"{number:02}.png")
    assert main(["train", "image", str(data), "--out", out, *QUICK]) == 2
    said = capsys.readouterr()
    assert "nearly equal: 6\n  stripes0/00.png ~ stripes0/01.png" in said.out
    assert "  and 1 others\n" in said.out
    assert "'stripes0' has 1 pictures that differ (3 of 4 are equal or nearly equal to another, see --near)" in said.err
    assert main(["train", "image", str(data), "--out", out, "--near", "1", "--json", *QUICK]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["data"]["nearly_equal"], report["training"]["near"]) == ([], 1)


def test_json_is_one_document(make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "stripes"
    arguments = ["--out", str(out), "--name", "my stripes", "--seed", "4", "--flip", "on", "--rate", "0.01"]
    assert main(["train", "image", str(make_folder(each=6)), *arguments, "--json", *QUICK]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    found = json.loads(said.out)
    assert found["folder"] == str(out / "1")
    assert found["model"]["name"] == "my stripes"
    assert found["training"]["seed"] == 4
    assert found["training"]["smoke"]
    assert found["training"]["plan"]["rate"] == 0.01
    assert found["training"]["augment"]["flip"]


def test_without_augmentation(make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "d"), "--augment", "off", "--json", *QUICK]
    assert main(["train", "image", str(make_folder(each=6)), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["training"]["augment"] is None


def test_what_is_wrong_is_said_in_a_line(
    make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, file = str(make_folder(each=6)), tmp_path / "file"
    file.touch()
    for arguments, message in (
        (["nowhere", "--out", str(tmp_path / "o")], "matchcut: nowhere cannot be read: No such file or directory"),
        ([data, "--out", str(file / "o")], f"matchcut: {file / 'o'} cannot be written: Not a directory"),
        ([data, "--out", str(tmp_path / "o"), "--unfreeze", "2"], "matchcut: --unfreeze is for --model default"),
        ([data, "--out", str(tmp_path / "o"), "--test", "0.9"], "matchcut: the shares of validation (0.15) and test"),
    ):
        assert main(["train", "image", *arguments, *QUICK]) == 2
        said = capsys.readouterr().err
        assert said.startswith(message)
        assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--epochs", "-1"),
        ("--epochs", "1.5"),
        ("--seed", "x"),
        ("--rate", "0"),
        ("--rate", "nan"),
        ("--near", "1.01"),
        ("--near", "0"),
        ("--near", "x"),
    ],
)
def test_numbers_that_cannot_be(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["train", "image", "digits", "--out", "o", f"{option}={value}"])
    assert caught.value.code == 2
    assert f"argument {option}: " in capsys.readouterr().err


def test_a_missing_package_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without_torch(name: str, *arguments: Any, **more: Any) -> Any:
        if name.startswith("matchcut.server.training"):
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_torch)
    assert main(["train", "image", "digits", "--out", str(tmp_path / "o")]) == 1
    assert capsys.readouterr().err == 'matchcut: training needs torch: pip install "matchcut[train]"\n'


def test_the_command_line_does_without_torch() -> None:
    """A server has no torch, and nobody waits for it who does not train."""
    code = (
        "import sys; from matchcut.server.__main__ import parser; parser(); "
        "sys.exit(', '.join({'torch', 'sklearn', 'matplotlib', 'onnx'} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_kind_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert "image" in train.MODULES
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "a classifier of pictures" in capsys.readouterr().out
