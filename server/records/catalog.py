"""Items and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from matchcut.server.records.base import Floats, TimeRange


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of an item or query in time, with one vector.

    vector: (dimensions,) float32 of unit length.
    """

    range: TimeRange
    vector: Floats


@dataclass(frozen=True, slots=True)
class Item:
    """Something that can be recommended. `item_id` is unique within its tenant; tags are sorted, each once."""

    item_id: str
    title: str = ""
    uri: str = ""
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    duration_us: int = 0


class Outcome(Enum):
    """What an ingest did."""

    CREATED = "created"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    UPDATED = "updated"


@dataclass(frozen=True, slots=True)
class TagFilter:
    """A condition on tags; all three parts must hold; an empty part holds."""

    all_of: frozenset[str] = frozenset()
    any_of: frozenset[str] = frozenset()
    none_of: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.all_of or self.any_of or self.none_of)

    def passes(self, tags: Iterable[str]) -> bool:
        """Whether an item with these tags passes."""
        have = set(tags)
        return self.all_of <= have and (not self.any_of or bool(self.any_of & have)) and not (self.none_of & have)
