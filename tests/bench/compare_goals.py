"""What the comparison should reach, and whether it does. Ratios are those of the same round; the median counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from compare_load import Load, percentiles
from scan_goals import Verdict

PLAIN, PLAIN_BARE = "matchcut fp32", "bare fp32"
OURS, BARE = "matchcut", "bare"
TORCH = "glue opencv+torch"
LOADS = (1, 4, 8)
Taken = Mapping[str, Mapping[int, Sequence[Load]]]  # by system and callers, one for each round


@dataclass(frozen=True, slots=True)
class Goal:
    """CPU seconds a clip with one caller, at most so many times those of another; "glue": of the best one there."""

    who: str
    than: str
    wanted: float


GLUE = "glue"


def goals(full: str) -> tuple[Goal, ...]:
    """full: the name of matchcut's setting with everything on."""
    return (
        Goal(OURS, BARE, 1.05),
        Goal(PLAIN, PLAIN_BARE, 1.05),
        Goal(full, GLUE, 0.5),
        Goal(full, TORCH, 0.35),
    )


def ratio(taken: Taken, who: str, than: str, callers: int = 1) -> float | None:
    """The median of the rounds' ratios of CPU seconds a clip; None where one was not measured."""
    own, other = taken.get(who, {}).get(callers, ()), taken.get(than, {}).get(callers, ())
    pairs = list(zip(own, other, strict=False))
    return median(a.cpu_per_clip / b.cpu_per_clip for a, b in pairs) if pairs else None


def best_glue(taken: Taken) -> str:
    """The glue that costs the least; "" where there is none."""
    costs = {name: median(one.cpu_per_clip for one in by[1]) for name, by in taken.items() if name.startswith(GLUE)}
    return min(costs, key=lambda name: costs[name], default="")


def judged(taken: Taken, full: str, *, waits: bool = True) -> Iterator[Verdict]:
    """Verdicts on what was measured; a goal beside a system that is not there is left out. waits: judge these, too."""
    for goal in goals(full):
        than = best_glue(taken) if goal.than == GLUE else goal.than
        reached = ratio(taken, goal.who, than)
        if reached is not None:
            yield Verdict("CPU a clip", f"to {than}'s", goal.who, reached, goal.wanted, at_least=False)
    peers = [name for name in taken if name.startswith((GLUE, "triton"))]
    for callers in LOADS if peers and waits else ():
        p99 = {name: percentiles(taken[name][callers])[2] for name in (*peers, OURS, full) if callers in taken[name]}
        least = min((name for name in peers if name in p99), key=lambda name: p99[name], default="")
        for who in (OURS, full):
            if least and who in p99:
                yield Verdict(f"p99, c={callers}", f"to {least}'s", who, p99[who] / p99[least], 1.0, at_least=False)
