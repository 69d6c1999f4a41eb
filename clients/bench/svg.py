"""Charts as SVG that stands in an HTML page: lines with axes, nothing else, no script, no style from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Axis", "Line", "chart"]

WIDTH, HEIGHT = 720, 340
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 16, 48
COLOURS = ("#2a6fbb", "#c8553d", "#3a8f5c", "#8b5fbf", "#b58900", "#4d4d4d", "#00838f", "#ad1457")


@dataclass(frozen=True, slots=True)
class Axis:
    """title: with the unit. log: logarithmic. show: a value as text."""

    title: str
    log: bool = False
    show: Callable[[float], str] = "{:g}".format


@dataclass(frozen=True, slots=True)
class Line:
    """Points in ascending order of x, and what they are."""

    name: str
    points: Sequence[tuple[float, float]]
    dots: bool = True


def chart(x: Axis, y: Axis, lines: Sequence[Line], *, mark: tuple[float, str] | None = None, across: float = 0) -> str:
    """A chart.

    Args:
        x: below.
        y: on the left; it begins at 0 unless it is logarithmic.
        lines: what is drawn; what an axis cannot show (0 on a logarithmic one) is left out.
        mark: a vertical line, with what it says.
        across: a horizontal line, unless 0.
    """
    kept = [
        Line(
            line.name,
            [(a, b) for a, b in line.points if (a > 0 or not x.log) and (b > 0 or not y.log)],
            line.dots,
        )
        for line in lines
    ]
    places = [point for line in kept for point in line.points]
    if not places:
        return "<p>nothing to draw</p>"
    marked = [mark[0]] if mark and (mark[0] > 0 or not x.log) else []
    to_x = _Scale([*(a for a, _ in places), *marked], x.log, LEFT, WIDTH - RIGHT)
    floor = [] if y.log else [0.0]
    to_y = _Scale([*(b for _, b in places), *([across] if across else []), *floor], y.log, HEIGHT - BOTTOM, TOP)
    parts = [_grid(x, y, to_x, to_y)]
    if across:
        parts.append(_line(LEFT, to_y(across), WIDTH - RIGHT, to_y(across), 'stroke="#c00" stroke-dasharray="2 3"'))
    if marked and mark:
        at = to_x(mark[0])
        parts.append(_line(at, TOP, at, HEIGHT - BOTTOM, 'stroke="#c00" stroke-dasharray="6 4"'))
        parts.append(_text(at + 4, TOP + 12, mark[1], "start"))
    for number, line in enumerate(kept):
        parts.append(_drawn(line, COLOURS[number % len(COLOURS)], to_x, to_y))
        parts.append(_key(number, line.name, COLOURS[number % len(COLOURS)]))
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}</svg>'


class _Scale:
    """Values of an axis to pixels."""

    def __init__(self, values: Sequence[float], log: bool, first: float, last: float) -> None:
        self._log = log
        self._first = first
        self._span = last - first
        low, high = min(values), max(values)
        if high == low:
            low, high = (low / 2, high * 2) if log else (low - 0.5, high + 0.5)
        self.low, self.high = low, high

    def __call__(self, value: float) -> float:
        return self._first + self._span * (self._to(value) - self._to(self.low)) / (
            self._to(self.high) - self._to(self.low)
        )

    def ticks(self) -> list[float]:
        """Round values within."""
        if self._log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            few = len(decades) <= 4
            found = [factor * 10.0**decade for decade in decades for factor in ((1, 2, 5) if few else (1,))]
        else:
            rough = (self.high - self.low) / 5
            unit = 10.0 ** math.floor(math.log10(rough))
            step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
            found = [number * step for number in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]
        inside = [value for value in found if self.low * (1 - 1e-9) <= value <= self.high * (1 + 1e-9)]
        return inside or [self.low, self.high]

    def _to(self, value: float) -> float:
        return math.log10(value) if self._log else value


def _grid(x: Axis, y: Axis, to_x: _Scale, to_y: _Scale) -> str:
    parts = []
    for value in to_x.ticks():
        parts.append(_line(to_x(value), TOP, to_x(value), HEIGHT - BOTTOM, 'stroke="#ddd"'))
        parts.append(_text(to_x(value), HEIGHT - BOTTOM + 16, x.show(value), "middle"))
    for value in to_y.ticks():
        parts.append(_line(LEFT, to_y(value), WIDTH - RIGHT, to_y(value), 'stroke="#ddd"'))
        parts.append(_text(LEFT - 6, to_y(value) + 4, y.show(value), "end"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, x.title, "middle"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text(14, middle, y.title, "middle", f' transform="rotate(-90 14 {middle:.1f})"'))
    return "".join(parts)


def _drawn(line: Line, colour: str, to_x: _Scale, to_y: _Scale) -> str:
    places = [(to_x(a), to_y(b)) for a, b in line.points]
    joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    drawn = f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>'
    if not line.dots:
        return drawn
    return drawn + "".join(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places)


def _key(number: int, name: str, colour: str) -> str:
    at = TOP + 10 + 18 * number
    line = _line(WIDTH - RIGHT + 10, at, WIDTH - RIGHT + 28, at, f'stroke="{colour}" stroke-width="3"')
    return line + _text(WIDTH - RIGHT + 34, at + 4, name, "start")


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
