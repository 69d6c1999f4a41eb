"""Whether a new session model may take the place of the one that is served: on the last day, which it has not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.metrics import Doubles, Indices, Interval, difference, interval
from matchcut.server.session.contract import SessionModel
from matchcut.server.training.session.batches import Histories
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.judging import Held, histories, model_answers, values

__all__ = ["DAY", "Verdict", "compare", "later", "parted_at", "usual"]

DAY = 86_400  # seconds
MOST = 5  # events of a user that are looked at


@dataclass(frozen=True, slots=True)
class Verdict:
    """NDCG@10 of both, a value a user: means with their intervals, and by how much the new one is better.

    better: the new one's mean is at least the old one's.
    """

    new: Interval
    old: Interval
    gain: Interval
    users: int
    better: bool


def parted_at(data: Dataset, seconds: int) -> Dataset:
    """What happened before a time, in seconds since the epoch; the items stay all."""
    found = data.only(np.flatnonzero(data.events.times < seconds))
    if not len(found.events):
        raise InvalidInput("all events are of the days that are held out; let more gather, or hold out fewer")
    return found


def usual(data: Dataset, days: float) -> int:
    """When the last so many days began, by the newest event."""
    return int(data.events.times.max() - days * DAY) + 1


def later(data: Dataset, seconds: int) -> Held:
    """The first few events from a time on, each to be found from all that the user did before it.

    Users without a history take no part: no model knows anything of them.
    """
    events = data.events
    whole, users = histories(data), np.unique(events.users)
    counts = np.bincount(events.users[events.times < seconds], minlength=len(events.user_ids))[users]
    before: Histories = []
    targets: list[int] = []
    owners: list[int] = []
    for owner, ((items, strengths), count) in enumerate(zip(whole, counts, strict=True)):
        for at in range(int(count), min(len(items), int(count) + MOST)) if count else ():
            before.append((items[:at], strengths[:at]))
            targets.append(int(items[at]))
            owners.append(owner)
    return Held(before, np.array(targets, np.int64), np.array(owners, np.int64))


def compare(new: SessionModel, old: SessionModel, data: Dataset, seconds: int, *, seed: int = 0) -> Verdict:
    """Judges both by full ranking of the events from a time on; items seen before are no candidates, but for those that
    come again.

    Args:
        new, old: made for the data's encoder. new must have been trained on what is before that time alone; that old
            has, or on less, is what makes it fair.

    Raises:
        InvalidInput: nobody who did anything before that time did anything after it.
        EngineFailed: a model cannot be run.
    """
    held = later(data, seconds)
    if not len(held.targets):
        raise InvalidInput(
            "nobody who was there before the days that are held out did anything in them; hold out more days",
            field="holdout",
        )
    mine, theirs = (of_users(worth(model, data, held), held.users) for model in (new, old))
    ours, before, gain = interval(mine, seed=seed), interval(theirs, seed=seed), difference(mine, theirs, seed=seed)
    return Verdict(ours, before, gain, len(mine), ours.mean >= before.mean)


def worth(model: SessionModel, data: Dataset, held: Held) -> Doubles:
    """NDCG@10 of each event to be found."""
    return values(model_answers(model, data, held.histories), held, seen=False)["ndcg"]


def of_users(each: Doubles, users: Indices) -> Doubles:
    """The mean of each user's values, so that nobody counts twice."""
    _, places, counts = np.unique(users, return_inverse=True, return_counts=True)
    made: Doubles = np.bincount(places, weights=each) / counts
    return made
