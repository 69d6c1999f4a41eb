"""Labelled pictures, all of one size: from a folder with a sub-folder for each class, or scikit-learn's digits."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput, MatchcutError
from matchcut.server.frames import pictures_of
from matchcut.server.records import (
    EncodedPictures,
    InputSize,
    Media,
    MediaLimits,
    MediaReport,
    Pixels,
    Sampling,
    ShotMode,
)

__all__ = ["DIGITS", "Pictures", "digits", "folder", "read"]

DIGITS = "digits"  # in the place of a folder: the data set that scikit-learn ships
ENDINGS = {".jpg", ".jpeg", ".png"}  # what the server takes as pictures
MOST_CLASSES = 4096
LONGEST_NAME = 100  # bytes of a class's name in UTF-8; it becomes a tag of items

Tracked = Callable[[Sequence[Path]], Iterable[Path]]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures and their classes, as they were read.

    pixels: (n, height, width, 3) uint8 RGB, in memory or in a file that is mapped into it. labels: (n,) int64, the
    index of each one's class. names: where each is from. unreadable: files that could not be decoded, and why. skipped:
    files that are no pictures by their names.
    """

    pixels: Pixels
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...] = ()
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def read(path: Path, size: InputSize) -> Pixels:
    """A JPEG or PNG file as serving would decode it: upright, (height, width, 3) uint8 RGB.

    Raises:
        MatchcutError: it is unreadable, or has more pixels than the server takes by default.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"it cannot be read: {error.strerror}") from error
    media = Media(EncodedPictures(iter([(0, data)])), Sampling(shots=ShotMode.OFF), MediaLimits())
    for picture in pictures_of(media, size, MediaReport(), lambda: None):
        return picture.rgb()
    raise InvalidInput("there is no picture in it")


def folder(root: Path, size: InputSize, *, track: Tracked = lambda files: files, most: int = 0) -> Pictures:
    """Reads ROOT/CLASS/**/*.jpg, .jpeg and .png; classes and files in the order of their names.

    Args:
        track: is given the files and yields them again, to show how far it is.
        most: pictures of a class at most; 0: all.

    Raises:
        InvalidInput: the root is no folder that can be read, has fewer than two classes, or a class's name cannot be a
            label; or no picture of a class can be read.
    """
    try:
        folders = sorted(each for each in root.iterdir() if each.is_dir() and not each.name.startswith("."))
    except OSError as error:
        raise wrong(
            f"{root} cannot be read: {error.strerror}; give a folder with a sub-folder for each class"
        ) from error
    if len(folders) < 2:
        raise wrong(f"{root} has {len(folders)} sub-folders; give a folder with one for each class, two at least")
    if len(folders) > MOST_CLASSES:
        raise wrong(f"{root} has {len(folders)} sub-folders, which would be more than {MOST_CLASSES} classes")
    for each in folders:
        check_name(each.name)
    found, labels, skipped = [], [], []
    for label, each in enumerate(folders):
        inside = sorted(path for path in each.rglob("*") if path.is_file() and not path.name.startswith("."))
        files = [path for path in inside if path.suffix.lower() in ENDINGS][: most or None]
        skipped += [path.relative_to(root).as_posix() for path in inside if path.suffix.lower() not in ENDINGS]
        found += files
        labels += [label] * len(files)
    pixels = room(len(found), size)
    kept: list[int] = []
    unreadable: list[tuple[str, str]] = []
    for at, path in enumerate(track(found)):
        try:
            pixels[len(kept)] = read(path, size)
        except MatchcutError as error:
            unreadable.append((path.relative_to(root).as_posix(), error.message))
        else:
            kept.append(at)
    known = np.array([labels[at] for at in kept], np.int64)
    for label, each in enumerate(folders):
        if label not in known:
            raise wrong(f"in {each} is no picture that can be read; put JPEG or PNG files there, or remove the folder")
    return Pictures(
        pixels=pixels[: len(kept)],
        labels=known,
        names=tuple(found[at].relative_to(root).as_posix() for at in kept),
        classes=tuple(each.name for each in folders),
        unreadable=tuple(unreadable),
        skipped=tuple(skipped),
    )


def digits(size: InputSize, *, most: int = 0) -> Pictures:
    """scikit-learn's handwritten digits, 1,797 of 8 x 8 pixels, enlarged.

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository,
    1998 (its test set), CC BY 4.0; in the package, so that nothing is downloaded.

    Args:
        most: pictures of a class at most; 0: all.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = np.asarray(data.target, np.int64)
    rows = np.arange(len(labels))
    if most:
        rows = np.sort(np.concatenate([np.flatnonzero(labels == label)[:most] for label in range(10)]))
    small = np.round(np.asarray(data.images)[rows] * (255 / 16)).astype(np.uint8)
    pixels = np.empty((len(rows), size.height, size.width, 3), np.uint8)
    for at, image in enumerate(small):
        large = Image.fromarray(image).resize((size.width, size.height), Image.Resampling.BICUBIC)
        pixels[at] = np.asarray(large)[:, :, None]
    names = tuple(f"digits/{labels[row]}/{row:04}" for row in rows)
    return Pictures(pixels, labels[rows], names, tuple("0123456789"))


def check_name(name: str) -> None:
    """Refuses what cannot be a label, one a line, or a tag.

    Raises:
        InvalidInput: it is too long, no UTF-8, or has characters that cannot be printed.
    """
    try:
        fits = len(name.encode()) <= LONGEST_NAME and name.isprintable() and name == name.strip()
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise wrong(
            f"the folder {name!a} cannot name a class: take at most {LONGEST_NAME} bytes of UTF-8 that can be "
            "printed, without spaces around them"
        )


def room(count: int, size: InputSize) -> Pixels:
    """Room for so many pictures in a file without a name, so that they need not fit into memory.

    Raises:
        OSError: the folder for temporary files (TMPDIR) has no room for them.
    """
    shape = (count, size.height, size.width, 3)
    if not count:
        return np.empty(shape, np.uint8)
    with tempfile.TemporaryFile() as file:  # the mapping keeps the file's bytes
        length = count * size.height * size.width * 3
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, length)  # else a full disk would end the process at some write
        else:
            file.truncate(length)
        return np.memmap(file, np.uint8, mode="r+", shape=shape)


def wrong(what: str) -> InvalidInput:
    return InvalidInput(what, reason="DATA_INVALID", field="data")
