"""The usual glue around an encoder: a clip's bytes to a vector, vectors to ranked names. For compare.py's peers.

OpenCV or decord decodes, ONNX Runtime or torch encodes, FAISS compares with every vector. An item is one vector. It
needs neither a server nor matchcut, and what it needs (decord, faiss-cpu, numpy, onnxruntime, opencv-python-headless;
torch and onnx for torch) is installed apart from matchcut. Parts are imported when they are asked for, so that an
environment needs only those that it uses.

    python clips.py ENCODER.onnx SETTINGS... CLIP...

prints for each of the settings (JSON, see Settings) the CPU seconds that the clips take, a line each.
"""

from __future__ import annotations

import io
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SIDE = 224
DIMENSIONS = 1280
MOST = 10
RATE = 2.0  # frames a second, where a measurement here asks with clips
ROUNDS = 1  # that count

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Settings:
    """What is tuned. batch: frames in one run of the encoder. mode: of torch; see torch_net.py."""

    decoder: Literal["opencv", "decord"] = "decord"
    encoder: Literal["onnxruntime", "torch"] = "onnxruntime"
    batch: int = 8
    decode_threads: int = 1
    encode_threads: int = 1
    mode: str = "eager"


class Glue:
    """An encoder and an index.

    Args:
        path: the encoder, ONNX: "image" (n, 3, 224, 224) float32 to (n, 1280) float32 in its first output.
        folder: where vectors are kept, one file an item, so that several processes know the same items.
    """

    def __init__(self, path: str, folder: str, settings: Settings) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        self._faiss = faiss
        self._folder = Path(folder)
        self._settings = settings
        self._encode = (
            onnx_session(path, settings) if settings.encoder == "onnxruntime" else torch_network(path, settings)
        )
        self._decode = {"opencv": opencv, "decord": by_decord}[settings.decoder]
        self._names: list[str] = []
        self._index: Any = None
        self._seen = -1

    def add(self, name: str, data: bytes, rate: float) -> None:
        """Puts an item in, or another in its place."""
        aside = self._folder / f".{name}-{os.getpid()}"
        with aside.open("wb") as file:
            np.save(file, self.vector(data, rate))
        aside.rename(self._folder / f"{name}.npy")

    def ask(self, data: bytes, rate: float) -> list[tuple[str, float]]:
        """The best items with their scores."""
        self._refresh()
        scores, rows = self._index.search(self.vector(data, rate)[None], min(MOST, len(self._names)))
        return [(self._names[row], float(score)) for row, score in zip(rows[0], scores[0], strict=True)]

    def vector(self, data: bytes, rate: float) -> Floats:
        """(1280,) of unit length: the mean of the frames' embeddings."""
        frames, size = self._decode(data, rate, self._settings.decode_threads), self._settings.batch
        parts = [self._encode(pixels(frames[at : at + size])) for at in range(0, len(frames), size)]
        mean: Floats = np.concatenate(parts).mean(axis=0)
        return mean / np.float32(np.linalg.norm(mean))

    def _refresh(self) -> None:
        """Reads the items anew where one has come since."""
        seen = self._folder.stat().st_mtime_ns
        if seen == self._seen:
            return
        files = sorted(self._folder.glob("[!.]*.npy"))
        index = self._faiss.IndexFlatIP(DIMENSIONS)
        index.add(np.stack([np.load(file) for file in files]))
        self._index, self._names, self._seen = index, [file.stem for file in files], seen


def wanted(frames: int, fps: float, rate: float) -> Iterator[int]:
    """Which frames of that many are used: the first one at or after each 1 / rate seconds."""
    step = max(1.0, fps / rate)
    found = (math.ceil(at * step - 1e-6) for at in range(math.ceil(frames / step)))
    return (at for at in found if at < frames)


def by_decord(data: bytes, rate: float, threads: int) -> Frames:
    """(n, 224, 224, 3) RGB; decord decodes and scales only what is asked for."""
    import decord  # type: ignore[import-not-found]

    reader = decord.VideoReader(io.BytesIO(data), decord.cpu(0), width=SIDE, height=SIDE, num_threads=threads)
    frames: Frames = reader.get_batch(list(wanted(len(reader), reader.get_avg_fps(), rate))).asnumpy()
    return frames


def opencv(data: bytes, rate: float, threads: int) -> Frames:
    """The same by OpenCV: every frame is decoded, and converted only where it is used; seeking takes 5 x as long.

    It reads from a file in memory: reading from a Python object ends the process where that is not its main thread.
    """
    import cv2  # type: ignore[import-not-found]

    cv2.setNumThreads(threads)
    file, frames = os.memfd_create("clip"), []
    try:
        os.write(file, data)
        capture = cv2.VideoCapture(f"/proc/self/fd/{file}", cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
        due, step, at = 0.0, max(1.0, capture.get(cv2.CAP_PROP_FPS) / rate), 0
        while capture.grab():
            if at >= due - 1e-6:
                small = cv2.resize(capture.retrieve()[1], (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
                frames.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
                due += step
            at += 1
        capture.release()
    finally:
        os.close(file)
    return np.stack(frames)


def pixels(frames: Frames) -> Floats:
    """(n, 3, 224, 224) float32, as the encoder takes them."""
    scaled = (frames.astype(np.float32) - np.float32(127)) * np.float32(1 / 128)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def onnx_session(path: str, settings: Settings) -> Any:
    """A function from pixels to embeddings."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.encode_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda batch: session.run([output], {given: batch})[0]


def torch_network(path: str, settings: Settings) -> Any:
    """A function from pixels to embeddings."""
    import torch_net  # type: ignore[import-not-found]

    return torch_net.ready(path, mode=settings.mode, threads=settings.encode_threads, batch=settings.batch)


def main() -> None:
    """Measures settings: the CPU seconds of a round over all clips, after one that does not count."""
    path, *words = sys.argv[1:]
    settings = [Settings(**json.loads(word)) for word in words if word.startswith("{")]
    clips = [Path(word).read_bytes() for word in words if not word.startswith("{")]
    with tempfile.TemporaryDirectory() as folder:
        for each in settings:
            glue = Glue(path, folder, each)
            spent = []
            for _ in range(ROUNDS + 1):
                began = time.process_time()
                for clip in clips:
                    glue.vector(clip, RATE)
                spent.append(time.process_time() - began)
            print(min(spent[1:]), flush=True)


if __name__ == "__main__":
    main()
