"""Tags for items from what their frames show: a classifier's classes, as `matchcut train image` makes one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.preprocess import preprocess
from matchcut.server import models
from matchcut.server.blanks import is_blank
from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed, InvalidInput, MatchcutError
from matchcut.server.models import graph
from matchcut.server.records import Floats, Pixels

__all__ = ["PREFIX", "Tagger", "Tags", "kept", "load", "merged"]

FILE = "model.onnx"
VERSION = re.compile("[1-9][0-9]{0,17}")
PREFIX = "class:"  # so that a tag of the tagger's is told from those that callers give
THRESHOLD = 0.5
MOST = 8  # tags of an item
ALL = 64  # tags of an item, with those that callers give
TAG_BYTES = 128  # as of tags that callers give
BATCH = 16  # frames of one run
PROBABILITIES = "probabilities"  # an output of this name is taken as it is, any other as logits


class Tagger:
    """A loaded classifier. Safe to be used by several threads at once, each with Tags of its own.

    name: the classifier's, and its version, for the log.

    Args:
        path: an ONNX file with an encoder's TOML beside it, which names labels of its second output.
        threshold: the least mean probability of a class that becomes a tag, above 0 and at most 1.
        threads: of one run; 0 takes all cores.

    Raises:
        EngineFailed: the files are missing or invalid, or there are no labels.
        InvalidInput: the threshold is out of range.
    """

    def __init__(self, path: Path, *, threshold: float = THRESHOLD, threads: int = 0) -> None:
        if not 0 < threshold <= 1:
            raise InvalidInput(
                f"the tagger's threshold must be above 0 and at most 1, not {threshold:g}",
                reason="INVALID_OPTION",
                field="tagger",
            )
        self._encoder = models.load(path)
        if not self._encoder.labels:
            raise EngineFailed(
                f"{path} names no labels in its TOML file, so that there is nothing to tag with; give a classifier",
                reason="ENCODER_INVALID",
            )
        self._engine = GraphEngine(graph.read(path), threads=threads)
        self._threshold = threshold
        self._output = self._engine.outputs[1].name
        self.name = f"{self._encoder.identity.name} {self._encoder.identity.version}"

    def begin(self) -> Tags:
        """What collects the frames of one piece of media."""
        return Tags(self)

    def classify(self, frames: Pixels) -> Floats:
        """(n, classes) float32 probabilities of (n, height, width, 3) uint8 frames of any size.

        Raises:
            EngineFailed: the run failed, or its numbers cannot be probabilities.
        """
        encoder = self._encoder
        size = (encoder.input.height, encoder.input.width)
        given = preprocess(frames, encoder.mean, encoder.std, encoder.layout, size=size)
        made = self._engine.run({self._engine.inputs[0].name: given})[self._output]
        if made.shape != (len(frames), len(encoder.labels)) or not np.isfinite(made).all():
            raise EngineFailed(f"the tagger {self.name} gave no finite numbers, one for each class: train it again")
        if self._output == PROBABILITIES:
            return np.asarray(made, np.float32)
        shares = np.exp(made - made.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)

    def tags(self, mean: NDArray[np.float64]) -> tuple[str, ...]:
        """The tags of mean probabilities (classes,), the most likely first; of equal ones the earlier class."""
        order = np.argsort(-mean, kind="stable")[:MOST]
        return tuple(tag(self._encoder.labels[at]) for at in order if mean[at] >= self._threshold)

    @property
    def classes(self) -> int:
        """How many there are."""
        return len(self._encoder.labels)

    def close(self) -> None:
        """Frees the classifier. May be called twice."""
        self._engine.close()


class Tags:
    """The mean of what a tagger says of the frames of one piece of media. One thread at a time uses it.

    Frames that show nothing do not count. frames: how many have counted.
    """

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger
        self._waiting: list[Pixels] = []
        self._sum = np.zeros(tagger.classes, np.float64)
        self.frames = 0

    def add(self, frame: Pixels) -> None:
        """Takes in (height, width, 3) uint8, the same size each time; it is kept for a while.

        Raises:
            EngineFailed: see Tagger.classify.
        """
        if is_blank(frame):
            return
        self._waiting.append(frame)
        if len(self._waiting) == BATCH:
            self._run()

    def result(self) -> tuple[str, ...]:
        """Tags for all frames so far, the most likely first; none where no class reaches the threshold.

        Raises:
            EngineFailed: see Tagger.classify.
        """
        if self._waiting:
            self._run()
        return self._tagger.tags(self._sum / self.frames) if self.frames else ()

    def _run(self) -> None:
        frames, self._waiting = np.stack(self._waiting), []
        self._sum += self._tagger.classify(frames).sum(axis=0, dtype=np.float64)
        self.frames += len(frames)


def tag(label: str) -> str:
    """A class's tag, cut to what a tag may have, never within a character."""
    return (PREFIX + label).encode()[:TAG_BYTES].decode(errors="ignore")


def merged(given: Iterable[str], found: Iterable[str]) -> tuple[str, ...]:
    """The tags that a caller gives with those that were found, sorted; what is found takes the places that are left."""
    tags = set(given)
    for each in found:
        if len(tags) < ALL:
            tags.add(each)
    return tuple(sorted(tags))


def kept(tags: Iterable[str]) -> tuple[str, ...]:
    """Those of an item's tags that a tagger has found."""
    return tuple(each for each in tags if each.startswith(PREFIX))


def load(option: str, *, threads: int = 0) -> Tagger:
    """The tagger that an option names: PATH or PATH@THRESHOLD; PATH is an ONNX file or a folder, see file().

    Raises:
        MatchcutError: see Tagger; the message names the option.
    """
    path, at, after = option, "", ""
    if "@" in Path(option).name and not there(Path(option).expanduser()):  # else an "@" is the path's own
        path, at, after = option.rpartition("@")
    try:
        threshold = float(after) if at else THRESHOLD
    except ValueError:
        raise wrong(
            f"--tagger {option}: {after!r} is no number; after the '@' stands a threshold, such as 0.5"
        ) from None
    try:
        return Tagger(file(Path(path).expanduser()), threshold=threshold, threads=threads)
    except MatchcutError as error:
        raise type(error)(f"--tagger {option}: {error.message}", reason=error.reason, field="tagger") from error


def file(path: Path) -> Path:
    """The ONNX file that a path means: itself, model.onnx in that folder, or in its folder of the highest number.

    Raises:
        InvalidInput: the path is not there or cannot be read, or the folder has none.
    """
    try:
        if not path.exists():
            raise wrong(f"{str(path)!r} is not there; give a classifier's ONNX file or folder")
        if not path.is_dir():
            return path
        numbers = sorted(int(each.name) for each in path.iterdir() if VERSION.fullmatch(each.name))
    except OSError as error:
        raise wrong(f"{str(path)!r} cannot be read: {error.strerror}") from error
    for folder in (path, *(path / str(number) for number in reversed(numbers))):
        if (folder / FILE).is_file():
            return folder / FILE
    raise wrong(f"{str(path)!r} has no {FILE}, nor a version, such as 1/{FILE}; give a classifier's file or folder")


def there(path: Path) -> bool:
    """Whether there is something of this name; of one that cannot be looked for there is not."""
    try:
        return path.exists()
    except OSError:
        return False


def wrong(what: str) -> InvalidInput:
    """An error of the option."""
    return InvalidInput(what, reason="INVALID_OPTION", field="tagger")
