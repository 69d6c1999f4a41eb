"""The default encoder in each precision, made once for all tests that look at it."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

from matchcut.server import models, precision
from matchcut.server.models import Encoder
from matchcut.server.precision import Converted, Frames, Precision

MEDIA = Path(__file__).parents[2] / "build" / "media"
CLIPS = ("bikes.mp4", "world.mp4", "carphone.mp4")


@functools.cache
def folder() -> Path:
    """Gone at the end of the process."""
    made = Path(tempfile.mkdtemp(prefix="matchcut-precisions-"))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    return made


@functools.cache
def plain() -> Encoder:
    """In float32."""
    return models.load(models.default_encoder(folder() / "cache"))


@functools.cache
def frames() -> Frames:
    """26 to calibrate with and 26 to judge by."""
    return precision.read([MEDIA / clip for clip in CLIPS], plain(), rate=2.0, most=72)


@functools.cache
def converted(which: Precision) -> Converted:
    """As the tool makes it."""
    return precision.convert(plain(), which, frames())


@functools.cache
def written(which: Precision) -> Encoder:
    """As the tool writes it, loaded again."""
    return models.load(precision.write(plain(), converted(which), frames(), folder() / which))
