"""Options that people wrote."""

from __future__ import annotations

from dataclasses import fields

import pytest

from matchcut.server.blend.choices import BOUNDS, checked
from matchcut.server.errors import InvalidInput
from matchcut.server.records import PersonalOptions

BASE = PersonalOptions()


def test_values_take_the_place_of_the_bases() -> None:
    values: dict[str, object] = {
        "include_seen": True,
        "mmr_lambda": 1,
        "freshness_half_life_us": 5,
        "cap_attribute": "series",
        "cap": 2,
        "exploration": 0.5,
    }
    made = checked(BASE, values, "user_options")
    assert made == PersonalOptions(True, 1.0, 0.5, 0.1, 5, 0.05, "series", 2, 0.5)
    assert isinstance(made.mmr_lambda, float)
    assert checked(made, {}, "") == made


def test_everything_that_can_be_a_number_has_bounds() -> None:
    numbers = {field.name for field in fields(PersonalOptions) if type(field.default) in (int, float)}
    assert numbers == BOUNDS.keys()
    for name, (low, high) in BOUNDS.items():
        assert low <= getattr(BASE, name) <= high


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("mmr", 0.5, "there is no such option"),
        ("mmr_lamda", 0.5, "did you mean 'mmr_lambda'"),
        ("mmr_lambda", 1.1, "between 0 and 1"),
        ("mmr_lambda", -1e-9, "between 0 and 1"),
        ("mmr_lambda", float("nan"), "between 0 and 1"),
        ("mmr_lambda", True, "not a number"),
        ("mmr_lambda", "0.5", "not a number"),
        ("freshness", float("inf"), "between 0 and 1000"),
        ("freshness", 10**400, "between 0 and 1000"),
        ("freshness_half_life_us", 0, "between 1 and"),
        ("freshness_half_life_us", 1.5, "not a whole number"),
        ("freshness_half_life_us", 1 << 63, "between 1 and"),
        ("cap", -1, "between 0 and"),
        ("cap", None, "not a whole number"),
        ("include_seen", 1, "not true or false"),
        ("cap_attribute", 3, "not text"),
        ("exploration", 1.0001, "between 0 and 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(name: str, value: object, what: str) -> None:
    with pytest.raises(InvalidInput, match=rf"user_options\.{name}\b.*{what}") as caught:
        checked(BASE, {name: value}, "user_options")
    assert caught.value.field == f"user_options.{name}"
