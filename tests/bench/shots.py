"""What looking at every picture costs, and what it finds, beside PySceneDetect.

    python tests/bench/shots.py [rounds]

Cost: CPU milliseconds a frame of a 720p clip, one core, steps that each contain the one before, in turn; the baseline
is `ffmpeg -threads 1 -f null`. Recall: the sequences of tests/server/test_shots.py, other seeds: spliced ones, and a
camera that moves over pictures without detail, where every cut is one too many. The other detectors (if `scenedetect`
is installed) see the same looks in BGR with their own defaults, except for a shortest scene of 5 pictures. Rows are
appended to results/shots.csv.
"""

from __future__ import annotations

import csv
import importlib
import importlib.util
import io
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from matchcut.server.decode import pictures
from matchcut.server.records import InputSize, MediaLimits, MediaReport, Picture, Pixels, Sampling, ShotMode
from matchcut.server.shots import ShotDetector, watch

ROOT = Path(__file__).parents[2]
MEDIA = ROOT / "build" / "media"
RESULTS = Path(__file__).parent / "results" / "shots.csv"
CLIP = MEDIA / "bigbuckbunny.mp4"
REPEATS = 5  # of the clip in one measurement, so that starting ffmpeg does not count for much
SPLICES = 40
FIRST_SEED = 1000
Detect = Callable[[Pixels], list[int]]
Row = tuple[object, ...]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{cpu()}, one core, PyAV {av.__version__}")
    rows = [*cost(rounds), *recall()]
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file)
        if file.tell() == 0:
            writer.writerow(["date", "cpu", "pyav", "what", "detector", "value", "unit", "extra"])
        writer.writerows([date.today().isoformat(), cpu(), av.__version__, *row] for row in rows)


# --- cost ------------------------------------------------------------------------------------------------------


def cost(rounds: int) -> Iterator[Row]:
    """CPU milliseconds a frame of each step, and the baseline's speed as a part of it."""
    data = CLIP.read_bytes()
    with av.open(str(CLIP), "r") as container:
        frames = sum(1 for _ in container.decode(video=0))
    steps: dict[str, Callable[[], object]] = {
        "PyAV, decoding alone": lambda: decode_alone(data),
        "and a look at every picture": lambda: [picture.look() for picture in all_pictures(data)],
        "and the detector": lambda: detected(data),
        "and 1 fps at 224 x 224 (watch)": lambda: list(watch(all_pictures(data), ShotMode.EXACT)),
    }
    if shutil.which("ffmpeg"):
        steps = {"ffmpeg": ffmpeg} | steps
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            start = seconds()
            for _ in range(1 if name == "ffmpeg" else REPEATS):
                step()
            taken[name].append((seconds() - start) / (frames * REPEATS) * 1000)
    baseline = statistics.median(next(iter(taken.values())))
    for name, each in taken.items():
        ratio = baseline / statistics.median(each)
        print(f"{name:32} {statistics.median(each):7.3f} ms/frame   {ratio:.2f} of {next(iter(taken))}'s speed")
        yield "cost", name, round(statistics.median(each), 4), "ms/frame", round(ratio, 3)


def ffmpeg() -> None:
    loop = ["-stream_loop", str(REPEATS - 1), "-threads", "1", "-i", str(CLIP), "-map", "0:v"]
    subprocess.run(["ffmpeg", "-v", "error", *loop, "-f", "null", "-"], check=True)


def decode_alone(data: bytes) -> None:
    with av.open(io.BytesIO(data), "r") as container:
        container.streams.video[0].codec_context.thread_count = 1
        for _ in container.decode(video=0):
            pass


def all_pictures(data: bytes) -> Iterator[Picture]:
    sampling = Sampling(1.0, shots=ShotMode.EXACT)
    return pictures(io.BytesIO(data), size=InputSize(), sampling=sampling, limits=MediaLimits(), report=MediaReport())


def detected(data: bytes) -> None:
    detector = ShotDetector()
    for picture in all_pictures(data):
        detector.push(picture.time_us, picture.look())
    detector.finish()


# --- recall ----------------------------------------------------------------------------------------------------


