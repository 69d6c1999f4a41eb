"""Bars on a terminal, lines elsewhere, nothing where nothing is wanted."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from matchcut.server.training import progress
from matchcut.server.training.progress import Bar, bar


def test_without_a_terminal_each_part_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    figures: dict[str, float] = {}
    with bar() as shown:
        for step in shown.track(range(3), "epoch", figures=figures):
            figures["loss"] = 1 / (step + 1)
        assert list(shown.track(iter("ab"), "batch")) == ["a", "b"]
        shown.say("a [bold]line[/bold]")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("epoch: 3 in ")
    assert lines[0].endswith(" s, loss 0.3333")
    assert lines[1].startswith("batch: 2 in ")
    assert lines[2] == "a [bold]line[/bold]"


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with bar(silent=True) as shown:
        assert list(shown.track(range(3), "epoch", figures={"loss": 1.0})) == [0, 1, 2]
        shown.say("nothing")
    assert capsys.readouterr() == ("", "")


def test_a_part_that_fails_is_not_told_as_done(capsys: pytest.CaptureFixture[str]) -> None:
    def failing() -> None:
        for _ in Bar(None, silent=False).track(range(3), "epoch"):
            raise ValueError

    with pytest.raises(ValueError):
        failing()
    assert capsys.readouterr().err == ""


def test_bars_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")  # a dumb one is shown no bars
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=120)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    figures: dict[str, float] = {}
    with bar() as shown:
        for _ in shown.track(range(2), "epoch", figures=figures):
            for _ in shown.track(iter([1, 2]), "batch", total=2):
                figures["loss"] = 0.25
            shown.say("[red]said[/red]")
            assert shown._shown is not None
            shown._shown.refresh()
        assert shown._shown is not None
        assert shown._shown.finished  # no bar is left
    text = screen.getvalue()
    assert "epoch" in text
    assert "batch" in text
    assert "loss 0.25" in text
    assert "[red]said[/red]" in text


def test_bars_go_when_a_part_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    with bar() as shown:
        steps = shown.track([1, 2], "epoch")
        next(iter(steps))
        assert shown._shown is not None
        assert len(shown._shown.tasks) == 1
        steps.close()  # type: ignore[attr-defined]
        assert not shown._shown.tasks
