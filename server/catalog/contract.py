"""What a catalogue promises; the pipeline knows nothing more of it, so that a sharded one can take its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedRows
from matchcut.server.records import EncoderIdentity, Floats, Item, Outcome, Segment, TagFilter, TimeRange

FILE = "catalog.sqlite"  # in the data folder
Listener = Callable[[str, str], None]  # is told tenant and id of an item


@dataclass(frozen=True, slots=True)
class Known:
    """What an ingest compares with: the item, who made its vectors, and the digest of the content that they are of.

    recipe: how that content was read, in the words of whoever put it in; "" where that is not known.
    """

    item: Item
    encoder: EncoderIdentity
    content: bytes
    recipe: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """An item, whole."""

    item: Item
    segments: tuple[Segment, ...]
    encoder: EncoderIdentity


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much a catalogue holds, all tenants together.

    segments: of items that are there. coded: those of them that the scan can rank. unplanned: rows that were
    coded in a way that had been chosen before they came; where they are many, a scan may rule out less. items: that
    are there. staged: those that have vectors of another encoder aside.
    """

    segments: int = 0
    coded: int = 0
    unplanned: int = 0
    items: int = 0
    staged: int = 0


@dataclass(frozen=True, slots=True)
class Readiness:
    """How far an encoder is from taking over: of so many items, so many have its vectors, aside or as their own."""

    items: int = 0
    ready: int = 0


@dataclass(frozen=True, slots=True)
class Lacking:
    """Which items, of all tenants, have no vectors of an encoder: how many, and (tenant, item id) of the first few."""

    items: int
    count: int
    first: tuple[tuple[str, str], ...]