def recall() -> Iterator[Row]:
    """How many transitions each detector finds inside their extent, and how many cuts more it reports."""
    tests = tests_module("test_shots")
    clips: dict[str, Pixels] = {name: tests.looks_of(MEDIA / f"{name}.mp4") for name in tests.CUTS}
    bikes = [shot for shot in np.split(clips["bikes"], tests.CUTS["bikes"]) if len(shot) >= 40]
    splices = list(spliced(tests, [*bikes, clips["world"], clips["bigbuckbunny"], clips["carphone"]]))
    print(f"\n{'found/all + extra':24}" + "".join(f"{kind:>16}" for kind in (*splices[0], "real clips")))
    for name, detect in {"matchcut": tests.detect, **others()}.items():
        line = f"{name:24}"
        start = time.process_time()
        for kind in splices[0]:
            results = [(detect(looks), extent) for looks, extent in (splice[kind] for splice in splices)]
            found, extra = score(results)
            line += f"{f'{found}/{sum(extent is not None for _, extent in results)} + {extra}':>16}"
            yield f"recall {kind}", name, found, f"of {SPLICES}", extra
        looked = sum(len(looks) for splice in splices for looks, _ in splice.values())
        each = (time.process_time() - start) / looked * 1000
        real = [(set(detect(looks)), set(tests.CUTS[clip])) for clip, looks in clips.items()]
        found, wanted = sum(len(cuts & true) for cuts, true in real), sum(len(true) for _, true in real)
        extra = sum(len(cuts - true) for cuts, true in real)
        line += f"{f'{found}/{wanted} + {extra}':>16}"
        print(f"{line}   {each:.3f} ms/frame")
        yield "recall real clips", name, found, f"of {wanted}", extra
        yield "cost of the detector", name, round(each, 4), "ms/frame", ""


def tests_module(name: str) -> Any:
    """A module of the server's tests, whose sequences and expectations are used here."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "server" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def spliced(tests: Any, shots: list[Pixels]) -> Iterator[dict[str, tuple[Pixels, tuple[int, int] | None]]]:
    synth = tests_module("synth")
    for seed in range(FIRST_SEED, FIRST_SEED + SPLICES):
        splice = tests.Splicer(shots, seed)
        start, length, hold = splice.before, splice.length, seed % 10
        blur, speed = (8, 16, 32, 50)[seed % 4], (0.5, 1, 2, 3, 4)[seed % 5]
        yield {
            "hard": (splice.hard(), (start, start)),
            "dissolve": (splice.dissolve(), (start, start + length)),
            "fade to black": (splice.fade(tests.BLACK, hold), (start, start + 2 * length + hold)),
            "fade to white": (splice.fade(tests.WHITE, hold), (start, start + 2 * length + hold)),
            "flash": (splice.flash(1 + seed % 4), None),
            "soft pan": (synth.SoftScene(seed, blur).pan(speed), None),
            "soft zoom": (synth.SoftScene(seed, blur).zoom(1.01)[:: 1 if seed % 2 else -1], None),
        }


def score(results: list[tuple[list[int], tuple[int, int] | None]]) -> tuple[int, int]:
    """Transitions found inside their extent, and cuts beyond one for each of these."""
    found = sum(extent is not None and any(extent[0] <= cut <= extent[1] for cut in cuts) for cuts, extent in results)
    return found, sum(len(cuts) for cuts, _ in results) - found


def others() -> dict[str, Detect]:
    try:
        FrameTimecode = importlib.import_module("scenedetect").FrameTimecode  # noqa: N806
        detectors = importlib.import_module("scenedetect.detectors")
    except ImportError:
        print("scenedetect is not installed: no comparison")
        return {}

    def with_defaults(kind: Any) -> Detect:
        def detect(looks: Pixels) -> list[int]:
            detector, found = kind(min_scene_len=5), []
            for number, look in enumerate(looks):
                found += detector.process_frame(FrameTimecode(number, 25.0), bgr(look))
            found += detector.post_process(FrameTimecode(len(looks) - 1, 25.0))
            return sorted({time.frame_num for time in found})

        return detect

    kinds = ("ContentDetector", "AdaptiveDetector", "ThresholdDetector", "HistogramDetector", "HashDetector")
    return {f"scenedetect {kind[:-8]}": with_defaults(getattr(detectors, kind)) for kind in kinds}


def bgr(look: Pixels) -> Pixels:
    """BT.601, limited range."""
    y, cb, cr = np.moveaxis(look.astype(np.float32), -1, 0)
    y, cb, cr = 1.164 * (y - 16), cb - 128, cr - 128
    mixed: NDArray[np.float32] = np.stack([y + 2.017 * cb, y - 0.392 * cb - 0.813 * cr, y + 1.596 * cr], axis=-1)
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


# --- the machine -----------------------------------------------------------------------------------------------


def seconds() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
