"""What decoding costs, against the least that it could: `python tests/bench/decode.py [rounds]`.

Every frame: frames a CPU-second, against `ffmpeg -threads 1 -f null` and PyAV's bare loop on the same bytes. Sampled:
CPU time of one frame a second of 1080p H.264 (groups of 50 with B-frames, made here of the same clip) against
decoding every frame of it, with the pictures compared bit by bit. All sides take turns on one core; rows go to
results/decode.csv.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from matchcut.server.decode import pictures
from matchcut.server.records import InputSize, MediaLimits, MediaReport, Sampling, ShotMode
from matchcut.server.shots import ShotDetector

RESULTS = Path(__file__).parent / "results" / "decode.csv"
CLIP = Path(__file__).parents[2] / "build" / "media" / "bigbuckbunny.mp4"
REPEAT = 3
SECONDS = 20


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{cpu()}, one core, PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info}; baseline {ffmpeg_version()}")
    rows = [*every_frame(rounds), *sampled(max(3, rounds // 2))]
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if file.tell() == 0:
            writer.writerow(["date", "cpu", "what", "median", "unit", "baseline", "ratio", "wanted"])
        writer.writerows([date.today().isoformat(), cpu(), *row] for row in rows)


def every_frame(rounds: int) -> list[tuple[object, ...]]:
    """720p, all frames, in frames a CPU-second."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        repeated(CLIP, path, REPEAT)
        data = path.read_bytes()
        sides: dict[str, Callable[[], int]] = {
            "bare PyAV": lambda: bare(data),
            "every frame to 224x224": lambda: decode(data, Sampling(1000.0), "rgb")[0],
            "ingest: every frame looked at, cuts found, 1 fps to 224x224": lambda: ingest(data),
        }
        if shutil.which("ffmpeg"):
            sides["ffmpeg"] = lambda: ffmpeg(path)
        times = alternate(sides, rounds)
    frames = decode(data, Sampling(1000.0), "")[0]
    rate = {name: frames / statistics.median(seconds) for name, seconds in times.items()}
    wanted = {"every frame to 224x224": 0.85, "ingest: every frame looked at, cuts found, 1 fps to 224x224": 0.65}
    baseline = "ffmpeg" if "ffmpeg" in rate else "bare PyAV"
    rows: list[tuple[object, ...]] = []
    for name, value in rate.items():
        for against in {baseline, "bare PyAV"} - {name}:
            ratio = statistics.median(b / a for a, b in zip(times[name], times[against], strict=True))
            aim = wanted.get(name, "") if against == baseline else ""
            print(f"{name}: {value:.0f} frames a CPU-second, {ratio:.2f} of {against} {f'(aim {aim})' if aim else ''}")
            rows.append((name, round(value, 1), "frames/CPU-s", against, round(ratio, 3), aim))
    return rows


def sampled(rounds: int) -> list[tuple[object, ...]]:
    """1080p, one frame a second, in CPU milliseconds."""
    rows: list[tuple[object, ...]] = []
    for gop in (50, 250):
        data = high_definition(gop)
        every, exact = Sampling(1.0, shots=ShotMode.EXACT), Sampling(1.0, shots=ShotMode.COARSE)
        near = Sampling(1.0, tolerance_us=1_000_000, shots=ShotMode.COARSE)
        sides: dict[str, Callable[[], int]] = {
            "every frame decoded": lambda d=data, s=every: decode(d, s, "due")[0],  # type: ignore[misc]
            "exact": lambda d=data, s=exact: decode(d, s, "due")[0],  # type: ignore[misc]
            "1 s of tolerance": lambda d=data, s=near: decode(d, s, "due")[0],  # type: ignore[misc]
        }
        same = np.array_equal(decode(data, every, "due")[1], decode(data, exact, "due")[1])
        times = alternate(sides, rounds)
        for name, aim in (("exact", 2.1 if gop == 50 else ""), ("1 s of tolerance", 6.0 if gop == 50 else "")):
            ratio = statistics.median(a / b for a, b in zip(times["every frame decoded"], times[name], strict=True))
            value = 1000 * statistics.median(times[name])
            print(
                f"1080p, GOP {gop}, 1 fps, {name}: {value:.0f} CPU-ms, {ratio:.2f} x as fast as every frame"
                f"{f' (aim {aim})' if aim else ''}{f', bit-equal: {same}' if name == 'exact' else ''}"
            )
            rows.append(
                (f"1080p GOP {gop} 1 fps {name}", round(value, 1), "CPU-ms", "every frame", round(ratio, 2), aim)
            )
    return rows


