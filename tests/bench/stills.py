"""How far a reused embedding is from the real one, by the gate's threshold: `python tests/bench/stills.py`.

Every frame of the demo's clips and of still video made here (photographs with noise, a thing that moves, fades and
subtitles; as they are and through x264) is encoded in float32. Then the gate runs over them at each threshold, and
what it would reuse is compared with what it replaces: the least cosine of a frame and of a mean over ten seconds, and
the share of frames reused, beside the share that a gate reuses which knows the cosines. A gate compares few of the
pairs that there are; so the least difference of any pair of near frames whose cosine is too small is given too: a
threshold up to that has made no mistake on any of them.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import av
import common
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from matchcut.kernels.preprocess import preprocess
from matchcut.server import decode, engines, models
from matchcut.server.records import Floats, InputSize, MediaLimits, MediaReport, Pixels, Sampling, ShotMode
from matchcut.server.sampling import Instants
from matchcut.server.stills import StillGate, difference

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.5)
RATES = (1.0, 2.0, 5.0, 1000.0)
GATE = 0.999
LAGS = (1, 2, 3, 4, 5, 7, 10, 14, 20, 30)
WINDOW_US = 10_000_000
LENGTH = 60  # frames of a made clip, 25 a second


@dataclass(slots=True)
class Video:
    """Frames with their times and unit vectors."""

    group: str
    frames: list[Pixels]
    times_us: list[int]
    vectors: Floats = field(default_factory=lambda: np.empty((0, 0), np.float32))

    def sampled(self, rate: float) -> Video:
        """The frames that a rate uses."""
        instants = Instants(rate)
        used = [at for at, time_us in enumerate(self.times_us) if instants.take(time_us)]
        times = [self.times_us[at] for at in used]
        return Video(self.group, [self.frames[at] for at in used], times, self.vectors[used])


@dataclass(slots=True)
class Found:
    """What a gate did to a group of videos."""

    frames: int = 0
    reused: int = 0
    cosine: float = 1.0
    pooled: float = 1.0

    def add(self, video: Video, chosen: Sequence[int]) -> None:
        """Takes a video and, for each of its frames, the number of the frame whose vector it gets."""
        taken = video.vectors[list(chosen)]
        self.frames += len(chosen)
        self.reused += sum(at != one for at, one in enumerate(chosen))
        self.cosine = min(self.cosine, float((taken * video.vectors).sum(axis=1).min()))
        windows = np.array(video.times_us) // WINDOW_US
        for window in np.unique(windows):
            a, b = (each[windows == window].mean(axis=0) for each in (taken, video.vectors))
            self.pooled = min(self.pooled, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))


def decoded(group: str, data: bytes) -> Video:
    """Every frame of a file at the encoder's size."""
    every = Sampling(rate_fps=1000.0, shots=ShotMode.OFF)
    report, limits = MediaReport(), MediaLimits()
    source = io.BytesIO(data)
    found = list(decode.pictures(source, size=InputSize(), sampling=every, limits=limits, report=report))
    return Video(group, [picture.rgb() for picture in found], [picture.time_us for picture in found])


