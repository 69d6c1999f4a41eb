"""Charts of values at the ends of what can be drawn."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from matchcut.bench.svg import Axis, Line, chart


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize(
    "points", [[(1.0, 1.0)], [(0.0, 0.0)], [(1e-9, 5e6), (1.0, 5e6)], [(3.0, 0.2), (4.0, 7000.0)]], ids=str
)
def test_charts_of_hostile_values(points: list[tuple[float, float]], log: bool) -> None:
    drawn = chart(Axis("x", log), Axis("y", log), [Line("a & b", points), Line("none", [])], mark=(2.0, "<"), across=1)
    if points == [(0.0, 0.0)] and log:
        assert drawn == "<p>nothing to draw</p>"
        return
    root = ElementTree.fromstring(drawn)
    assert "nan" not in drawn
    assert [text.text for text in root.iter("text")][-2:] == ["a & b", "none"]
    for circle in root.iter("circle"):
        assert 0 <= float(circle.attrib["cx"]) <= 720
        assert 0 <= float(circle.attrib["cy"]) <= 340
