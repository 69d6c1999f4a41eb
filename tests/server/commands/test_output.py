"""Other people's words on a terminal: nothing in them is obeyed, and a line reads as it is."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.commands.output import printable

TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # bidirectional classes, UAX #9


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "plain é 日本 👨\u200d👩 خ",
            "plain é 日本 👨\u200d👩 خ",
        ),  # a joiner is part of how words and pictures are written
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\u202etxt.exe", "a\\u202etxt.exe"),
        ("\u2066x\u2069\u2067y\u2068", "\\u2066x\\u2069\\u2067y\\u2068"),
        ("\u200e\u200f\u061c", "\\u200e\\u200f\\u061c"),
        ("a\nb\u2028\udc80", "a\\nb\\u2028\\udc80"),
    ],
)
def test_what_controls_is_escaped_and_the_rest_is_left(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text())
def test_nothing_that_controls_is_left(text: str) -> None:
    shown = printable(text)
    assert not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in shown)
    assert not TURNING & {unicodedata.bidirectional(character) for character in shown}
    assert printable(shown) == shown


def test_all_that_turns_is_known() -> None:
    every = map(chr, range(0x110000))
    turning = {character for character in every if unicodedata.bidirectional(character) in TURNING}
    assert turning
    assert all(printable(character).startswith("\\u") for character in turning)
