"""The changes that a catalogue can undergo, and what each comes to where it meets what is there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from matchcut.server.catalog.contract import Known
from matchcut.server.errors import EncoderMismatch, NotFound
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


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """Another encoder's vectors of an item, kept aside until that encoder takes over.

    known: what the item will have then, save for the item record, which stays the item's. of: the content that the
    item has to have now. ranges, vectors: as of Put.
    """

    tenant: str
    known: Known
    of: bytes
    ranges: NDArray[np.int64]
    vectors: Floats

    @property
    def item_id(self) -> str:
        return self.known.item.item_id

    def put(self, item: Item) -> Put:
        """What makes them the item's own."""
        return Put(self.tenant, replace(self.known, item=item), self.ranges, self.vectors)


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


Change = Put | Stage | Amend | Remove


class Decision(NamedTuple):
    """What a wished change comes to: the change to be made, None where nothing is to be done."""

    outcome: Outcome
    change: Change | None


def decide(wish: Change, present: Known | None, own: EncoderIdentity | None = None) -> Decision:
    """What has to be done where `present` is what the catalogue has under that id, and `own` its encoder, if known.

    Raises:
        NotFound: an amendment of what is not there, or vectors to be kept aside for it.
        EncoderMismatch: what is to be kept aside was made of other content than the item has now.
    """
    match wish:
        case Put():
            return _put(wish, present)
        case Stage():
            return _stage(wish, present, own)
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
        case Stage():
            return present
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


def _stage(wish: Stage, present: Known | None, own: EncoderIdentity | None) -> Decision:
    if present is None:
        raise NotFound(f"there is no item {wish.item_id!r}; ingest it first", field="item.item_id")
    if present.content != wish.of:
        raise EncoderMismatch(
            f"{wish.item_id!r} was replaced while this was made of it; send what it has now",
            reason="ITEM_CHANGED",
            field="item.item_id",
        )
    if same_encoder(present.encoder, wish.known.encoder):
        return Decision(Outcome.UNCHANGED, None)
    if own is not None and same_encoder(own, wish.known.encoder):  # it came too late for the switch
        return Decision(Outcome.REPLACED, wish.put(present.item))
    return Decision(Outcome.CREATED, wish)


def _amend(wish: Amend, present: Known) -> Decision:
    return Decision(Outcome.UNCHANGED, None) if wish.item == present.item else Decision(Outcome.UPDATED, wish)
