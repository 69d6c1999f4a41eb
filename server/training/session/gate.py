"""Whether a new session model may take the place of the one that is served: on the last day, which it has not seen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from matchcut.server.errors import MatchcutError
from matchcut.server.evaluation.metrics import Doubles, Indices, Interval, difference, interval
from matchcut.server.session.contract import SessionModel
from matchcut.server.training.session.batches import Histories
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.judging import Held, histories, model_answers, values

__all__ = ["DAY", "LEAST", "TooFewToJudge", "Verdict", "compare", "judges", "later", "parted_at", "usual"]

DAY = 86_400  # seconds
MOST = 5  # events of a user that are looked at
LONGEST = 3660  # days that are tried
LEAST = 5  # users by whom it is judged; the means of fewer say nothing


class TooFewToJudge(MatchcutError):
    """The days that are held out tell too little to compare two models by."""

    code = "FAILED_PRECONDITION"
    reason = "TOO_FEW_TO_JUDGE"


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
        raise TooFewToJudge("all events are of the days that are held out; let more gather, or hold out fewer")
    return found


def newest(data: Dataset, now: float) -> int:
    """Seconds of the newest event that is not after `now`: clocks of users may be ahead. Where all are, of the last."""
    times = data.events.times
    past = times[times <= now]
    return int((past if len(past) else times).max())


def usual(data: Dataset, days: float, *, now: float = math.inf) -> int:
    """When the last so many days began, by the newest event that is not after `now` (seconds since the epoch)."""
    return int(newest(data, now) - days * DAY) + 1


def judges(data: Dataset, days: float, *, now: float = math.inf) -> int:
    """How many users did something both before the last so many days and in them.

    Raises:
        TooFewToJudge: fewer than LEAST; says how many days would do.
    """
    firsts, lasts = spans(data)

    def there(some: float) -> int:
        since = usual(data, some, now=now)
        return int(((firsts < since) & (lasts >= since)).sum())

    count = there(days)
    if count >= LEAST:
        return count
    # The nearest span that has enough, longer ones first: whole days, and below one day whole hours.
    whole = range(1, min(int((newest(data, now) - firsts.min()) // DAY) + 1, LONGEST) + 1)
    spans_of_time = [round(hours / 24, 3) for hours in range(1, 24)] + [float(each) for each in whole]
    longer = (each for each in spans_of_time if each > days)
    shorter = (each for each in reversed(spans_of_time) if each < days)
    found = next((each for each in (*longer, *shorter) if there(each) >= LEAST), None)
    hint = "no other number of days has enough; let events gather" if found is None else f"--holdout {found:g} would do"
    raise TooFewToJudge(
        f"{count} users did something both before the last {days:g} days and in them; it takes {LEAST} to judge by: "
        f"{hint}. --force serves the model without a judgement",
        field="holdout",
    )


def spans(data: Dataset) -> tuple[Indices, Indices]:
    """Seconds of each user's first and last event; users without any are left out."""
    events = data.events
    size = len(events.user_ids)
    firsts, lasts = np.full(size, np.iinfo(np.int64).max), np.full(size, -1, np.int64)
    np.minimum.at(firsts, events.users, events.times)
    np.maximum.at(lasts, events.users, events.times)
    there = lasts >= 0
    return firsts[there], lasts[there]


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
        TooFewToJudge: nobody who did anything before that time did anything after it.
        EngineFailed: a model cannot be run.
    """
    held = later(data, seconds)
    if not len(held.targets):
        raise TooFewToJudge(
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
