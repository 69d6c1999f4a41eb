"""Clips from where they are: a folder of the operator's, or digits that are drawn, both through matchcut's decoder."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matchcut.server.clock import Clock
from matchcut.server.errors import InvalidInput, MatchcutError, UnreadableMedia
from matchcut.server.frames import frames_and_cuts
from matchcut.server.records import (
    ByteSource,
    Container,
    Frame,
    InputSize,
    Media,
    MediaLimits,
    MediaReport,
    Pixels,
    Sampling,
    ShotMode,
)
from matchcut.server.training.clip import drift
from matchcut.server.training.clip.clips import Clip, Clips, divided
from matchcut.server.training.progress import Bar

__all__ = ["DIGITS", "Recipe", "decoded", "of_digits", "of_folder"]

DIGITS = "digits"
BROKEN = ("TRUNCATED", "CORRUPT_PACKETS")  # warnings with which a server still uses what came; here they spoil a label
MOST_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a clip becomes what the model takes in.

    size: the picture that is made of each frame. rate: frames per second of media time.
    most: frames of a clip, from its begin; what comes after them is not looked at.
    encode: what is kept of the decoded frames, (t, height, width, 3) uint8; the frames themselves by default.
    """

    size: InputSize
    rate: float
    most: int
    encode: Callable[[Pixels], NDArray[Any]] = lambda frames: frames


def decoded(source: ByteSource, recipe: Recipe) -> Pixels:
    """The frames of a clip, (t, height, width, 3) uint8, sampled as a server does: the first at or after each time.

    Raises:
        MatchcutError: it cannot be decoded, or is cut off or damaged before the frames that are taken.
    """
    report = MediaReport()
    media = Media(Container(source), Sampling(recipe.rate, shots=ShotMode.OFF), MediaLimits())
    with closing(frames_and_cuts(media, recipe.size, report, Clock())) as events:
        found = [frame.rgb for frame in islice((one for one in events if isinstance(one, Frame)), recipe.most)]
    broken = [warning for warning in report.warnings if warning.reason in BROKEN]
    if broken:
        raise UnreadableMedia(broken[0].message, reason=broken[0].reason)
    return np.stack(found)


def of_digits(each: int, frames: int, side: int, recipe: Recipe, *, seed: int, bar: Bar) -> Clips:
    """Clips of digits that drift: drawn, encoded as video and decoded again.

    Every clip shows another image of a digit, so none that is judged by was trained with. Where more clips are wanted
    than there are images, images are shown again, in the same part.

    Args:
        each: clips of each class; 70, 15 and 15 % of them for training, validation and test.
        frames: of a clip.
        side: of the square video, in pixels; an even number.

    Raises:
        InvalidInput: too few clips or frames to show anything.
        ImportError: scikit-learn is not installed.
    """
    images = drift.digits()
    labels = [at % len(drift.CLASSES) for at in range(each * len(drift.CLASSES))]
    parts = divided(labels, drift.CLASSES, seed)
    order = np.random.default_rng((seed, 1)).permutation(len(images))
    pools = np.split(order, (np.cumsum([len(part) for part in parts])[:-1] * len(images)) // len(labels))

    def clip(number: int, pool: NDArray[np.int64], at: int) -> Clip:
        rng = np.random.default_rng((seed, 2, number))
        image = int(pool[at % len(pool)])
        shown = drift.draw(images[image], labels[number], frames=frames, size=side, rng=rng)
        found = decoded(io.BytesIO(drift.video(shown)), recipe)
        return Clip(f"digit {image}, {drift.CLASSES[labels[number]]}", labels[number], recipe.encode(found))

    wanted = [partial(clip, number, pool, at) for part, pool in zip(parts, pools, strict=True) for at, number in
              enumerate(part)]  # fmt: skip
    made = iter([make() for make in bar.track(wanted, "clips")])
    train, validation, test = (tuple(islice(made, len(part))) for part in parts)
    return Clips(drift.CLASSES, train, validation, test)


def of_folder(folder: Path, recipe: Recipe, *, seed: int, bar: Bar) -> Clips:
    """Clips of a folder with a folder for each class in it, whose name is the class's.

    A file that is no video, broken or cut off is left out, and so is one that has the very bytes of another: all but
    the first where they are of one class, all of them where they are of several, since one of the labels is wrong.

    Raises:
        InvalidInput: the folder cannot be read, has fewer than two classes, or fewer than three usable clips of one.
    """
    files, classes = listed(folder)
    left_out: list[tuple[str, str]] = []
    doubles = duplicates(files)
    clips: list[Clip] = []
    kept = 0
    for label, path in bar.track(files, "clips"):
        name = path.relative_to(folder).as_posix()
        if path in doubles:
            left_out.append((name, doubles[path]))
            continue
        try:
            with path.open("rb") as file:
                clips.append(Clip(name, label, recipe.encode(decoded(file, recipe))))
        except MatchcutError as error:
            left_out.append((name, error.message))
        except OSError as error:
            left_out.append((name, f"cannot be read: {error.strerror}"))
        else:
            kept += clips[-1].frames.nbytes
            if kept > MOST_BYTES:
                raise InvalidInput(
                    f"the clips take more than {MOST_BYTES >> 30} GiB of memory: give fewer, or a lower --size, --rate "
                    "or --frames",
                    field="folder",
                )
    parts = divided([clip.label for clip in clips], classes, seed)
    train, validation, test = (tuple(clips[at] for at in part) for part in parts)
    return Clips(classes, train, validation, test, tuple(sorted(left_out)))


def listed(folder: Path) -> tuple[list[tuple[int, Path]], tuple[str, ...]]:
    """All files below the classes' folders with their labels, and the classes. What begins with a point is hidden."""

    def seen(path: Path) -> bool:
        return not any(part.startswith(".") for part in path.relative_to(folder).parts)

    try:
        folders = sorted(path for path in folder.iterdir() if path.is_dir() and seen(path))
        files = [
            (label, path)
            for label, one in enumerate(folders)
            for path in sorted(one.rglob("*"))
            if path.is_file() and seen(path)
        ]
    except OSError as error:
        raise InvalidInput(f"{folder} cannot be read: {error.strerror}", field="folder") from error
    classes = tuple(one.name for one in folders)
    if len(classes) < 2:
        raise InvalidInput(
            f"{folder} has {len(classes)} folders in it: give one for each class, at least two, with its clips inside",
            field="folder",
        )
    if any(not name.isprintable() for name in classes):
        raise InvalidInput("a class's name has characters that cannot be printed: rename its folder", field="folder")
    return files, classes


def duplicates(files: Sequence[tuple[int, Path]]) -> dict[Path, str]:
    """Files that are to be left out since another one has the same bytes, and why."""
    same: dict[str, list[tuple[int, Path]]] = {}
    for label, path in files:
        try:
            with path.open("rb") as file:
                same.setdefault(hashlib.file_digest(file, "sha256").hexdigest(), []).append((label, path))
        except OSError:
            continue  # told of when it is to be decoded
    found: dict[Path, str] = {}
    for group in same.values():
        (_, first), *others = group
        if len({label for label, _ in group}) > 1:
            found |= {path: f"the same file lies in {len(group)} places, of several classes" for _, path in group}
        else:
            found |= {path: f"the same file as {first.name}" for _, path in others}
    return found
