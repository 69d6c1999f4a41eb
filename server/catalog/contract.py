"""What a catalogue promises; the pipeline knows nothing more of it, so that a sharded one can take its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedRows
from matchcut.server.records import EncoderIdentity, Floats, Item, Outcome, Segment, TagFilter, TimeRange


@dataclass(frozen=True, slots=True)
class Known:
    """What an ingest compares with: the item, who made its vectors, and the digest of the content that they are of."""

    item: Item
    encoder: EncoderIdentity
    content: bytes


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
    coded in a way that had been chosen before they came; where they are many, a scan may rule out less.
    """

    segments: int = 0
    coded: int = 0
    unplanned: int = 0


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

    def range(self, row: int) -> TimeRange:
        """Where the row's segment lies in its item."""
        ...


class Catalog(Protocol):
    """Items with their segments' vectors, each belonging to one tenant. Safe to be used by several threads at once.

    A change is durable and visible to every later read when its call returns; where it raises, nothing has changed.
    The order of ingest decides the order of rows, after a restart too; a replaced item counts as new.
    """

    def put(
        self, tenant: str, item: Item, segments: Sequence[Segment], encoder: EncoderIdentity, content: bytes
    ) -> Outcome:
        """Puts an item in, or in the place of what was there; where the content is the same, only the item's record.

        Args:
            segments: at least one; vectors (encoder.dimensions,) float32, finite.
            content: digest of all that the segments were made from.

        Raises:
            InvalidInput: no segment, or a vector that is not finite.
            EncoderMismatch: a vector's length is not the encoder's.
            StoreFailed: the disk failed, is full (reason STORE_FULL), or the file is gone from it (STORE_GONE).
        """
        ...

    def known(self, tenant: str, item_id: str) -> Known | None:
        """What is there under that id."""
        ...

    def update(self, tenant: str, item: Item) -> Outcome:
        """Gives an item a new title, uri, tags and attributes; its segments and duration stay.

        Raises:
            NotFound: there is no such item.
            StoreFailed: as in put.
        """
        ...

    def get(self, tenant: str, item_id: str) -> Stored | None:
        """The item with its segments, in the order in which they were put."""
        ...

    def page(self, tenant: str, *, after: str, size: int, tags: TagFilter) -> tuple[list[Item], bool]:
        """Up to `size` items in the order of their ids, those after `after`, and whether there are more."""
        ...

    def count(self, tenant: str) -> int:
        """How many items the tenant has."""
        ...

    def remove(self, tenant: str, item_id: str) -> bool:
        """Takes an item out, from a full disk too; False where there was none.

        Raises:
            StoreFailed: as in put.
        """
        ...

    def view(self, tenant: str, encoder: EncoderIdentity) -> View:
        """The tenant's vectors of that encoder (same digest and dimensions), as of now."""
        ...

    def sizes(self) -> Sizes:
        """How much there is, for whoever watches the server."""
        ...

    def close(self) -> None:
        """Finishes what was begun and lets go of the folder; views stay usable. Closing again does nothing."""
        ...
