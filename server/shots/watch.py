"""From decoded pictures to used frames and cuts."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator

from matchcut.server.records import Cut, Frame, Picture, ShotMode
from matchcut.server.shots.coarse import CoarseDetector
from matchcut.server.shots.exact import SHORTEST_SHOT, ShotDetector

SPARE_EVERY = SHORTEST_SHOT - 1  # one picture in so many is kept as a spare: every shot has one
SPARES_KEPT = 8  # a spare holds a decoded picture, 3 MB at 1080p


class _Shot:
    """The current shot: pictures that wait to be settled, and spares for the case that none of it is used."""

    def __init__(self) -> None:
        self.waiting: deque[Frame | Picture] = deque()
        self._start_us = 0
        self._used = False
        self._spares: list[Picture] = []
        self._every = 1
        self._offered = 0

    def settle(self, before_us: int) -> Iterator[Frame]:
        """The frames before this time, which belong to the current shot for good."""
        while self.waiting and self.waiting[0].time_us < before_us:
            settled = self.waiting.popleft()
            if isinstance(settled, Frame):
                self._used = True
                self._spares.clear()
                yield settled
            elif not self._used:
                self._keep(settled)

    def end(self, end_us: int) -> Iterator[Frame]:
        """The rest of the shot, and where none of it was used, the picture nearest to its middle. Starts the next."""
        yield from self.settle(end_us)
        if self._spares:
            middle_us = (self._start_us + end_us) // 2
            yield _frame(min(self._spares, key=lambda spare: abs(spare.time_us - middle_us)))
        self._start_us, self._used, self._spares, self._every, self._offered = end_us, False, [], 1, 0

    def _keep(self, spare: Picture) -> None:
        if self._offered % self._every == 0:
            self._spares.append(spare)
        self._offered += 1
        if len(self._spares) > SPARES_KEPT:
            del self._spares[1::2]
            self._every *= 2


def _frame(picture: Picture) -> Frame:
    return Frame(picture.time_us, picture.rgb())


def _at_once(pictures: Iterator[Picture], detector: CoarseDetector | None) -> Iterator[Frame | Cut]:
    for picture in pictures:
        if picture.due:
            if detector is not None:
                yield from map(Cut, detector.push(picture.time_us, picture.look()))
            yield _frame(picture)


def _settled(pictures: Iterator[Picture], detector: ShotDetector) -> Iterator[Frame | Cut]:
    shot = _Shot()
    last_us = 0
    for number, picture in enumerate(pictures):
        last_us = picture.time_us
        cuts = detector.push(last_us, picture.look())
        if picture.due:
            shot.waiting.append(_frame(picture))
        elif number % SPARE_EVERY == 0:
            shot.waiting.append(picture)
        for cut_us in cuts:
            yield from shot.end(cut_us)
            yield Cut(cut_us)
        yield from shot.settle(detector.settled_us)
    for cut_us in detector.finish():
        yield from shot.end(cut_us)
        yield Cut(cut_us)
    yield from shot.end(last_us + 1)


def watch(pictures: Iterator[Picture], mode: ShotMode) -> Generator[Frame | Cut, None, None]:
    """Turns pictures into the frames to be used and the cuts, in the order of time: a cut comes before its shot.

    Used are the due pictures and, in EXACT mode, the one nearest to the middle of each shot that has none due. EXACT
    answers REACH pictures late, up to RUN_MOST more in a transition, and holds some ten decoded pictures meanwhile;
    COARSE and OFF answer at once. Looks are asked for in EXACT mode of every picture, in COARSE of those that are due,
    in OFF of none. Closing it closes `pictures`.
    """
    try:
        if mode is ShotMode.EXACT:
            yield from _settled(pictures, ShotDetector())
        else:
            yield from _at_once(pictures, CoarseDetector() if mode is ShotMode.COARSE else None)
    finally:
        close = getattr(pictures, "close", None)
        if close is not None:
            close()
