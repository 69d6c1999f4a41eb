"""PersonalOptions from names and values that people wrote: what there is, of which type, within which bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from matchcut.server.errors import InvalidInput
from matchcut.server.options import suggestion
from matchcut.server.records import PersonalOptions

__all__ = ["checked"]

TYPES: dict[str, type[Any]] = {field.name: type(field.default) for field in fields(PersonalOptions)}
LONGEST = 1 << 62  # microseconds, and anything else that has to fit into 64 bits
BOUNDS: dict[str, tuple[float, float]] = {
    "mmr_lambda": (0, 1),
    "current_weight": (0, 1),
    "freshness": (0, 1000),
    "freshness_half_life_us": (1, LONGEST),
    "popularity": (0, 1000),
    "cap": (0, 1 << 31),
    "exploration": (0, 1),
}


def checked(base: PersonalOptions, values: Mapping[str, object], where: str) -> PersonalOptions:
    """`base` with these values in the place of its own.

    Args:
        values: by field of PersonalOptions; a whole number will do where one with a fraction is expected.
        where: prefix of the field in messages, e.g. "user_options".

    Raises:
        InvalidInput: a name that is none, a value of another type, or one that is out of bounds or NaN.
    """
    taken: dict[str, Any] = {}
    for name, value in values.items():
        place = f"{where}.{name}" if where else name
        if name not in TYPES:
            known = f"{suggestion(name, TYPES)}; there are: {', '.join(TYPES)}"
            raise InvalidInput(f"{place}: there is no such option{known}", field=place)
        taken[name] = _value(TYPES[name], value, BOUNDS.get(name), place)
    return replace(base, **taken)


def _value(kind: type[Any], value: object, bounds: tuple[float, float] | None, place: str) -> Any:
    result: Any = value
    numeric = kind in (int, float)
    accepted = (int, float) if kind is float else kind
    if not isinstance(result, accepted) or (numeric and isinstance(result, bool)):
        names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
        raise InvalidInput(f"{place}: {value!r} is not {names[kind]}", field=place)
    if bounds and not bounds[0] <= result <= bounds[1]:  # NaN is not, either
        raise InvalidInput(f"{place} is {value!r}; it must be between {bounds[0]} and {bounds[1]}", field=place)
    return kind(result)
