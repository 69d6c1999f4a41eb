"""Judges the lists that a server showed by what their users then did."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from matchcut.server.errors import InvalidInput
from matchcut.server.evaluation.metrics import Doubles, Indices
from matchcut.server.evaluation.policy import Estimate, estimate, of_lists
from matchcut.server.events.anonymity import published
from matchcut.server.records import Exposure, Logged

__all__ = ["WINDOW_US", "Shown", "VariantReport", "by_variant", "judge"]

WINDOW_US = 24 * 3600 * 1_000_000
SURELY = 0.5  # propensity from which a position went to its best candidate, where exploration is at most this


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """All items shown of one variant, list after list, each from the first position on; n of them.

    rewards: (n,) float64, 1 where the user took to the item. propensities: (n,), given the items above. lists, users:
    (n,) int64 numbers.
    """

    rewards: Doubles
    propensities: Doubles
    lists: Indices
    users: Indices


@dataclass(frozen=True, slots=True)
class VariantReport:
    """How one variant of an experiment did ("" and "": without one).

    users: and value.groups, rounded down as all that is told of users; 0: fewer than threshold, see anonymity.
    value: mean reward an item shown, beside what it would have been without exploration, on the samples as logged.
    """

    experiment: str
    variant: str
    lists: int
    users: int
    value: Estimate
    threshold: int = 1

    def plain(self) -> dict[str, object]:
        """The same for JSON, which has no infinity: None where nothing is known."""
        value = {name: getattr(self.value, name) for name in Estimate.__slots__}
        for name in ("logged", "ips", "snips", "weight"):
            interval = value[name]._asdict()
            value[name] = {end: number if math.isfinite(number) else None for end, number in interval.items()}
        return {
            "experiment": self.experiment,
            "variant": self.variant,
            "lists": self.lists,
            "users": self.users,
            "anonymity": self.threshold,
            "value": value,
        }

    def text(self) -> str:
        """Some lines for people."""
        value = self.value
        clipped = f", {value.clipped} weights clipped" if value.clipped else ""
        told = (
            f"{'at least ' if self.threshold > 1 else ''}{self.users}" if self.users else f"fewer than {self.threshold}"
        )
        lines = [
            f"{self.experiment or '(no experiment)'} / {self.variant or '-'}: {value.samples} items shown in "
            f"{self.lists} lists to {told} users; intervals: 95% over users",
            f"  effective sample size {value.effective:.0f}, largest weight {value.largest:.2f}{clipped}",
        ]
        for name, of in (
            ("as shown", value.logged),
            ("IPS, no exploration", value.ips),
            ("SNIPS, no exploration", value.snips),
            ("mean weight", value.weight),
        ):
            lines.append(f"  {name:<22} {of.mean:.4f} [{of.low:.4f}, {of.high:.4f}]")
        return "\n".join(lines)


def judge(
    exposures: Iterable[tuple[str, Hashable, Exposure]],
    events: Iterable[tuple[str, Hashable, Logged]],
    answers: Iterable[tuple[str, Hashable, str, Logged]] = (),
    *,
    window_us: int = WINDOW_US,
) -> dict[tuple[str, str], Shown]:
    """What was shown and what came of it, by (experiment, variant).

    An item that was shown earns 1 if the same user did something of strength above 0 with it. An event that names a
    list counts for that one; any other for the last list before it that the item was in, if not longer ago than the
    window.

    Args:
        exposures: (tenant, user, exposure) in any order.
        events: (tenant, user, event) in any order, those that name a list may be among them.
        answers: (tenant, user, recommendation_id, event) of the events that name a list.
        window_us: microseconds.

    Raises:
        InvalidInput: window_us is below 1.
    """
    if window_us < 1:
        raise InvalidInput(f"window_us is {window_us}; it must be at least 1", field="window_us")
    ordered = sorted(exposures, key=lambda one: one[2].time_us)
    times: defaultdict[tuple[str, Hashable, str], list[int]] = defaultdict(list)
    places: defaultdict[tuple[str, Hashable, str], list[tuple[int, int]]] = defaultdict(list)
    earned = [[0.0] * len(exposure.shown) for _, _, exposure in ordered]
    for number, (tenant, user, exposure) in enumerate(ordered):
        for position, shown in enumerate(exposure.shown):
            times[tenant, user, shown.item_id].append(exposure.time_us)
            places[tenant, user, shown.item_id].append((number, position))
    named = set()
    for number, position, event_key in _named(ordered, answers):
        earned[number][position] = 1.0
        named.add(event_key)
    for tenant, user, event in events:
        if event.strength > 0 and (tenant, user, event.digest) not in named:
            key = tenant, user, event.item_id
            last = bisect_right(times.get(key, ()), event.time_us) - 1
            if last >= 0 and event.time_us - times[key][last] <= window_us:
                number, position = places[key][last]
                earned[number][position] = 1.0
    return _tables(ordered, earned)


def _named(
    ordered: list[tuple[str, Hashable, Exposure]], answers: Iterable[tuple[str, Hashable, str, Logged]]
) -> Iterator[tuple[int, int, tuple[str, Hashable, bytes]]]:
    """(list, position, event) of each event that names a list of its own user's which its item is in."""
    numbers = {
        (tenant, user, exposure.recommendation_id): number for number, (tenant, user, exposure) in enumerate(ordered)
    }
    for tenant, user, recommendation_id, event in answers:
        number = numbers.get((tenant, user, recommendation_id))
        if number is not None and event.strength > 0:
            for position, shown in enumerate(ordered[number][2].shown):
                if shown.item_id == event.item_id:
                    yield number, position, (tenant, user, event.digest)


def _tables(ordered: list[tuple[str, Hashable, Exposure]], earned: list[list[float]]) -> dict[tuple[str, str], Shown]:
    users: dict[tuple[str, Hashable], int] = {}
    rows: defaultdict[tuple[str, str], list[tuple[float, float, int, int]]] = defaultdict(list)
    for number, (tenant, user, exposure) in enumerate(ordered):
        owner = users.setdefault((tenant, user), len(users))
        for shown, reward in zip(exposure.shown, earned[number], strict=True):
            rows[exposure.experiment, exposure.variant].append((reward, shown.propensity, number, owner))
    made = {}
    for key in sorted(rows):
        rewards, propensities, lists, owners = zip(*rows[key], strict=True)
        made[key] = Shown(np.array(rewards), np.array(propensities), np.array(lists), np.array(owners))
    return made


def by_variant(
    judged: dict[tuple[str, str], Shown], *, clip: float | None = None, threshold: int = 1
) -> list[VariantReport]:
    """A report a variant, in the order of names.

    "No exploration" takes the best candidate at each position: a position that went to it has a propensity of at least
    0.5 and any other one less, as long as exploration was at most 0.5.

    Args:
        clip: see policy.estimate().
        threshold: for numbers of users, see anonymity; 1 tells them as they are.
    """
    reports = []
    for (experiment, variant), shown in judged.items():
        value = estimate(
            shown.rewards,
            of_lists(shown.propensities, shown.lists),
            of_lists((shown.propensities >= SURELY).astype(np.float64), shown.lists),
            groups=shown.users,
            clip=clip,
        )
        users = published(len(np.unique(shown.users)), threshold)
        value = replace(value, groups=users)
        reports.append(VariantReport(experiment, variant, len(np.unique(shown.lists)), users, value, threshold))
    return reports
