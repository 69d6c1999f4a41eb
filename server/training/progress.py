"""How far a training is: bars on a terminal, one line for each finished part elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Bar", "bar"]

T = TypeVar("T")


class Bar:
    """Steps that are done, with a few figures beside them. Made by bar().

    Args:
        shown: what draws; None: nothing is drawn, and each track() that ends is told of in a line.
        silent: not even that.
    """

    def __init__(self, shown: Progress | None, *, silent: bool) -> None:
        self._shown = shown
        self._silent = silent

    def track(
        self, steps: Iterable[T], what: str, *, total: int | None = None, figures: Mapping[str, float] | None = None
    ) -> Iterator[T]:
        """Goes through the steps and shows how many are done. May be nested: epochs, and batches within.

        Args:
            what: in a word or two, such as "epoch".
            total: how many steps there are, where they cannot be counted.
            figures: looked at after each step, so the caller may change them meanwhile: {"loss": 0.31}.
        """
        if total is None and isinstance(steps, Sized):
            total = len(steps)
        if self._shown is None:
            began = time.monotonic()
            done = 0
            for step in steps:
                yield step
                done += 1
            if not self._silent:
                told = written(figures)
                self.say(f"{what}: {done} in {time.monotonic() - began:.1f} s{', ' + told if told else ''}")
            return
        task = self._shown.add_task(what, total=total, figures="")
        try:
            for step in steps:
                yield step
                self._shown.update(task, advance=1, figures=written(figures))
        finally:
            self._shown.remove_task(task)

    def say(self, line: str) -> None:
        """A line to standard error, above the bars. Silent bars say nothing."""
        if self._silent:
            return
        if self._shown is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._shown.console.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(*, silent: bool = False) -> Iterator[Bar]:
    """Bars on standard error while it is a terminal; else lines. They go when the block ends.

    Args:
        silent: nothing at all, as in tests and with --json.
    """
    console = Console(stderr=True)
    if silent or not console.is_terminal:
        yield Bar(None, silent=silent)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as shown:
        yield Bar(shown, silent=False)


def written(figures: Mapping[str, float] | None) -> str:
    """Figures in a line."""
    return "  ".join(f"{name} {value:.4g}" for name, value in (figures or {}).items())
