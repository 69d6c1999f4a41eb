"""Events in files: CSV with a line of column names, or JSONL with one object a line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple, get_args

from matchcut.client import Event, EventKind
from matchcut.client.event_packing import epoch_seconds
from matchcut.server.errors import InvalidInput

__all__ = ["COLUMNS", "Row", "Rows", "event"]

NEEDED = ("user", "item", "kind")
NUMBERS = ("weight", "fraction", "watched")
TEXTS = ("session", "recommendation", "id")
COLUMNS = (*NEEDED, "time", *NUMBERS, *TEXTS)
ALIASES = {"user_id": "user", "item_id": "item", "timestamp": "time"}
KINDS = get_args(EventKind)
ENDINGS = (".csv", ".jsonl")


class Row(NamedTuple):
    """A row of the file: the line where it ends, and its event or what is wrong with it."""

    line: int
    event: Event | str


class Rows(Iterator[Row]):
    """The rows of a file, as they are needed. To be closed.

    size: of the file in bytes; read: so many of them are. ignored: the columns so far that no event has.

    Raises:
        InvalidInput: the file's name or its line of column names is not as expected.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        ending = path.suffix.lower()
        if ending not in ENDINGS:
            raise InvalidInput(f"{path} ends in neither {' nor '.join(ENDINGS)}; rename it to what it is")
        self._file = path.open("rb")
        self.size = path.stat().st_size
        self.read = 0
        self.ignored: dict[str, None] = {}  # in the order in which they came
        try:
            self._rows = self._csv(path) if ending == ".csv" else self._jsonl()
        except BaseException:
            self._file.close()
            raise

    def __next__(self) -> Row:
        return next(self._rows)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _lines(self) -> Iterator[str]:
        encoding = "utf-8-sig"  # some programs begin a file with a mark
        for line in self._file:
            self.read += len(line)
            yield line.decode(encoding, errors="surrogateescape")  # told of where it stands in a row
            encoding = "utf-8"

    def _csv(self, path: Path) -> Iterator[Row]:
        rows = csv.reader(self._lines())
        columns = [called(name.strip()) for name in next(rows, [])]
        if len(columns) == 1 and (other := next((mark for mark in ";\t|" if mark in columns[0]), "")):
            raise InvalidInput(
                f"the first line of {path} separates columns by {other!r}; the separator must be a comma"
            )
        faults = [f"there is no column {name!r}" for name in NEEDED if name not in columns]
        faults += [f"{name!r} is there twice" for name in COLUMNS if columns.count(name) > 1]
        if faults:
            raise InvalidInput(f"the first line of {path}: {'; '.join(faults)}; columns are {', '.join(COLUMNS)}")
        self._ignore(columns)
        return self._csv_rows(rows, columns)

    def _ignore(self, names: Iterable[str]) -> None:
        self.ignored |= dict.fromkeys(name for name in names if name not in COLUMNS)

    @staticmethod
    def _csv_rows(rows: Any, columns: list[str]) -> Iterator[Row]:
        while True:
            try:
                values = next(rows, None)
            except csv.Error as error:
                yield Row(rows.line_num, f"is no CSV: {error}")
                continue
            if values is None:
                return
            if len(values) == len(columns):
                yield Row(rows.line_num, checked(dict(zip(columns, values, strict=True))))
            elif values:
                yield Row(rows.line_num, f"has {len(values)} fields; there are {len(columns)} columns")

    def _jsonl(self) -> Iterator[Row]:
        for number, line in enumerate(self._lines(), start=1):
            if not line.strip():
                continue
            try:
                fields = json.loads(line)
            except ValueError as error:
                yield Row(number, f"is no JSON: {error}")
                continue
            if not isinstance(fields, dict):
                yield Row(number, "is no JSON object")
                continue
            named = {called(name): value for name, value in fields.items()}
            if len(named) < len(fields):
                yield Row(number, "names one field twice, e.g. both 'user' and 'user_id'")
                continue
            self._ignore(named)
            yield Row(number, checked(named))


def called(name: str) -> str:
    """The column that a name stands for."""
    return ALIASES.get(name, name)


def checked(fields: Mapping[str, Any]) -> Event | str:
    """The event, or why the fields are none."""
    try:
        return event(fields)
    except ValueError as error:
        return str(error)


def event(fields: Mapping[str, Any]) -> Event:
    """An event of a row's fields; those that are None or empty are not set.

    Raises:
        ValueError: a field is missing or is not what it should be.
    """
    made: dict[str, Any] = {name: text(name, fields.get(name)) for name in (*NEEDED, *TEXTS)}
    for name in NEEDED:
        if not made[name]:
            raise ValueError(f"{name} is missing")
    if made["kind"] not in KINDS:
        raise ValueError(f"kind is {made['kind']!r}; it must be one of {', '.join(KINDS)}")
    made["time"] = time(fields.get("time"))
    if made["time"] is None and not made["id"]:
        raise ValueError("has neither time nor id: it would be recorded once more with each run")
    made |= {name: number(name, fields.get(name)) for name in NUMBERS}
    if made["fraction"] is not None and made["watched"] is not None:
        raise ValueError("has both fraction and watched; give one")
    return Event(**made)


def text(name: str, value: Any) -> str:
    """A text, stripped; numbers are taken for the ids that they are."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError(f"{name} is no text")
    stripped = str(value).strip()
    try:
        stripped.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{name} is not UTF-8") from None
    return stripped


def number(name: str, value: Any) -> float | None:
    """A finite number."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        made = float(value) if not isinstance(value, bool) else float("nan")
    except (TypeError, ValueError, OverflowError):
        made = float("nan")
    if not isfinite(made):
        raise ValueError(f"{name} is {value!r}; it must be a number")
    return made


def time(value: Any) -> float | None:
    """Seconds since the Unix epoch, of a number of them or of an ISO 8601 date and time."""
    try:
        seconds = number("time", value)
    except ValueError:
        pass
    else:
        return None if seconds is None else epoch_seconds(seconds)
    try:
        when = datetime.fromisoformat(value.strip())
    except (AttributeError, ValueError):
        raise ValueError(f"time is {value!r}; it must be seconds since 1970, or a date and time") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
