"""What serving should reach, mostly beside Triton in the same rounds, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from scan_goals import Verdict
from serving_peers import OURS, TRITON
from serving_rows import Bench

TRITON_RELOAD = 44.0  # ms: its worst request while a model was replaced, where it was first measured


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure of ours.

    of: the row and server that it is a ratio to, in the median round; None: it is absolute, in the worst round.
    median: also where it is absolute.
    """

    row: str
    metric: str
    wanted: float
    of: tuple[str, str] | None = None
    at_least: bool = False
    median: bool = False


UNARY = ("frame unary", TRITON)
GOALS = (
    Goal("frame unary", "p50", 0.9, UNARY),
    Goal("frame unary", "p99", 0.9, UNARY),
    Goal("frame stream", "p50", 0.7, UNARY),
    Goal("step stream", "p50", 1.0, ("step stream", TRITON)),
    Goal("step unary", "p50", 1.0, ("step unary", TRITON)),
    Goal("frame c=8", "rate", 1.0, ("frame c=8", TRITON), at_least=True),
    Goal("jpeg c=1 jpeg", "rate", 3.0, ("jpeg c=1 raw", OURS), at_least=True),
    Goal("jpeg c=8 jpeg", "rate", 3.0, ("jpeg c=8 raw", OURS), at_least=True),
    Goal("deadline", "wasted", 0),
    Goal("slot held", "freed", 0.05),
    Goal("slot held-default", "freed", 0.05),
    Goal("reload", "failed", 0),
    Goal("reload", "worst", TRITON_RELOAD),
    Goal("reload", "worst", 1.0, ("reload", TRITON)),
    Goal("reload", "worst_to_p99", 2.0, median=True),  # one call against a few hundred: a single round says little
)


def judged(bench: Bench) -> Iterator[Verdict]:
    """Verdicts on what was measured; a goal beside a server that is not there is left out."""
    for goal in GOALS:
        own = bench.series(goal.row, OURS, goal.metric)
        if not own:
            continue
        if goal.median:
            reached, what = median(own), f"{goal.metric}, median"
        elif goal.of is None:
            reached, what = max(own), f"{goal.metric}, worst of {len(own)}"
        else:
            ratio = bench.ratio(goal.row, OURS, goal.metric, to=goal.of)
            if ratio is None:
                continue
            reached, what = ratio, f"{goal.metric} to {goal.of[1]}'s of {goal.of[0]}"
        yield Verdict(goal.row, what, OURS, reached, goal.wanted, at_least=goal.at_least)
