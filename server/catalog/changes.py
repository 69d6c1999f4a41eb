"""The changes that a catalogue can undergo, and what each comes to where it meets what is there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchcut.server.catalog.contract import Known
from matchcut.server.errors import NotFound
from matchcut.server.records import EncoderIdentity, Floats, Item, Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Put:
    """A whole item, in the place of what has its id.

    ranges: (segments, 2) int64, start and end in microseconds. vectors: (segments, dimensions) float32.
    """

    tenant: str
    known: Known
    ranges: NDArray[np.int64]
    vectors: Floats

    @property
    def item_id(self) -> str:
        return self.known.item.item_id


@dataclass(frozen=True, slots=True)
class Amend:
    """Another item record over segments that stay."""

    tenant: str
    item: Item

    @property
    def item_id(self) -> str:
        return self.item.item_id


@dataclass(frozen=True, slots=True)
class Remove:
    """An item goes."""

    tenant: str
    item_id: str


Change = Put | Amend | Remove


class Decision(NamedTuple):
    """What a wished change comes to: the change to be made, None where nothing is to be done."""

    outcome: Outcome
    change: Change | None


def decide(wish: Change, present: Known | None) -> Decision:
    """What has to be done where `present` is what the catalogue has under that id.

    Raises:
        NotFound: an amendment of what is not there.
    """
    match wish:
        case Put():
            return _put(wish, present)
        case Amend(item=item):
            if present is None:
                raise NotFound(f"there is no item {item.item_id!r}; ingest it first", field="item.item_id")
            return _amend(replace(wish, item=replace(item, duration_us=present.item.duration_us)), present)
        case Remove():
            return Decision(Outcome.UNCHANGED, None) if present is None else Decision(Outcome.REPLACED, wish)


def same_encoder(one: EncoderIdentity, other: EncoderIdentity) -> bool:
    """Whether the vectors of both may be compared."""
    return (one.digest, one.dimensions) == (other.digest, other.dimensions)


def after(change: Change, present: Known | None) -> Known | None:
    """What is there once the change has been made."""
    match change:
        case Put():
            return change.known
        case Amend(item=item):
            assert present is not None, "decide() lets no amendment of nothing through"
            return replace(present, item=item)
        case Remove():
            return None


def _put(wish: Put, present: Known | None) -> Decision:
    if present is None:
        return Decision(Outcome.CREATED, wish)
    if present.content == wish.known.content and same_encoder(present.encoder, wish.known.encoder):
        return _amend(Amend(wish.tenant, wish.known.item), present)
    return Decision(Outcome.REPLACED, wish)


def _amend(wish: Amend, present: Known) -> Decision:
    return Decision(Outcome.UNCHANGED, None) if wish.item == present.item else Decision(Outcome.UPDATED, wish)
