"""Frames to embeddings: batches, order, still frames, runs shared with others, and an engine that fails."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from matchcut.server.batcher import Batcher
from matchcut.server.clock import Clock
from matchcut.server.encode import Encoding
from matchcut.server.errors import Cancelled, DeadlineExceeded, EngineFailed, Overloaded
from matchcut.server.feed import Caller
from matchcut.server.records import Cut, Embedding, Floats, Frame, MediaReport, Pixels, StageTime
from matchcut.server.sight import Sight, shared, tune
from support.batching import PATIENCE, Record


class Means:
    """An engine and a device in one: the embedding is the picture's mean, twice."""

    encoder: Any = SimpleNamespace(
        mean=(0,),
        std=(1,),
        layout="NHWC",
        input=SimpleNamespace(width=8, height=8),
        identity=SimpleNamespace(name="means"),
        shape=lambda n: (n, 8, 8, 3),
    )
    variant = "means"

    def __init__(self) -> None:
        self.runs: list[int] = []

    def preprocess(self, frames: Pixels, *_: object) -> Floats:
        return frames.astype(np.float32)

    def run(self, batch: Floats) -> Floats:
        self.runs.append(len(batch))
        return np.repeat(batch.mean(axis=(1, 2, 3))[:, None], 2, axis=1)


def frame(at: int, level: int) -> Frame:
    rgb = np.full((8, 8, 3), level, np.uint8)
    rgb[:4] += 5
    rgb[4:] -= 5
    return Frame(at, rgb)


def blank(at: int) -> Frame:
    return Frame(at, np.full((8, 8, 3), 16, np.uint8))


def batcher_of(means: Means, *, most: int = 16, queue: int = 16, record: Record | None = None) -> Batcher:
    return shared(means, most=most, queue=queue, watcher=record)  # type: ignore[arg-type]


def encoding_of(means: Means, batcher: Batcher, *, batch: int = 4, still: float = 0) -> Encoding:
    return Encoding(Sight(means, batcher, means), batch=batch, still=still)  # type: ignore[arg-type]


def encoded(
    events: Sequence[Frame | Cut],
    *,
    batch: int = 4,
    still: float = 0,
    idle: bool = False,
    most: int = 16,
    clock: Clock | None = None,
) -> tuple[list[tuple[int, float] | Cut], Means, MediaReport]:
    means, report = Means(), MediaReport()
    encoding = encoding_of(means, batcher_of(means, most=most), batch=batch, still=still)
    source = (event for event in events)
    out = encoding(source, idle=lambda: idle, clock=clock or Clock(), report=report, caller=Caller())
    return [(e.time_us, float(e.vector[0])) if isinstance(e, Embedding) else e for e in out], means, report


def test_small_batches_in_order_with_the_cuts_between() -> None:
    events: list[Frame | Cut] = [frame(0, 10), frame(1, 20), Cut(2), frame(2, 30), frame(3, 40), frame(4, 50), Cut(5)]
    out, means, report = encoded(events)
    assert out == [(0, 10), (1, 20), Cut(2), (2, 30), (3, 40), (4, 50), Cut(5)]
    assert means.runs == [4, 1]
    assert (report.frames_used, report.frames_reused) == (5, 0)


def test_what_is_at_hand_is_encoded_when_the_sender_pauses() -> None:
    _, means, _ = encoded([frame(at, at) for at in range(3)], idle=True)
    assert means.runs == [1, 1, 1]


def test_still_frames_reuse_the_embedding_before_them() -> None:
    events = [frame(0, 10), frame(1, 10), frame(2, 90), frame(3, 90), frame(4, 10)]
    out, means, report = encoded(events, still=1)
    assert out == [(0, 10), (1, 10), (2, 90), (3, 90), (4, 10)]
    assert means.runs == [3]
    assert report.frames_reused == 2


def test_a_still_frame_right_after_a_batch_reuses_the_last_vector() -> None:
    events = [frame(0, 10), frame(1, 20), frame(2, 20), frame(3, 20)]
    out, means, _ = encoded(events, batch=2, still=1)
    assert out == [(0, 10), (1, 20), (2, 20), (3, 20)]
    assert means.runs == [2]


def test_hours_of_still_video_do_not_pile_up() -> None:
    pulled = 0

    def source() -> Generator[Frame | Cut, None, None]:
        nonlocal pulled
        for at in range(1000):
            pulled += 1
            yield frame(at, 7)

    means = Means()
    encoding = encoding_of(means, batcher_of(means), still=1)
    out = encoding(source(), idle=lambda: False, clock=Clock(), report=MediaReport(), caller=Caller())
    next(out)
    assert pulled <= 8 * 4
    out.close()


def test_no_frames_no_run() -> None:
    out, means, _ = encoded([Cut(3)])
    assert out == [Cut(3)]
    assert means.runs == []


def test_frames_that_show_nothing_are_left_out() -> None:
    out, means, report = encoded([blank(0), frame(1, 20), blank(2), Cut(3), blank(3), frame(4, 40)])
    assert out == [(1, 20), Cut(3), (4, 40)]
    assert means.runs == [2]
    assert (report.frames_used, report.frames_blank) == (2, 3)


def test_where_all_show_nothing_the_last_stands_for_all() -> None:
    out, means, report = encoded([blank(5), blank(6), Cut(7), blank(8)])
    assert out == [Cut(7), (8, 16)]
    assert means.runs == [1]
    assert (report.frames_used, report.frames_blank) == (1, 3)


def stages(clock: Clock) -> dict[str, StageTime]:
    return {stage.name: stage for stage in clock.times().stages}