class View(Protocol):
    """One tenant's vectors of one encoder as they stood when the view was taken; no later change shows in it.

    rows: (n, dimensions) float32, one a segment, in the order of ingest; some may be of items that are gone.
    groups: (n,) int64, the number of each row's item, not falling; numbers mean nothing outside this view.
    radius: at least the L2 norm of every row.
    coded: the codes of all the rows; None where there are none, or not yet.
    count: how many items it has.
    """

    @property
    def rows(self) -> Floats: ...

    @property
    def groups(self) -> NDArray[np.int64]: ...

    @property
    def radius(self) -> float: ...

    @property
    def coded(self) -> CodedRows | None: ...

    @property
    def count(self) -> int: ...

    def eligible(self, exclude: frozenset[str], tags: TagFilter) -> NDArray[np.bool_] | None:
        """(n,) bool, not to be written to: the rows of items that are there, pass and are not excluded; None: all."""
        ...

    def item(self, group: int) -> Item:
        """The item of that number."""
        ...

    def group(self, item_id: str) -> int:
        """The number of the item of that id; -1 where it is not there."""
        ...

    def numbers(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """(n,) the same of many at once."""
        ...

    def range(self, row: int) -> TimeRange:
        """Where the row's segment lies in its item."""
        ...


class Edition(Protocol):
    """The catalogue between two switches: shows every change until the next switch, and nothing that comes after it.

    A request that reads from one edition never sees half of a switch. Safe to be used by several threads at once.
    """

    def get(self, tenant: str, item_id: str) -> Stored | None:
        """The item with its segments, in the order in which they were put."""
        ...

    def view(self, tenant: str, encoder: EncoderIdentity) -> View:
        """The tenant's vectors of that encoder (same digest and dimensions), as of now."""
        ...


@dataclass(frozen=True, slots=True)
class Switched:
    """What a switch did: `count` of `items` are of that encoder now; `edition` is the catalogue from then on."""

    edition: Edition
    items: int
    count: int


class Catalog(Edition, Protocol):
    """Items with their segments' vectors, each belonging to one tenant. Safe to be used by several threads at once.

    A change is durable and visible to every later read when its call returns; where it raises, nothing has changed.
    The order of ingest decides the order of rows, after a restart too; a replaced item counts as new.

    Vectors of an encoder that is to take over are kept aside (staged) until all are there, and are seen by nobody. They
    belong to the very content that the item has: they go when it is replaced or removed.

    own: the encoder that the last switch made the catalogue's; None: there was none.
    """

    @property
    def own(self) -> EncoderIdentity | None: ...

    def put(
        self,
        tenant: str,
        item: Item,
        segments: Sequence[Segment],
        encoder: EncoderIdentity,
        content: bytes,
        recipe: str = "",
    ) -> Outcome:
        """Puts an item in, or in the place of what was there; where the content is the same, only the item's record.

        Args:
            segments: at least one; vectors (encoder.dimensions,) float32, finite.
            content: digest of all that the segments were made from.
            recipe: see Known; kept with the item.

        Raises:
            InvalidInput: no segment, or a vector that is not finite.
            EncoderMismatch: a vector's length is not the encoder's.
            StoreFailed: the disk failed, or is full (reason STORE_FULL).
            Unavailable: the file is gone from it (STORE_GONE), also where nothing would have to be written.
        """
        ...

    def stage(
        self,
        tenant: str,
        item_id: str,
        segments: Sequence[Segment],
        encoder: EncoderIdentity,
        content: bytes,
        recipe: str = "",
        *,
        of: bytes,
    ) -> Outcome:
        """Keeps another encoder's vectors of an item aside: CREATED, or UNCHANGED where the item has its vectors.

        Where that encoder has become the catalogue's own meanwhile, they become the item's at once: REPLACED.

        Args:
            segments, encoder: as in put.
            content, recipe: what the item has once they are its own.
            of: the content that the item has now.

        Raises:
            NotFound: there is no such item.
            EncoderMismatch: the item has other content by now (reason ITEM_CHANGED), or as in put.
            InvalidInput, StoreFailed, Unavailable: as in put.
        """
        ...

    def lacks(self, tenant: str, item_id: str, encoder: EncoderIdentity) -> bool:
        """Whether the item is there and has no vectors of that encoder, neither aside nor as its own.

        Raises:
            Unavailable: as in put; what there is may not be kept.
        """
        ...

    def readiness(self, encoder: EncoderIdentity, tenant: str | None = None) -> Readiness:
        """How many items have vectors of that encoder, of a tenant or (None) of all together."""
        ...

    def lacking(self, encoder: EncoderIdentity) -> Lacking:
        """Which items have none."""
        ...

    def edition(self) -> Edition:
        """What is to be read by requests that begin now."""
        ...

    def switch(self, encoder: EncoderIdentity, *, force: bool = False) -> Switched:
        """Makes what is staged of that encoder the items' own, all in one transaction, and the encoder the catalogue's.

        What is staged of others goes. The order of ingest stays. Changes wait meanwhile; reads do not.

        Args:
            force: items that have nothing of that encoder stay as they are.

        Raises:
            EncoderMismatch: some have nothing, and it is not forced (reason ITEMS_LACKING); nothing was changed.
            StoreFailed, Unavailable: as in put.
        """
        ...

    def known(self, tenant: str, item_id: str) -> Known | None:
        """What is there under that id."""
        ...

    def update(self, tenant: str, item: Item) -> Outcome:
        """Gives an item a new title, uri, tags and attributes; its segments and duration stay.

        Raises:
            NotFound: there is no such item.
            StoreFailed, Unavailable: as in put.
        """
        ...

    def page(
        self, tenant: str, *, after: str, size: int, tags: TagFilter, lacking: EncoderIdentity | None = None
    ) -> tuple[list[Item], bool]:
        """Up to `size` items in the order of their ids, those after `after`, and whether there are more.

        Args:
            lacking: only items that have no vectors of that encoder; see lacks().
        """
        ...

    def count(self, tenant: str) -> int:
        """How many items the tenant has."""
        ...

    def remove(self, tenant: str, item_id: str) -> bool:
        """Takes an item out, from a full disk too; False where there was none.

        Raises:
            StoreFailed, Unavailable: as in put.
        """
        ...

    def follow(self, listener: Listener) -> Callable[[], None]:
        """Tells the listener of each item that is there, in the order of ingest, and then of each that changes.

        It is told after the change is durable and visible, once or more; a switch changes all items. What is kept aside
        is no change. It is called by the thread that makes all changes, and has to be quick.

        Returns what ends it; the listener may be called once more at that moment, and not after it.

        Raises:
            StoreFailed: the catalogue is closed.
        """
        ...

    def sizes(self) -> Sizes:
        """How much there is, for whoever watches the server."""
        ...

    def close(self) -> None:
        """Finishes what was begun and lets go of the folder; views stay usable. Closing again does nothing."""
        ...
