"""Which sequence gives way to a new one where a model has as many as it may have.

Nobody who is gone, and nobody who takes all, may lock others out:

- An owner who holds less than its share of the places, which is the same for all who are at it, gets one. What has been
  idle the longest gives way: of the sequences of whoever holds the most, where that is more than a share, else of all
  that have been idle for STALE seconds, whosever they are.
- An owner who has its share gets more only in place of its own, where those have been idle for as long.

At it is who had a step under way within the last STALE seconds, and the newcomer: those who have gone make nobody's
share smaller. A sequence with a step under way never gives way. So where all are busy and none holds more than its
share, the newcomer is refused.

As a sequence goes to the end of its owner's whenever a step of it comes or ends, what is looked for stands in front:
all sequences are locked meanwhile, and who begins one in vain, again and again, must not hold up the steps of others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sized
from typing import Protocol, TypeVar

__all__ = ["STALE", "Number", "giving_way", "idle_since"]

STALE = 10.0  # seconds without a step, after which a sequence is taken for one that nobody goes on with


class Kept(Protocol):
    """What is asked of a sequence. line: its steps that are not done. used: when the last of those that are ended."""

    @property
    def line(self) -> Sized: ...
    @property
    def used(self) -> float: ...


Number = int | str
K = TypeVar("K", bound=Kept)
Idle = tuple[float, int, Hashable, Number]  # when it was used, how many its owner holds, who that is, its own number
Owners = Mapping[Hashable, "OrderedDict[Number, K]"]


def giving_way(owners: Owners[K], newcomer: Hashable, *, most: int, now: float) -> tuple[Hashable, Number] | None:
    """Owner and number of the sequence that ends so that the newcomer can begin one; None: the newcomer is refused.

    Args:
        owners: all sequences, by owner and number; of an owner those last of which a step came or ended last.
        most: how many there may be, all owners together.
        now: in seconds, on the clock by which `used` is.
    """
    others, first = 0, list[Idle]()  # of each owner the one that is idle the longest
    for owner, of_owner in owners.items():
        others += owner != newcomer and at_it(of_owner, now)
        for number, one in of_owner.items():
            if not one.line:
                first.append((one.used, len(of_owner), owner, number))
                break
    share = max(1, most // (others + 1))
    if len(owners.get(newcomer, ())) >= share:
        return longest_idle([each for each in first if each[2] == newcomer], before=now - STALE)
    largest = max((held for _, held, owner, _ in first if owner != newcomer), default=0)
    if largest > share:
        return longest_idle([each for each in first if each[1] == largest and each[2] != newcomer], before=now)
    return longest_idle(first, before=now - STALE)


def idle_since(owners: Owners[K], before: float) -> list[tuple[Hashable, Number]]:
    """Those that were used last before then and have no step under way; the same is known of their order."""
    found: list[tuple[Hashable, Number]] = []
    for owner, of_owner in owners.items():
        for number, one in of_owner.items():
            if one.line:
                continue
            if one.used >= before:
                break
            found.append((owner, number))
    return found


def at_it(of_owner: OrderedDict[Number, K], now: float) -> bool:
    """Whether an owner had a step under way lately."""
    last = next(reversed(of_owner.values()))
    return bool(last.line) or now - last.used < STALE or any(one.line for one in of_owner.values())


def longest_idle(idle: list[Idle], *, before: float) -> tuple[Hashable, Number] | None:
    """The one that was used first, if that was by then."""
    used, _, owner, number = min(idle, key=lambda each: each[0], default=(float("inf"), 0, None, 0))
    return (owner, number) if used <= before else None
