"""A trained session model: a version's folder, checked before it is served.

    session.toml   what it is: see description.py
    items.onnx     content (n, c), index (n,) int64 (0: an id not learnt; i: line i of ids.txt) -> vector (n, d)
    step.onnx      x (n, d), h (n, width), w (n, 1) -> h_next (n, width), query (n, d)
    seq.onnx       optional: the same over whole sequences, with which the training checked it; never run here
    ids.txt        the ids that were learnt, one a line, each as a JSON string

All numbers are float32 where nothing else is said.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed
from matchcut.server.models import graph
from matchcut.server.records import EncoderIdentity, Floats, SessionIdentity
from matchcut.server.session import description
from matchcut.server.session.arrays import directions, finite
from matchcut.server.session.description import Description, wrong

__all__ = ["OnnxSession"]

ITEMS, STEP, SEQUENCE, IDS = "items.onnx", "step.onnx", "seq.onnx", "ids.txt"
Kind = tuple[str | int, ...]  # type and sizes of a tensor
ALIKE = 1e-4  # how far a row may be off from the same row alone, where values are about 1


class OnnxSession:
    """See contract.SessionModel. A state is h, and behind it the query that came with it.

    Args:
        folder: of the version.
        encoder: whose vectors the server has; None: whichever the model was made for.
        threads: of one run; 0 takes all cores.

    Raises:
        EngineFailed: a file is missing, not the one that session.toml tells of, or does not fit to the others; the
            model was made for another encoder; or a first step gave what cannot be. The reason is MODEL_INVALID.
    """

    def __init__(self, folder: Path, encoder: EncoderIdentity | None = None, *, threads: int = 1) -> None:
        said = description.read(folder)
        if encoder is not None and (encoder.digest, encoder.dimensions) != (
            said.encoder.digest,
            said.encoder.dimensions,
        ):
            raise wrong(
                f"the session model {said.name!r} was trained on vectors of {said.encoder.name!r} "
                f"({said.encoder.digest[:12]}), the server has those of {encoder.name!r} ({encoder.digest[:12]}): "
                "train it anew"
            )
        self._said = said
        self._numbers = _ids(_content(folder, IDS, said))
        self._items = _engine(folder, ITEMS, said, threads)
        self._step = _engine(folder, STEP, said, threads)
        if (folder / SEQUENCE).exists() or SEQUENCE in said.files:
            _checked(graph.read(folder / SEQUENCE).content, SEQUENCE, said)
        d, width = said.dimensions, said.width
        content: Kind = ("FP32", -1, said.encoder.dimensions)
        x: Kind = ("FP32", -1, d)
        h: Kind = ("FP32", -1, width)
        _signature(self._items, {"content": content, "index": ("INT64", -1)}, {"vector": x})
        _signature(self._step, {"x": x, "h": h, "w": ("FP32", -1, 1)}, {"h_next": h, "query": x})
        digests = [said.files[name] for name in (ITEMS, STEP, IDS)]
        made_of = json.dumps([said.kind, said.encoder.digest, said.encoder.dimensions, d, width, *digests])
        self._identity = SessionIdentity(
            said.name, said.version, hashlib.sha256(made_of.encode()).hexdigest(), said.dimensions
        )
        try:
            self._try()
        except EngineFailed as error:
            raise wrong(f"the session model {said.name!r} cannot be run: {error.message}") from error

    @property
    def identity(self) -> SessionIdentity:
        """See contract.SessionModel."""
        return self._identity

    @property
    def tenant(self) -> str:
        """See contract.SessionModel."""
        return self._said.tenant

    @property
    def encoder(self) -> EncoderIdentity:
        """See contract.SessionModel."""
        return self._said.encoder

    @property
    def width(self) -> int:
        """See contract.SessionModel."""
        return self._said.width + self._said.dimensions

    def items(self, item_ids: Sequence[str], content: Floats) -> Floats:
        """See contract.SessionModel."""
        index = np.array([self._numbers.get(item_id, 0) for item_id in item_ids], np.int64)
        found = self._items.run({"content": np.asarray(content, np.float32), "index": index})["vector"]
        return self._rows(found, len(item_ids), self._said.dimensions, "the vector of an item")

    def begin(self, count: int) -> Floats:
        """See contract.SessionModel."""
        return np.zeros((count, self.width), np.float32)

    def step(self, items: Floats, states: Floats, strengths: Floats) -> Floats:
        """See contract.SessionModel."""
        found = self._step.run(
            {
                "x": np.asarray(items, np.float32),
                "h": states[:, : self._said.width],
                "w": np.asarray(strengths, np.float32)[:, np.newaxis],
            }
        )
        after = self._rows(found["h_next"], len(items), self._said.width, "the state of a user")
        query = self._rows(found["query"], len(items), self._said.dimensions, "the query of a user")
        return np.concatenate([after, query], axis=1)

    def queries(self, states: Floats) -> Floats:
        """See contract.SessionModel."""
        return directions(states[:, self._said.width :])

    def close(self) -> None:
        """See contract.SessionModel."""
        self._items.close()
        self._step.close()

    def _rows(self, found: Floats, count: int, size: int, what: str) -> Floats:
        if found.shape != (count, size):
            raise EngineFailed(f"{what} has shape {found.shape} where ({count}, {size}) was expected")
        return finite(found, f"{what} of {self._said.name!r}")

    def _try(self) -> None:
        """A step on zeros, and one of several rows, each of which has to come out as it does alone."""
        d = self._said.dimensions
        ones = np.ones(1, np.float32)
        self.step(np.zeros((1, d), np.float32), self.begin(1), ones)
        random = np.random.default_rng(0)
        content = directions(random.standard_normal((3, self._said.encoder.dimensions)).astype(np.float32))
        vectors = self.items([""] * 3, content)
        states = self.step(vectors, self.begin(3), np.array([1, 0.5, 0.25], np.float32))
        alone = self.step(vectors[1:2], self.begin(1), ones * np.float32(0.5))
        if np.abs(states[1:2] - alone).max() > ALIKE * max(1.0, float(np.abs(alone).max())):
            raise EngineFailed("a row of a step depends on the rows beside it: export the step so that each is alone")


def _content(folder: Path, name: str, said: Description) -> bytes:
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise wrong(f"{name} cannot be read: {error.strerror}") from error
    return _checked(content, name, said)


def _checked(content: bytes, name: str, said: Description) -> bytes:
    """The same bytes, if they are those that session.toml tells of."""
    found = hashlib.sha256(content).hexdigest()
    if said.files.get(name) != found:
        told = said.files.get(name, "nothing")
        raise wrong(
            f"{name} is not the file that session.toml tells of (SHA-256 {found[:12]}, not {told[:12]}): copy the "
            "version's folder again, or train it anew"
        )
    return content


def _ids(content: bytes) -> dict[str, int]:
    """The number of each id, from 1."""
    numbers: dict[str, int] = {}
    try:
        for line in content.decode().split("\n"):
            if line:
                numbers[_id(json.loads(line))] = len(numbers) + 1
    except (ValueError, RecursionError) as error:
        raise wrong(f"line {len(numbers) + 1} of {IDS} is no JSON string: {error}") from error
    lines = sum(bool(line) for line in content.split(b"\n"))
    if lines != len(numbers):
        raise wrong(f"{IDS} holds an id more than once: {lines} lines, {len(numbers)} ids")
    return numbers


def _id(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"it is a {type(value).__name__}")
    if not value:
        raise ValueError("it is empty")
    return value


def _engine(folder: Path, name: str, said: Description, threads: int) -> GraphEngine:
    read = graph.read(folder / name)
    _checked(read.content, name, said)
    try:
        return GraphEngine(read, threads=threads)
    except EngineFailed as error:
        raise wrong(error.message) from error


def _signature(engine: GraphEngine, inputs: dict[str, Kind], outputs: dict[str, Kind]) -> None:
    """Checks names, types and sizes; -1 is an open size, which the graph has to leave open."""
    for role, specs, wanted in (("inputs", engine.inputs, inputs), ("outputs", engine.outputs, outputs)):
        found: dict[str, Kind] = {spec.name: (spec.dtype, *spec.shape) for spec in specs}
        if found.keys() != wanted.keys() or not all(_fits(found[name], kind, role) for name, kind in wanted.items()):
            raise wrong(f"{engine.name} has {role} {found}; those of this session model are {wanted}")


def _fits(found: Kind, wanted: Kind, role: str) -> bool:
    """An output may leave a size open that is checked when it comes."""
    return len(found) == len(wanted) and all(
        size == want or (role == "outputs" and size == -1) for size, want in zip(found, wanted, strict=True)
    )
