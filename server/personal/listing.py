"""From rows of a shortlist to a list with reasons."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from matchcut.server.blend import Arranged, Candidates, nearest
from matchcut.server.personal.shortlist import Shortlist
from matchcut.server.personal.wants import Wants
from matchcut.server.records import PersonalMatch, PersonalOptions, Reason
from matchcut.server.users import Gallery, Taste


def candidates(
    found: Shortlist, gallery: Gallery, wants: Wants, how: PersonalOptions, *, users: Mapping[str, int], now_us: int
) -> Candidates:
    """All that decides how the shortlist is arranged.

    Args:
        users: see EventLog.popularity.
    """
    view, rows = gallery.view, found.rows
    vectors, groups = view.rows[rows], view.groups[rows]
    popularity, caps = np.zeros(len(rows), np.int64), ("",) * len(rows)
    if users or how.cap:  # without either nobody asks which items they are
        items = [view.item(group) for group in groups.tolist()]
        popularity = np.array([users.get(item.item_id, 0) for item in items], np.int64)
        caps = tuple(item.attributes.get(how.cap_attribute, "") for item in items) if how.cap else caps
    against = None if wants.against is None else np.maximum(vectors @ wants.against, 0).astype(np.float64)
    return Candidates(
        vectors=vectors,
        history=None if wants.history is None else (vectors @ wants.history).astype(np.float64),
        current=None if wants.current is None else (vectors @ wants.current).astype(np.float64),
        against=against,
        age_us=np.maximum(now_us - gallery.introduced_us[groups], 0),
        popularity=popularity,
        caps=caps,
    )


def explained(
    arranged: Arranged, found: Shortlist, arranged_of: Candidates, gallery: Gallery, taste: Taste
) -> tuple[PersonalMatch, ...]:
    """The chosen items, each with why it is there."""
    liked, vectors = gallery.vectors(taste.liked)
    chosen = arranged.chosen
    near = nearest(arranged_of.vectors[chosen], liked, vectors)
    groups = gallery.view.groups[found.rows[chosen]].tolist()
    return tuple(
        PersonalMatch(gallery.view.item(group), score, Reason(item_id, similarity, shares), propensity)
        for group, score, (item_id, similarity), shares, propensity in zip(
            groups, arranged.scores.tolist(), near, arranged.shares, arranged.propensities.tolist(), strict=True
        )
    )
