"""What a user's events come to, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from matchcut.server.records import EventKind, Floats, Logged
from matchcut.server.session import SessionModel
from matchcut.server.users.contract import Gallery, Taste

__all__ = ["Fold", "fold", "further", "taste"]

_IMPRESSION = EventKind.IMPRESSION


@dataclass(slots=True, eq=False)
class Fold:
    """A user's events up to now, in their order.

    state: (width,) float32, the model's. steps: events that it is made of: those that speak for an item that was in the
    gallery. last: order of the last event that spoke for or against an item; None: there was none. seen: ids of items
    with events of any kind but impressions; letters: their lengths together. liked, disliked: ids, oldest first, each
    where the latest event put it.
    """

    state: Floats
    steps: int = 0
    last: tuple[int, bytes] | None = None
    letters: int = 0
    seen: set[str] = field(default_factory=set)
    liked: dict[str, None] = field(default_factory=dict)
    disliked: dict[str, None] = field(default_factory=dict)

    def note(self, events: Sequence[Logged], ring: int) -> None:
        """All of it but the state. Events in their order, after those before.

        Args:
            ring: most items in each of liked and disliked; the oldest give way.
        """
        seen, liked, disliked = self.seen, self.liked, self.disliked
        for event in events:
            item_id, strength = event.item_id, event.strength
            if event.kind is not _IMPRESSION and item_id not in seen:
                seen.add(item_id)
                self.letters += len(item_id)
            if not strength:
                continue
            into, out = (liked, disliked) if strength > 0 else (disliked, liked)
            out.pop(item_id, None)
            into.pop(item_id, None)
            into[item_id] = None
            if len(into) > ring:
                del into[next(iter(into))]
            self.last = event.order


def fold(model: SessionModel, gallery: Gallery, events: Sequence[Sequence[Logged]], ring: int) -> list[Fold]:
    """Many users of one tenant at once, each from the very first of its events, which are in order.

    The model steps all users that have an n-th event together, so that many short histories cost little more than the
    longest of them.

    Raises:
        EngineFailed: as SessionModel.step.
    """
    count, view = len(events), gallery.view
    speaking = [[event for event in its if event.strength > 0] for its in events]
    flat = [event for its in speaking for event in its]
    numbers = view.numbers([event.item_id for event in flat])
    there = numbers >= 0
    strengths = np.array([event.strength for event in flat], np.float32)[there]
    rows = np.searchsorted(view.groups, numbers[there])
    lengths = np.bincount(np.repeat(np.arange(count), [len(its) for its in speaking])[there], minlength=count)
    firsts = np.cumsum(lengths) - lengths  # of each user's steps, which lie one after the other
    longest_first = np.argsort(-lengths, kind="stable")
    still = -lengths[longest_first]
    states = model.begin(count)
    for at in range(int(lengths.max(initial=0))):
        active = longest_first[: np.searchsorted(still, -at)]  # users with more than `at` steps
        now = firsts[active] + at
        states[: len(active)] = model.step(view.rows[rows[now]], states[: len(active)], strengths[now])
    made = [Fold(np.empty(0, np.float32))] * count
    for place, at in enumerate(longest_first.tolist()):
        made[at] = Fold(states[place].copy(), int(lengths[at]))
        made[at].note(events[at], ring)
    return made


def further(model: SessionModel, gallery: Gallery, before: Fold, events: Sequence[Logged], ring: int) -> None:
    """Takes further events, in order and after all before, into a fold: all of them, or none where it raises.

    Raises:
        EngineFailed: as SessionModel.step.
    """
    speaking = [event for event in events if event.strength > 0]
    there, vectors = gallery.vectors([event.item_id for event in speaking])
    if there:
        known, state = set(there), before.state[np.newaxis]
        counted = (event.strength for event in speaking if event.item_id in known)
        for at, strength in enumerate(counted):
            state = model.step(vectors[at : at + 1], state, np.array([strength], np.float32))
        before.state = state[0]
        before.steps += len(there)
    before.note(events, ring)


def taste(model: SessionModel, folded: Fold) -> Taste:
    """What is known of the user now.

    Raises:
        EngineFailed: as SessionModel.queries.
    """
    query = model.queries(folded.state[np.newaxis])[0] if folded.steps else None
    return Taste(
        query=query if query is not None and query.any() else None,
        seen=frozenset(folded.seen),
        liked=tuple(reversed(folded.liked)),
        disliked=tuple(reversed(folded.disliked)),
        events=folded.steps,
        model=model.identity,
    )
