"""What the exact scan should reach, and whether it does; judged on the variant and the basis that the server uses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from matchcut.kernels.bench.spec import Figure

WIDE = ("amx", "avx512vnni")  # variants of the class that the first number is for; the second is for all others
Ratio = Literal["faster_than_flat", "faster_than_panorama", "of_read"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio at one batch size and k: wanted at least where it says faster, else at most; by class of processor."""

    section: str
    batch: int
    k: int
    ratio: Ratio
    wide: float
    narrow: float


GOALS = (
    Goal("random512", 1, 10, "faster_than_flat", 4.5, 4.0),
    Goal("random512", 1, 10, "of_read", 1.15, 1.25),
    Goal("random512", 8, 10, "faster_than_flat", 6.0, 2.2),
    Goal("random512", 64, 10, "faster_than_flat", 7.0, 1.5),
    Goal("random512", 1, 100, "faster_than_flat", 4.0, 3.5),
    Goal("random512", 64, 100, "faster_than_flat", 4.0, 1.3),
    Goal("spectrum1280", 1, 10, "faster_than_panorama", 2.5, 2.5),
    Goal("spectrum1280", 1, 100, "faster_than_panorama", 2.0, 2.0),
    Goal("spectrum1280", 16, 10, "faster_than_panorama", 5.0, 3.0),
    Goal("spectrum1280", 64, 10, "faster_than_panorama", 5.0, 3.0),
    Goal("spectrum1280", 1, 10, "of_read", 0.25, 0.25),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and what was reached."""

    section: str
    what: str
    who: str
    reached: float
    wanted: float
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether it was."""
        return self.reached >= self.wanted if self.at_least else self.reached <= self.wanted

    def __str__(self) -> str:
        met, sign = "met   " if self.met else "MISSED", ">=" if self.at_least else "<="
        return f"{met} {self.section:13} {self.what:34} {self.reached:6.2f} {sign} {self.wanted:.2f}  {self.who}"


def judged(
    section: str, figures: Iterable[Figure], *, batch: int, k: int, variant: str, basis: str
) -> Iterator[Verdict]:
    """Verdicts on the figures of one batch size and k; `basis` is the setting of the contender to judge."""
    own = [one for one in figures if one["who"] == f"matchcut {variant}" and one["setting"] == basis]
    for goal in GOALS:
        if (goal.section, goal.batch, goal.k) != (section, batch, k):
            continue
        for one in own:
            reached = one[goal.ratio]
            if reached is not None:
                what, who = f"B={batch} k={k} {goal.ratio.replace('_', ' ')}", f"{variant}, {basis}"
                wanted = goal.wide if variant in WIDE else goal.narrow
                yield Verdict(section, what, who, reached, wanted, at_least=goal.ratio != "of_read")