def test_one_run_takes_no_more_than_all_requests_together_may_have() -> None:
    out, means, _ = encoded([frame(at, 10 + at) for at in range(5)], batch=4, most=2)
    assert out == [(at, 10 + at) for at in range(5)]
    assert means.runs == [2, 2, 1]


def test_the_stage_times_say_how_long_it_waited_and_with_how_many_it_ran() -> None:
    clock = Clock()
    encoded([frame(at, 10 + at) for at in range(6)], batch=4, clock=clock)
    encode, queue = stages(clock)["encode"], stages(clock)["queue"]
    assert encode.counts == {"frames": 6, "runs": 2, "batched": 6}
    assert encode.variant == "means"
    assert queue.counts == {}
    assert [name for name in stages(clock) if name in ("preprocess", "queue", "encode")] == [
        "preprocess",
        "queue",
        "encode",
    ]
    assert queue.wall_us >= 0
    assert encode.wall_us >= 0


class HeldMeans(Means):
    """Its first run waits, and fails on pictures that are all black."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go = Event(), Event()

    def run(self, batch: Floats) -> Floats:
        if not self.runs:
            self.runs.append(len(batch))
            self.begun.set()
            assert self.go.wait(PATIENCE)
            self.runs.pop()
        if not batch.any(axis=(1, 2, 3)).all():
            self.runs.append(len(batch))
            raise EngineFailed("a black picture")
        return super().run(batch)


class Sender(Thread):
    """A request of its own, with frames of these levels."""

    def __init__(self, encoding: Encoding, *levels: int, caller: Caller | None = None) -> None:
        super().__init__(daemon=True)
        self.caller, self.clock = caller or Caller(), Clock()
        self.vectors: list[float] = []
        self.error: Exception | None = None
        self._encoding, self._levels = encoding, levels
        self.start()

    def run(self) -> None:
        frames = (
            Frame(at, np.zeros((8, 8, 3), np.uint8)) if level < 0 else frame(at, level)
            for at, level in enumerate(self._levels)
        )
        try:
            for event in self._encoding(
                frames, idle=lambda: False, clock=self.clock, report=MediaReport(), caller=self.caller
            ):
                assert isinstance(event, Embedding)
                self.vectors.append(float(event.vector[0]))
        except Exception as error:
            self.error = error

    def over(self) -> list[float]:
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.vectors


def test_frames_of_several_requests_share_a_run() -> None:
    means, record = HeldMeans(), Record()
    encoding = encoding_of(means, batcher_of(means, record=record))
    first = Sender(encoding, 10)
    assert means.begun.wait(PATIENCE)
    others = []
    for waiting, levels in ((2, (20, 30)), (3, (40,)), (6, (50, 60, 70))):
        others.append(Sender(encoding, *levels))
        record.waiting(waiting)
    means.go.set()
    assert first.over() == [10]
    assert [other.over() for other in others] == [[20, 30], [40], [50, 60, 70]]
    assert means.runs == [1, 6]
    for other, frames in zip(others, (2, 1, 3), strict=True):
        assert stages(other.clock)["encode"].counts == {"frames": frames, "runs": 1, "batched": 6}
        assert stages(other.clock)["queue"].wall_us > 0


def test_a_picture_that_the_engine_fails_on_fails_its_own_request_only() -> None:
    means, record = HeldMeans(), Record()
    encoding = encoding_of(means, batcher_of(means, record=record))
    first = Sender(encoding, 10)
    assert means.begun.wait(PATIENCE)
    good = Sender(encoding, 20)
    record.waiting(1)
    bad = Sender(encoding, -1)  # blank, and as the only one it stands for all
    record.waiting(2)
    means.go.set()
    assert first.over() == [10]
    assert good.over() == [20]
    assert bad.over() == []
    assert isinstance(bad.error, EngineFailed)
    assert means.runs == [1, 2, 1, 1]


def test_whoever_leaves_while_it_waits_is_not_encoded() -> None:
    means, record = HeldMeans(), Record()
    encoding = encoding_of(means, batcher_of(means, record=record))
    first = Sender(encoding, 10)
    assert means.begun.wait(PATIENCE)
    leaving = Sender(encoding, 20, 30)
    record.waiting(2)
    leaving.caller.leave()
    assert leaving.over() == []  # the engine still runs for the first
    assert isinstance(leaving.error, Cancelled)
    means.go.set()
    assert first.over() == [10]
    assert means.runs == [1]


def test_a_full_queue_and_a_deadline_that_has_passed_are_told() -> None:
    means, record = HeldMeans(), Record()
    encoding = encoding_of(means, batcher_of(means, most=2, queue=2, record=record), batch=2)
    first = Sender(encoding, 10)
    assert means.begun.wait(PATIENCE)
    second = Sender(encoding, 20, 30)
    record.waiting(2)
    refused, late = Sender(encoding, 40), Sender(encoding, 50, caller=Caller(deadline=0))
    assert refused.over() == late.over() == []
    assert isinstance(refused.error, Overloaded)
    assert isinstance(late.error, DeadlineExceeded)
    means.go.set()
    assert first.over() == [10]
    assert second.over() == [20, 30]


def test_the_engine_is_measured_with_pictures_of_its_own_shape() -> None:
    means = Means()
    batcher = batcher_of(means, most=8)
    assert tune(batcher, means) == batcher.size <= 8  # type: ignore[arg-type]
    assert means.runs[0] == 1
    assert set(means.runs) <= {1, 2, 4, 8}


def test_an_engine_that_fails_is_told() -> None:
    means = HeldMeans()
    means.go.set()
    with pytest.raises(EngineFailed, match="a black picture"):
        tune(batcher_of(means), means)  # type: ignore[arg-type]
