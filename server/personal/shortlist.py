"""The items that a user's list may be made of: the best by what is asked for, and some that are popular or new."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import nsmallest

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.device import Device
from matchcut.kernels.topk import Ranked
from matchcut.server.catalog import View
from matchcut.server.records import Floats

Flags = NDArray[np.bool_]
Ints = NDArray[np.int64]

_OTHERS = 4  # one in so many of the shortlist's places is for what is popular, and another for what is new
_LOOK = 4096  # rows looked at for new items before more are


@dataclass(frozen=True, slots=True, eq=False)
class Shortlist:
    """rows: (n,) int64 of the view, ascending, each once. ranked: what the scan found; None: there was no query."""

    rows: Ints
    ranked: Ranked | None


class Popular:
    """The items with the most users of each tenant, put in order once for each reading of their numbers."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[str, tuple[Mapping[str, int], tuple[str, ...]]] = {}

    def of(self, tenant: str, users: Mapping[str, int]) -> tuple[str, ...]:
        """Ids of the items with the most users first; equal ones in the order of their ids."""
        if not users:
            return ()  # and nothing is kept of tenants that there may not be
        kept = self._kept.get(tenant)
        if kept is None or kept[0] is not users:
            kept = self._kept[tenant] = users, _first(users, self._most)
        return kept[1]


def _first(users: Mapping[str, int], most: int) -> tuple[str, ...]:
    """Ids of the items with the most users, in order. Sorting them all would take a second for a million."""
    item_ids = list(users)
    counts = np.fromiter(users.values(), np.int64, len(item_ids))
    least = np.partition(counts, -most)[-most] if len(counts) > most else counts.min(initial=0)
    above = [item_ids[at] for at in np.flatnonzero(counts > least).tolist()]
    above.sort(key=lambda item_id: (-users[item_id], item_id))
    tied = (item_ids[at] for at in np.flatnonzero(counts == least).tolist())
    return (*above, *nsmallest(most - len(above), tied))


def shortlist(
    device: Device,
    view: View,
    query: Floats | None,
    eligible: Flags | None,
    popular: Iterable[str],
    *,
    size: int,
    check: Callable[[], None],
) -> Shortlist:
    """At most `size` rows by the query, exactly the best there are, and about a quarter of that of each other kind.

    Args:
        view: one row an item.
        query: (d,) float32; None: only what is popular and new.
        eligible: see View.eligible.
        popular: ids of items, the most popular first.
    """
    share = max(1, size // (_OTHERS if query is not None else 2))
    found = [_popular(view, eligible, popular, share), _newest(len(view.rows), eligible, share)]
    ranked = None
    if query is not None and len(view.rows):
        ranked = device.search(
            query[np.newaxis],
            view.rows,
            groups=view.groups,
            k=size,
            eligible=eligible,
            radius=view.radius,
            coded=view.coded,
            check=check,
        )
        found.append(ranked.rows)
    return Shortlist(np.unique(np.concatenate(found)), ranked)


def _popular(view: View, eligible: Flags | None, popular: Iterable[str], most: int) -> Ints:
    rows: list[int] = []
    for item_id in popular:
        group = view.group(item_id)
        if group >= 0:
            row = int(np.searchsorted(view.groups, group))
            if eligible is None or eligible[row]:
                rows.append(row)
                if len(rows) == most:
                    break
    return np.array(rows, np.int64)


def _newest(count: int, eligible: Flags | None, most: int) -> Ints:
    """The last rows: rows are in the order of ingest."""
    if eligible is None:
        return np.arange(max(0, count - most), count, dtype=np.int64)
    look = _LOOK
    while True:
        start = max(0, count - look)
        rows = np.flatnonzero(eligible[start:]) + start
        if len(rows) >= most or not start:
            return rows[-most:]
        look *= 8