def x264(frames: Sequence[Pixels], crf: int) -> bytes:
    """An MP4 file of the frames."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf), "g": "50", "preset": "veryfast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def noisy(picture: Pixels, sigma: float, seed: int) -> Pixels:
    """The picture as a sensor sees it."""
    noise = np.random.default_rng(seed).normal(0, sigma, picture.shape)
    return np.clip(np.rint(picture + noise), 0, 255).astype(np.uint8)


def drawn(picture: Pixels, at: int) -> Pixels:
    """With a subtitle in the middle third of the clip."""
    image = Image.fromarray(picture)
    if LENGTH // 3 <= at < 2 * LENGTH // 3:
        place = (picture.shape[1] // 4, picture.shape[0] * 9 // 10)
        ImageDraw.Draw(image).text(place, "and so it begins, again and again", fill=(255, 255, 255))
    return np.asarray(image)


def moved(picture: Pixels, at: int) -> Pixels:
    """With a thing of 5 x 5 pixels on its way from left to right."""
    frame = picture.copy()
    frame[150:155, 10 + 3 * at : 15 + 3 * at] = (40, 200, 40)
    return frame


def made() -> Iterator[Video]:
    """Still video of each kind, from each photograph and from a slide."""
    step = range(LENGTH)
    times = [at * 40_000 for at in step]
    for large in pictures():
        small = np.asarray(Image.fromarray(large).resize((224, 224), Image.Resampling.BOX))
        yield Video("noise of 0.3", [noisy(small, 0.3, at) for at in step], times)
        yield Video("noise of 1", [noisy(small, 1.0, at) for at in step], times)
        yield Video("small thing moves", [moved(small, at) for at in step], times)
        yield Video("slow fade", [(small * (1 - at / 600)).astype(np.uint8) for at in step], times)
        yield decoded("still, x264 crf 23", x264([large] * LENGTH, 23))
        yield decoded("noise of 1, x264 crf 23", x264([noisy(large, 1, at) for at in step], 23))
        yield decoded("noise of 2, x264 crf 18", x264([noisy(large, 2, at) for at in step], 18))
        yield decoded("subtitle, x264 crf 23", x264([drawn(large, at) for at in step], 23))


def pictures() -> Iterator[Pixels]:
    """What stands still: (480, 640, 3) uint8."""
    for name in ("cheetah", "lion", "tower"):
        yield np.asarray(Image.open(common.MEDIA / f"{name}.jpg").convert("RGB").resize((640, 480)))
    slide = Image.new("RGB", (640, 480), (240, 240, 230))
    for line in range(9):
        ImageDraw.Draw(slide).text(
            (50, 50 + 42 * line), f"{line}. what a slide says in its line {line}", fill=(9, 9, 60)
        )
    yield np.asarray(slide)


def gated(video: Video, threshold: float) -> list[int]:
    """For each frame the number of the frame whose vector it gets."""
    gate = StillGate(threshold)
    chosen: list[int] = []
    for at, frame in enumerate(video.frames):
        chosen.append(chosen[-1] if gate.same(frame) else at)
    return chosen


def knowing(video: Video) -> list[int]:
    """The same by a gate that knows the cosines."""
    chosen = [0]
    for at in range(1, len(video.frames)):
        close = float(video.vectors[chosen[-1]] @ video.vectors[at]) >= GATE
        chosen.append(chosen[-1] if close else at)
    return chosen


def safe(videos: Sequence[Video]) -> tuple[int, float]:
    """How many pairs of near frames were looked at, and the least difference of those whose cosine is too small."""
    pairs, least = 0, np.inf
    for video in videos:
        for lag in LAGS:
            cosines = (video.vectors[lag:] * video.vectors[:-lag]).sum(axis=1)
            pairs += len(cosines)
            for at in np.flatnonzero(cosines < GATE):
                least = min(least, difference(video.frames[at], video.frames[at + lag]))
    return pairs, least


def cost_us(videos: Sequence[Video]) -> NDArray[np.float64]:
    """CPU microseconds of the gate, of each frame."""
    spent = []
    for video in videos:
        gate = StillGate(0.6)
        for frame in video.frames:
            began = time.thread_time_ns()
            gate.same(frame)
            spent.append((time.thread_time_ns() - began) / 1e3)
    return np.array(spent)


def main() -> None:
    """Encodes everything, runs the gates, prints the table and appends it to the results."""
    core = common.pin()
    encoder = models.load(models.default_encoder(common.CACHE))
    engine = engines.load(encoder, engine="onnxruntime", threads=1)
    real = [decoded(name, common.clip(name).read_bytes()) for name in common.CLIPS]
    videos = [*real, *made()]
    print(f"{common.cpu()}, core {core}, {encoder.identity.name}, {engine.variant}")
    for video in videos:
        batches = [np.stack(video.frames[at : at + 8]) for at in range(0, len(video.frames), 8)]
        inputs = (preprocess(batch, encoder.mean, encoder.std, encoder.layout) for batch in batches)
        vectors = np.concatenate([engine.run(each) for each in inputs])
        video.vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    groups: dict[str, list[Video]] = {}
    for rate in RATES:
        name = "every frame" if rate == RATES[-1] else f"{rate:g} fps"
        groups[f"real, {name}"] = [video.sampled(rate) for video in real]
    for video in videos[len(real) :]:
        groups.setdefault(video.group, []).append(video)
    groups["all"] = videos
    rows: list[tuple[object, ...]] = []
    for group, members in groups.items():
        best = Found()
        for video in members:
            best.add(video, knowing(video))
        most = best.reused / best.frames
        print(f"{group}: {best.frames} frames, a gate that knows the cosines reuses {most:.3f}")
        for threshold in THRESHOLDS:
            found = Found()
            for video in members:
                found.add(video, gated(video, threshold))
            share = found.reused / found.frames
            verdict = "" if found.cosine >= GATE else "  too far"
            print(
                f"  below {threshold:<5}  reused {share:.3f}  least cosine {found.cosine:.5f}, "
                f"of ten seconds' mean {found.pooled:.5f}{verdict}"
            )
            figures = (f"{share:.4f}", f"{found.cosine:.6f}", f"{found.pooled:.6f}", f"{most:.4f}")
            rows.append((engine.variant, group, found.frames, threshold, *figures))
    pairs, least = safe(videos)
    print(f"of {pairs} pairs of near frames, the least difference of one whose cosine is below {GATE}: {least:.3f}")
    rows.append((engine.variant, "pairs of near frames", pairs, f"{least:.4f}", "", GATE, "", ""))
    spent = {"moving": cost_us(real), "still": cost_us(videos[len(real) :])}
    for what, each in spent.items():
        print(f"gate, {what}: median {statistics.median(each):.0f} us, p99 {np.percentile(each, 99):.0f} us a frame")
    columns = ("engine", "video", "frames", "threshold", "reused", "cosine_min", "pooled_cosine_min", "reused_at_best")
    common.keep("stills", columns, rows)


if __name__ == "__main__":
    main()
