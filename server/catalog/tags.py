"""Which items pass a tag filter, remembered from request to request."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from matchcut.server.catalog.contract import Known
from matchcut.server.records import TagFilter

_KEPT = 64  # filters remembered at a time


class TagMasks:
    """The answers to tag filters over a list that only grows; an item's tags must not change.

    Filters repeat, and each asks every item: so an answer is kept, and later only the new items are asked. Safe to be
    used by several threads at once.
    """

    def __init__(self) -> None:
        self._masks: dict[TagFilter, NDArray[np.bool_]] = {}

    def mask(self, tags: TagFilter, entries: Sequence[Known], count: int) -> NDArray[np.bool_]:
        """(count,) bool, whether each of the first `count` entries passes; not to be written to."""
        known = self._masks.get(tags)
        if known is None or len(known) < count:
            known = np.empty(0, np.bool_) if known is None else known
            more = (tags.passes(entries[at].item.tags) for at in range(len(known), count))
            known = np.concatenate([known, np.fromiter(more, np.bool_, count - len(known))])
            if len(self._masks) >= _KEPT:
                self._masks = {}  # another thread may keep the old one, and only its answer is forgotten
            self._masks[tags] = known
        return known[:count]
