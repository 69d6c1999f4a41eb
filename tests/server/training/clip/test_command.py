"""`matchcut train clip` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matchcut.server.__main__ import main


def test_smoke_prints_what_came_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "models"
    arguments = ["train", "clip", "digits", "--smoke", "--clips", "4", "--out", str(out), "--threads", "1"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "16 clips of 4 classes: 8 to learn from, 4 to validate, 4 to test" in printed
    assert "GRU over the frames: test accuracy" in printed
    assert f"wrote {out}/clip-live/1" in printed
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["folders"]["step"] == f"{out}/clip-step/2"
    assert document["options"]["epochs"] == 2


def test_what_is_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "clip", str(tmp_path / "none"), "--out", str(tmp_path / "models")]) == 2
    assert "cannot be read: No such file" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["train", "clip", "digits", "--smoke", "--out", str(tmp_path / "file" / "models")]) == 2
    assert "cannot be written" in capsys.readouterr().err
