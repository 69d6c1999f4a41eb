"""What is known of a user, computed the long way: all events sorted, one step each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from matchcut.server.records import EventKind, Floats, Logged
from matchcut.server.session import SessionModel
from matchcut.server.users import Taste


def expected(model: SessionModel, content: Mapping[str, Floats], events: Iterable[Logged], ring: int = 50) -> Taste:
    """Taste of these events, in any order, each once.

    Args:
        content: of the items that are there.
    """
    state, steps = model.begin(1), 0
    opinions: dict[str, bool] = {}
    seen: set[str] = set()
    for event in sorted(events, key=lambda each: (each.time_us, each.digest)):
        if event.kind is not EventKind.IMPRESSION:
            seen.add(event.item_id)
        if event.strength == 0:
            continue
        opinions.pop(event.item_id, None)
        opinions[event.item_id] = event.strength > 0
        if event.strength > 0 and event.item_id in content:
            items = model.items([event.item_id], content[event.item_id][np.newaxis])
            state, steps = model.step(items, state, np.array([event.strength], np.float32)), steps + 1
    newest = list(reversed(opinions.items()))
    return Taste(
        query=model.queries(state)[0] if steps else None,
        seen=seen,
        liked=tuple(item_id for item_id, good in newest if good)[:ring],
        disliked=tuple(item_id for item_id, good in newest if not good)[:ring],
        events=steps,
        model=model.identity,
    )


def assert_same(found: Taste, wanted: Taste) -> None:
    """Equal, the query within rounding."""
    assert found.seen == wanted.seen
    assert (found.liked, found.disliked, found.events) == (wanted.liked, wanted.disliked, wanted.events)
    assert found.model == wanted.model
    assert (found.query is None) == (wanted.query is None)
    if found.query is not None and wanted.query is not None:
        assert found.query.dtype == np.float32
        np.testing.assert_allclose(found.query, wanted.query, atol=1e-6)
