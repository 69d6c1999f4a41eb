"""Real frames for calibrating and for judging, which are never the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from matchcut.kernels.preprocess import preprocess
from matchcut.server.blanks import is_blank
from matchcut.server.errors import InvalidInput, MatchcutError
from matchcut.server.frames import pictures_of
from matchcut.server.models import Encoder
from matchcut.server.records import (
    Container,
    EncodedPictures,
    Floats,
    Media,
    MediaLimits,
    MediaReport,
    Pixels,
    Sampling,
    ShotMode,
)

__all__ = ["Frames", "read"]

STILL = {".jpg", ".jpeg", ".png"}
SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Frames:
    """Preprocessed frames, (n, ...) float32 in the encoder's layout each, and the names of the files they are from."""

    calibration: Floats
    held_out: Floats
    media: tuple[str, ...]


def read(paths: Sequence[Path], encoder: Encoder, *, rate: float, most: int) -> Frames:
    """Decodes clips and pictures as serving does; frames of one colour are left out.

    The first half of each clip calibrates and the second is held out, so that a frame's neighbours in time are on its
    own side. Of pictures every second one is held out.

    Args:
        paths: media files; JPEG and PNG by their endings, all others containers of video.
        rate: frames per second of the clips.
        most: frames altogether, of each file about the same share.

    Raises:
        MatchcutError: a file cannot be read or decoded, or there are not two frames.
    """
    stills = [path for path in paths if path.suffix.lower() in STILL]
    clips = [path for path in paths if path not in stills]
    calibration, held_out = [], []
    share = max(2, most // max(1, len(paths)))
    for clip in clips:
        found = decoded(clip, encoder, rate, share)
        calibration += found[: len(found) // 2]
        held_out += found[len(found) // 2 :]
    pictures = [pixels for still in stills[:most] for pixels in decoded(still, encoder, rate, 1)]
    calibration += pictures[1::2]
    held_out += pictures[::2]
    if not calibration or not held_out:
        raise InvalidInput(
            f"there are {len(calibration) + len(held_out)} usable frames, too few to calibrate and to judge; give more "
            "media with --frames",
            field="frames",
        )
    return Frames(prepared(calibration, encoder), prepared(held_out, encoder), tuple(path.name for path in paths))


def decoded(path: Path, encoder: Encoder, rate: float, most: int) -> list[Pixels]:
    """At most so many frames of a file at the encoder's size, without those that show nothing."""
    try:
        with path.open("rb") as file:
            still = path.suffix.lower() in STILL
            form = EncodedPictures(iter([(0, file.read())])) if still else Container(file)
            media = Media(form, Sampling(rate, shots=ShotMode.OFF), MediaLimits())
            pictures = pictures_of(media, encoder.input, MediaReport(), lambda: None)
            shown = (picture.rgb() for picture in pictures if picture.due)
            return list(islice((pixels for pixels in shown if not is_blank(pixels)), most))
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}", field="frames") from error
    except MatchcutError as error:
        raise InvalidInput(f"{path}: {error.message}", field="frames") from error


def prepared(frames: Sequence[Pixels], encoder: Encoder) -> Floats:
    """What the encoder takes in."""
    return preprocess(np.stack(frames), encoder.mean, encoder.std, encoder.layout)
