"""Events and vectors from files that other programs write.

    .csv     a heading, then one event a line; commas
    .jsonl   one JSON object a line, with the same keys
    .inter   RecBole's: tabs, a heading with types such as user_id:token; of each rating it counts that there is one
    .npz     vectors: arrays `ids` (n,) of text and `vectors` (n, c), and where they are a server's encoder's, its
             `name`, `version` and `digest`, each a text

Columns of events: user (or user_id), item (or item_id), then time_us in microseconds or time (or timestamp) in seconds
since the epoch or as an ISO 8601 date and time, and optionally strength from -1 to 1 (default 1), or rating, which is
not looked at. Instead of strength there may be what `matchcut events` takes: kind, and with it weight, fraction or
watched (seconds), of which a server would make the strength. session, recommendation and id are not looked at.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from matchcut.server.errors import InvalidInput, NotFound
from matchcut.server.events.strengths import strength
from matchcut.server.records import EncoderIdentity, Event, EventKind, Floats
from matchcut.server.training.session.dataset import GIVEN, Row

__all__ = ["SUFFIXES", "events", "vectors"]

SUFFIXES = (".csv", ".jsonl", ".inter")
NAMES = {
    "user": "user",
    "user_id": "user",
    "item": "item",
    "item_id": "item",
    "time": "time",
    "timestamp": "time",
    "time_us": "time_us",
    "strength": "strength",
    "rating": "rating",
    **{name: name for name in ("kind", "weight", "fraction", "watched", "session", "recommendation", "id")},
}
KINDS = tuple(kind.value for kind in EventKind)
LATEST = 1 << 62  # microseconds, some 146,000 years


def events(path: Path) -> list[Row]:
    """Rows of (user, item, time in microseconds, strength).

    Raises:
        NotFound: there is no such file or folder.
        InvalidInput: it is of another kind, a column is missing or unknown, or a value is none; says which line.
    """
    if path.suffix not in SUFFIXES:
        if not path.exists():
            raise NotFound(f"there is no {path}; give a server's data folder or a file", reason="EVENTS_NOT_FOUND")
        raise InvalidInput(
            f"{path} is neither a server's data folder nor a file of the kinds {', '.join(SUFFIXES)}", field="events"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = objects(file) if path.suffix == ".jsonl" else cells(file, "\t" if path.suffix == ".inter" else ",")
            return [row(path, number, values) for number, values in lines]
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", reason="EVENTS_NOT_FOUND") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(f"{path} cannot be read as UTF-8 text: {error}", field="events") from error


def cells(file: Any, separator: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number and values of each line below the heading."""
    if separator == "\t":
        reader = csv.reader(file, delimiter=separator, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(file)
    heading = [each.split(":")[0].strip() for each in next(reader, [])]
    for values in reader:
        if not values:
            continue
        if len(values) != len(heading):
            raise InvalidInput(
                f"line {reader.line_num} has {len(values)} columns, the heading {len(heading)}", field="events"
            )
        yield reader.line_num, dict(zip(heading, values, strict=True))


def objects(file: Any) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Number and object of each line."""
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise InvalidInput(f"line {number} is not a JSON object", field="events")
        yield number, found


def row(path: Path, number: int, values: Mapping[str, Any]) -> Row:
    """One event."""
    said = f"{path.name}, line {number}"
    known: dict[str, Any] = {}
    for name, value in values.items():
        if name not in NAMES:
            raise InvalidInput(
                f"{said}: the column {name!r} is unknown; known are {', '.join(NAMES)}. Rename it, or leave it out",
                field="events",
            )
        known[NAMES[name]] = value
    for name in ("user", "item"):
        if not isinstance(known.get(name), str | int) or known[name] == "":
            raise InvalidInput(f"{said}: {name} is missing or empty", field="events")
    if ("time" in known) == ("time_us" in known):
        raise InvalidInput(f"{said}: there must be either time_us or time", field="events")
    time_us = seconds(known["time"], said) * 1_000_000 if "time" in known else value_of(known, "time_us", said)
    if not 0 <= time_us < LATEST:
        raise InvalidInput(f"{said}: the time must not be before 1970 nor beyond what 64 bits hold", field="events")
    own = speaks(known, said)
    return str(known["user"]), str(known["item"]), round(time_us), float(own)


def speaks(known: Mapping[str, Any], said: str) -> float:
    """How much the event speaks for its item, -1 to 1: as the file has it, or of its kind, as a server has it."""
    given = {
        name for name in ("kind", "weight", "fraction", "watched", "strength") if known.get(name) not in (None, "")
    }
    if "kind" not in known:
        if alone := given - {"strength"}:
            raise InvalidInput(f"{said}: {min(alone)} takes a kind beside it", field="events")
        found = value_of(known, "strength", said) if "strength" in known else 1.0
        if not -1 <= found <= 1:
            raise InvalidInput(f"{said}: strength must be from -1 to 1, not {found}", field="events")
        return found
    for one, other in (("strength", "kind"), ("fraction", "watched")):
        if {one, other} <= given:
            raise InvalidInput(f"{said}: there are both {one} and {other}; give one", field="events")
    name = str(known["kind"]).strip()
    if name not in KINDS:
        raise InvalidInput(f"{said}: kind is {name!r}; it must be one of {', '.join(KINDS)}", field="events")
    try:
        return strength(
            Event(
                *("", "", "", EventKind(name), 0),
                weight=value_of(known, "weight", said) if "weight" in given else 1.0,
                fraction=value_of(known, "fraction", said) if "fraction" in given else None,
                watched_us=round(value_of(known, "watched", said) * 1_000_000) if "watched" in given else 0,
            )
        )
    except (InvalidInput, OverflowError) as error:
        raise InvalidInput(f"{said}: {error}", field="events") from error


def seconds(value: Any, said: str) -> float:
    """Since the Unix epoch, of a number of them or of an ISO 8601 date and time; of UTC where it says nothing."""
    try:
        return value_of({"time": value}, "time", said)
    except InvalidInput:
        try:
            when = datetime.fromisoformat(value.strip())
            return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        except (AttributeError, ValueError, OverflowError):
            pass
        raise InvalidInput(
            f"{said}: time is {value!r}, which is neither a number nor a date and time", field="events"
        ) from None


def value_of(known: Mapping[str, Any], name: str, said: str) -> float:
    """A finite number; a whole one stays exact."""
    try:
        value = known[name] if type(known[name]) in (int, float) else str(known[name]).strip()
        number: float = int(value) if type(value) is int or str(value).lstrip("-").isdecimal() else float(value)
        fits = math.isfinite(number)
    except (ValueError, OverflowError):
        fits = False
    if not fits:
        raise InvalidInput(f"{said}: {name} is {known[name]!r}, which is no number", field="events")
    return number


def vectors(path: Path) -> tuple[dict[str, Floats], EncoderIdentity]:
    """Items' vectors and whose they are.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is not such a file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}", reason="VECTORS_NOT_FOUND") from error
    except (OSError, ValueError, EOFError) as error:
        raise InvalidInput(f"{path} is no .npz file of vectors: {error}", field="vectors") from error
    ids, rows = arrays.get("ids"), arrays.get("vectors")
    if ids is None or rows is None or rows.ndim != 2 or ids.shape != rows.shape[:1] or not rows.size:
        raise InvalidInput(f"{path} must hold ids (n,) and vectors (n, c)", field="vectors")
    if rows.dtype.kind != "f" or ids.dtype.kind not in "Uiu":
        raise InvalidInput(f"{path}: ids must be text and vectors floating point", field="vectors")
    if len(np.unique(ids)) != len(ids):
        raise InvalidInput(f"{path} holds an id more than once", field="vectors")
    name, version, digest = (str(arrays.get(key, GIVEN)) for key in ("name", "version", "digest"))
    identity = EncoderIdentity(name, version, digest, rows.shape[1])
    return {str(key): value.astype(np.float32) for key, value in zip(ids, rows, strict=True)}, identity
