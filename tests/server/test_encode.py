"""Frames to embeddings: batches, order, still frames, and an engine that fails."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from matchcut.server.clock import Clock
from matchcut.server.encode import Encoding
from matchcut.server.records import Cut, Embedding, Floats, Frame, MediaReport, Pixels


class Means:
    """An engine and a device in one: the embedding is the picture's mean, twice."""

    encoder: Any = SimpleNamespace(mean=(0,), std=(1,), layout="NHWC")
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


def encoded(
    events: Sequence[Frame | Cut], *, batch: int = 4, still: float = 0, idle: bool = False, means: Means | None = None
) -> tuple[list[tuple[int, float] | Cut], Means, MediaReport]:
    means, report = means or Means(), MediaReport()
    encoding = Encoding(means, means, batch=batch, still=still)  # type: ignore[arg-type]
    out = encoding((event for event in events), idle=lambda: idle, clock=Clock(), report=report)
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
    encoding = Encoding(means, means, batch=4, still=1)  # type: ignore[arg-type]
    out = encoding(source(), idle=lambda: False, clock=Clock(), report=MediaReport())
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
