"""Learning curves as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["draw"]


def draw(path: Path, history: Mapping[str, Sequence[float]], *, title: str) -> None:
    """Writes a PNG with one curve for each series, the number of the epoch to the right, from 1.

    Series whose names have the same last word ("train loss", "validation loss") share a plot; plots stand below each
    other. A series may be shorter than others; values that are not finite leave a gap.

    Args:
        path: the PNG file; its folder has to be there.
        history: a value for each epoch, by the series' name.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    plots: dict[str, list[str]] = {}
    for name in history:
        plots.setdefault((name.split() or [""])[-1], []).append(name)
    figure = Figure(figsize=(6.4, 0.8 + 2.6 * max(len(plots), 1)), layout="constrained")
    FigureCanvasAgg(figure)  # not pyplot, which keeps figures and asks for a screen
    axes = figure.subplots(max(len(plots), 1), 1, squeeze=False)[:, 0]
    for axis, (what, names) in zip(axes, plots.items(), strict=False):
        drawn: list[Any] = []
        for name in names:
            values = list(history[name])
            marker = "." if len(values) < 60 else ""
            drawn += axis.plot(range(1, len(values) + 1), values, marker=marker, linewidth=1.2)
        axis.set_ylabel(plain(what))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.3)
        axis.legend(drawn, [plain(name) for name in names], fontsize="small")
    axes[0].set_title(plain(title), fontsize="medium")
    axes[-1].set_xlabel("epoch")
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})


def plain(text: str) -> str:
    """Text that is drawn as it is; "$" would begin a formula."""
    return text.replace("$", r"\$")