def alternate(sides: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """CPU seconds of each side, children included, in each of the rounds."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            start = cpu_seconds()
            side()
            times[name].append(cpu_seconds() - start)
    return times


def cpu_seconds() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def decode(data: bytes, sampling: Sampling, use: str) -> tuple[int, Any]:
    """(frames decoded, the due pictures) of the product's own decoding."""
    report, kept = MediaReport(), []
    limits = MediaLimits()
    for picture in pictures(io.BytesIO(data), size=InputSize(), sampling=sampling, limits=limits, report=report):
        if use == "rgb":
            picture.rgb()
        elif use == "due" and picture.due:
            kept.append(picture.rgb())
    return report.frames_seen, np.asarray(kept)


def ingest(data: bytes) -> int:
    """What ingest does before the encoder."""
    detector, count, limits, sampling = ShotDetector(), 0, MediaLimits(), Sampling(1.0, shots=ShotMode.EXACT)
    for picture in pictures(io.BytesIO(data), size=InputSize(), sampling=sampling, limits=limits, report=MediaReport()):
        list(detector.push(picture.time_us, picture.look()))
        if picture.due:
            picture.rgb()
        count += 1
    return count


def bare(data: bytes) -> int:
    """PyAV's decoding loop and nothing else."""
    with av.open(io.BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def ffmpeg(path: Path) -> int:
    command = ["ffmpeg", "-v", "error", "-threads", "1", "-i", str(path), "-an", "-f", "null", "-"]
    subprocess.run(command, check=True)
    return 0


def ffmpeg_version() -> str:
    if not shutil.which("ffmpeg"):
        return "ffmpeg absent"
    return subprocess.run(["ffmpeg", "-version"], capture_output=True, text=True, check=True).stdout.split(" Copy")[0]


def repeated(clip: Path, path: Path, times: int) -> None:
    """The video of a clip several times over, not encoded again, so that starting a process matters less."""
    with av.open(str(clip)) as source, av.open(str(path), "w", options={"movflags": "faststart"}) as output:
        stream = source.streams.video[0]
        packets = [packet for packet in source.demux(stream) if packet.size]
        copy = output.add_stream_from_template(stream)
        length = sum(packet.duration or 0 for packet in packets)
        stamps = [(packet.pts or 0, packet.dts or 0) for packet in packets]
        for turn in range(times):
            for packet, (shown, decoded) in zip(packets, stamps, strict=True):
                again = av.Packet(bytes(packet))
                again.pts, again.dts, again.time_base = shown + turn * length, decoded + turn * length, packet.time_base
                again.is_keyframe, again.duration, again.stream = packet.is_keyframe, packet.duration, copy
                output.mux(again)


def high_definition(gop: int) -> bytes:
    """1080p H.264 with B-frames: the real clip enlarged, forwards and backwards in turn."""
    with av.open(str(CLIP), "r") as source:
        frames = [frame.reformat(1920, 1080, "yuv420p") for frame in source.decode(source.streams.video[0])]
    turns = [*frames, *reversed(frames)]
    file = io.BytesIO()
    options = {"preset": "veryfast", "x264-params": f"keyint={gop}:min-keyint={gop}:scenecut=0:bframes=3"}
    with av.open(file, "w", format="matroska") as output:
        stream: Any = output.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        for index in range(25 * SECONDS):
            frame = turns[index % len(turns)]
            frame.pts, frame.time_base, frame.pict_type = index, Fraction(1, 25), 0  # 0: let the encoder choose
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def cpu() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
