"""Embeddings of the demo's media by the default encoder, as rows for scan.py: random crops of its pictures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import av
import common
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from matchcut.kernels.preprocess import preprocess
from matchcut.server import engines, models

EVERY = 4  # frames; the ones between look the same
BATCH = 8
SIDE = 224
SMALLEST = 0.35  # of the shorter side of a picture

Pixels = NDArray[np.uint8]


class Frames:
    """Unit embeddings of crops of any place and of many sizes; of video and of photographs."""

    def fill(self, rows: NDArray[np.float32], seed: int) -> None:
        """Writes (n, dimensions) rows; the same for the same seed, others for another."""
        encoder = models.load(models.default_encoder(common.CACHE))
        engine = engines.load(encoder, engine="onnxruntime", threads=1)
        crops = cropped(list(pictures()), seed)
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            batch = np.stack(list(itertools.islice(crops, len(part))))
            vectors = engine.run(preprocess(batch, encoder.mean, encoder.std, encoder.layout))
            np.divide(vectors, np.linalg.norm(vectors, axis=1, keepdims=True), out=part)


def pictures() -> Iterator[Pixels]:
    """Frames of the clips, and the photographs."""
    for name in common.CLIPS:
        with av.open(str(common.clip(name))) as container:
            for frame in itertools.islice(container.decode(video=0), 0, None, EVERY):
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    for path in sorted(common.MEDIA.glob("*.jpg")):
        yield np.asarray(Image.open(path).convert("RGB"))


def cropped(of: list[Pixels], seed: int) -> Iterator[Pixels]:
    """Square crops of random pictures, at the encoder's size, without end."""
    random = np.random.default_rng(seed)
    while True:
        picture = of[random.integers(len(of))]
        height, width, _ = picture.shape
        side = int(min(height, width) * random.uniform(SMALLEST, 1))
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        crop = Image.fromarray(picture[top : top + side, left : left + side])
        yield np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
