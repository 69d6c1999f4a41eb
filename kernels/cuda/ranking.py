"""Exact ranking on a GPU: sample, threshold, scan, threshold, exact scores, threshold, places.

1. `sample` looks at some tiles; `kth` makes of them a score tau that k groups are known to reach.
2. `scan` reads all codes once and lists the pairs whose upper bound reaches tau; `tails` reads the rest of theirs. For
   many queries it stops once on the way: lower bounds of what was found by then make a higher tau (`lowers`, `kth`).
3. With the tau of all lower bounds, pairs whose upper bound does not reach it go (`narrow`).
4. `exact` scores what is left in float64, in the very order of score.exact_score; the k-th of these is the last tau.
5. `finalists`, `leaders`, `places`: the best pair of each group, best first, equal scores by the lower row.

No step drops a pair of the answer, as each drops only what lies under a score that k groups reach: the argument of
codes.py. Lists have room for so many pairs; one that overflows is counted on, and its query asked again with more.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.cuda.lane import Lane
from matchcut.kernels.cuda.memory import Pending
from matchcut.kernels.cuda.one_pass import Answer, Pass, Task
from matchcut.kernels.cuda.workspace import Workspace
from matchcut.kernels.launch.ranking import Questions
from matchcut.kernels.launch.scans import FEW, MANY

_CAPACITY = {FEW: 262_144, MANY: 65_536}  # pairs of a query that a list has room for at first
_AT_ONCE = 4  # passes under way before the first is waited for


def rank(lane: Lane, task: Task, questions: Iterable[Questions], groups: NDArray[np.int64]) -> list[Answer]:
    """Answers of all queries, in order; each of `questions` holds those of one pass.

    While the device is busy with some, the next ones are asked for.

    Args:
        groups: (n,) int64, on the host.
    """
    answers: list[Answer] = []
    space = Workspace(lane)
    under_way: list[tuple[Pass, Pending]] = []
    asked_for = 0

    def arrive() -> None:
        lane.synchronize()
        for run, pending in under_way:
            arrived = run.answers(pending.array(), groups)
            run.end()
            answers.extend(answer or run.again(query, groups) for query, answer in enumerate(arrived))
        under_way.clear()

    for asked in questions:
        excluded = None
        if task.excluded is not None:
            excluded = task.excluded[asked_for : asked_for + len(asked.margin)]
        asked_for += len(asked.margin)
        run = Pass(space, task, asked, excluded, _CAPACITY[asked.scan.columns])
        under_way.append((run, run.launch()))
        if len(under_way) == _AT_ONCE:
            arrive()
    arrive()
    return answers
