"""Rows of the log on their way to and from SQLite; see schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

from matchcut.server.events import schema
from matchcut.server.events.strengths import UNIT
from matchcut.server.records import Exposure, Logged, Shown

NONE = bytes(16)  # where there is no session or recommendation


class Row(NamedTuple):
    """An event as it is kept; digests of 16 bytes, strength in units of 1/UNIT."""

    user: bytes
    event: bytes
    time_us: int
    item_id: str
    kind: int
    strength: int
    session: bytes
    recommendation: bytes


def logged(row: Row) -> Logged:
    """As others see it."""
    return Logged(row.time_us, row.event, row.item_id, schema.KINDS[row.kind - 1], row.strength / UNIT)


def read(answer: str) -> list[tuple[int, Logged]]:
    """What schema.EVENTS_OF gave: (number of the user, event), in order."""
    return [
        (at, Logged(time_us, bytes.fromhex(event), item_id, schema.KINDS[kind - 1], strength / UNIT))
        for at, time_us, event, item_id, kind, strength in json.loads(answer)
    ]


def numbers(answer: str | None) -> set[int]:
    """What schema.KNOWN_EVENTS gave."""
    return set(map(int, answer.split(","))) if answer else set()


def pairs(answer: str | None) -> dict[int, int]:
    """What schema.MASKS gave: value by number."""
    return {int(at): int(value) for at, _, value in (part.partition(":") for part in (answer or "").split(",")) if at}


def items(item_ids: Iterable[str], *more: Sequence[int]) -> dict[str, Any]:
    """The parameters n, k, N and I: a row for each item, with a number from each of `more` behind where its id is.

    There has to be one item at least.
    """
    texts = [item_id.encode() for item_id in item_ids]
    lengths = list(map(len, texts))
    columns = accumulate(lengths[:-1], initial=1), lengths, *more
    numbers = tuple(chain.from_iterable(zip(*columns, strict=True)))
    packed = f"%{schema.WIDTH}d" * len(numbers) % numbers
    return {"n": len(texts), "k": len(columns), "N": packed.encode(), "I": b"".join(texts)}


def exposure(exposed: Exposure) -> tuple[str, str, str, str]:
    """The columns experiment, variant, model and shown."""
    shown = [[one.item_id, one.position, one.score, one.propensity] for one in exposed.shown]
    return exposed.experiment, exposed.variant, exposed.model, json.dumps(shown, separators=(",", ":"))


def read_shown(text: str) -> tuple[Shown, ...]:
    """The column shown."""
    return tuple(Shown(*values) for values in json.loads(text))
