"""Draws results/scan.svg from results/scan.csv: `python tests/bench/scan_plot.py`. Needs matplotlib.

Left, what a query takes by the number of values, in each size that was measured; then everyone with a million rows,
random ones and ones with the structure of real embeddings. Of a contender that was measured several times, the last
counts; of matchcut's variants, the quickest.
"""

from __future__ import annotations

import csv
import importlib
from collections.abc import Iterable
from typing import Any

import common

OURS, READ = "matchcut", "plain read"
COLOURS = {
    OURS: "#0b6e4f",
    "FAISS flat": "#9a3b3b",
    "FAISS Panorama": "#d98324",
    "numkong int8 + rescore": "#6b5b95",
    READ: "#808080",
}
CHOSEN = {"random": "plain", "spectrum": "dense 128"}  # the basis that the cost model chose
Row = dict[str, str]


def last(rows: Iterable[Row]) -> list[Row]:
    """The last figure of each contender, asked a query at a time for 10 rows."""
    kept = {
        (row["section"], row["who"], row["setting"]): row
        for row in rows
        if (row["batch"], row["k"]) == ("1", "10") and row["cpu"] == common.cpu()
    }
    return list(kept.values())


def ms(row: Row) -> float:
    """Of CPU time."""
    return float(row["cpu_ms_p50"])


def best(rows: Iterable[Row], who: str) -> Row | None:
    """The quickest of those whose name begins so; of matchcut, in the basis that the server would choose."""
    found = [
        row
        for row in rows
        if row["who"].startswith(who) and (who != OURS or row["setting"] == CHOSEN[row["structure"]])
    ]
    return min(found, key=ms, default=None)


def by_size(axes: Any, rows: list[Row]) -> None:
    """Lines: time by bytes."""
    for structure, style in (("random", "--"), ("spectrum", "-")):
        some = [row for row in rows if row["structure"] == structure and row["section"].startswith(structure)]
        sizes = sorted({(int(row["rows"]) * int(row["dims"]), row["section"]) for row in some})
        for who, colour in COLOURS.items():
            found = [(size, best((one for one in some if one["section"] == section), who)) for size, section in sizes]
            points = [(size / 1e6, ms(row)) for size, row in found if row is not None]
            if points:
                label = who if structure == "spectrum" else None
                axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, color=colour, label=label)
    axes.set(xlabel="rows x dimensions, millions", ylabel="ms a query, one core")
    axes.set_title("dashed: random; solid: as real embeddings", fontsize=9)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    logarithmic(axes, "x", "y")


def everyone(axes: Any, rows: list[Row], section: str, title: str) -> None:
    """Bars: all contenders of a section; a line: the plain read."""
    some = [row for row in rows if row["section"] == section]
    bars = {OURS if row["who"].startswith(OURS) else row["who"]: row for row in some}
    for who in bars:
        bars[who] = best(some, who) or bars[who]
    read = bars.pop(READ)
    ordered = sorted(bars.items(), key=lambda bar: -ms(bar[1]))
    names, colour = [row["who"] for _, row in ordered], colours(who for who, _ in ordered)
    axes.barh(names, [ms(row) for _, row in ordered], color=colour)
    for at, (_, row) in enumerate(ordered):
        axes.text(ms(row), at, f" {ms(row):.0f}", va="center", fontsize=8)
    axes.axvline(ms(read), color=COLOURS[READ], linestyle=":", label=f"reading the codes once: {ms(read):.0f}")
    times = [ms(row) for row in [*bars.values(), read]]
    axes.set(xlabel="ms a query, one core", xlim=(min(times) / 2, max(times) * 2))
    axes.set_title(f"{int(read['rows']):,} x {read['dims']}, {title}", fontsize=9)
    axes.tick_params(axis="y", labelsize=8)
    axes.legend(fontsize=7, loc="upper right")
    logarithmic(axes, "x")


def logarithmic(axes: Any, *names: str) -> None:
    """Logarithmic axes with plain numbers."""
    ticker = importlib.import_module("matplotlib.ticker")
    for name in names:
        getattr(axes, f"set_{name}scale")("log")
        axis = getattr(axes, f"{name}axis")
        axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(ticker.NullFormatter())


def colours(names: Iterable[str]) -> list[str]:
    """Of the bars."""
    return [COLOURS.get(name, "#b0b0b0") for name in names]


def main() -> None:
    """Draws."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "scan"  # the same figures give the same file
    plots = importlib.import_module("matplotlib.pyplot")
    with (common.RESULTS / "scan.csv").open(newline="") as file:
        rows = last(csv.DictReader(file))
    figure, (left, middle, right) = plots.subplots(1, 3, figsize=(14, 4), width_ratios=(4, 3, 3))
    by_size(left, rows)
    everyone(middle, rows, "random512", "random")
    everyone(right, rows, "spectrum1280", "as real embeddings")
    figure.suptitle(f"Exact search, k = 10, {common.cpu()}", fontsize=10)
    figure.tight_layout()
    path = common.RESULTS / "scan.svg"
    figure.savefig(path, metadata={"Date": None})
    print(path)


if __name__ == "__main__":
    main()
