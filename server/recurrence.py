"""What a stream has shown so far as one vector: the state of a GRU, stepped with every frame, owned by the stream.

The engine keeps nothing. A state lives in the Stream that steps it, so that no other stream can see it, and is gone
with it; steps of several streams run together.
"""

from __future__ import annotations

import hashlib
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from matchcut.server.batcher import Batcher, Watcher
from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EncoderMismatch, EngineFailed, InvalidInput
from matchcut.server.feed import Caller
from matchcut.server.models import gru
from matchcut.server.models.graph import Graph
from matchcut.server.records import EncoderIdentity, Floats
from matchcut.server.vectors import unit

__all__ = ["Recurrence", "Stream"]

MAGIC = b"MCR1"
HEAD = struct.Struct(
    "<4sQ32s32s"
)  # magic, frames, digests of the encoder and of the GRU; then the state, then a CRC-32
MOST = 64  # streams that step together at most
QUEUE = 4096


class Stream:
    """One stream's state. For one thread at a time.

    frames: that it has seen, those before a resumption included.
    """

    def __init__(self, recurrence: Recurrence, caller: Caller, state: Floats, frames: int) -> None:
        self._recurrence = recurrence
        self._caller = caller
        self._state = state
        self.frames = frames

    def add(self, vector: Floats) -> None:
        """Takes the next frame's embedding, (dimensions,) float32, of any length but zero.

        Raises:
            MatchcutError: as Batcher.submit; or the state is not finite any more.
        """
        self._state = self._recurrence.step(unit(vector, "frame"), self._state, self._caller)
        self.frames += 1

    def vector(self) -> Floats:
        """The direction of the state, (dimensions,) float32 of length 1.

        Raises:
            InvalidInput: there has been no frame, or what was shown cancels out.
        """
        return unit(self._state, "what the stream has shown")

    def token(self) -> bytes:
        """What carries the state over to another call, on this server or another with the same models."""
        return self._recurrence.sealed(self._state, self.frames)


class Recurrence:
    """Steps the states of streams. Safe to be used by several threads at once. Loads nothing before the first stream.

    live: streams that have a state now.

    Args:
        encoder: whose embeddings come in.
        graph: makes the GRU's step where it is needed first: inputs x (n, d) and h (n, hidden), output h_next, float32.
        threads: of one step.
        watcher: of the batcher.
    """

    def __init__(
        self,
        encoder: EncoderIdentity,
        graph: Callable[[], Graph],
        *,
        threads: int = 1,
        watcher: Watcher | None = None,
    ) -> None:
        self.live = 0
        self._encoder = encoder
        self._graph = graph
        self._threads = threads
        self._watcher = watcher
        self._lock = threading.Lock()
        self._opened: tuple[GraphEngine, Batcher, bytes] | None = None

    @contextmanager
    def stream(self, caller: Caller, resume: bytes = b"") -> Iterator[Stream]:
        """A stream's state from its begin, or from a token, for as long as the block runs.

        Raises:
            InvalidInput: that is no token, or of another GRU.
            EncoderMismatch: it is of another encoder.
            EngineFailed: the GRU cannot be loaded.
        """
        engine, _, digest = self._open()
        hidden = engine.inputs[1].shape[1]
        state, frames = np.zeros(hidden, np.float32), 0
        if resume:
            state, frames = unsealed(resume, digest, self._encoder, hidden)
        with self._lock:
            self.live += 1
        try:
            yield Stream(self, caller, state, frames)
        finally:
            with self._lock:
                self.live -= 1

    def step(self, vector: Floats, state: Floats, caller: Caller) -> Floats:
        """The state after one more vector."""
        _, batcher, _ = self._open()
        answer = batcher.submit({gru.INPUT: vector[np.newaxis], gru.STATE: state[np.newaxis]}, caller=caller)
        after: Floats = answer.outputs[gru.NEXT][0].copy()
        if not np.isfinite(after).all():
            raise EngineFailed("the GRU gave a state that is not finite: its weights are broken")
        return after

    def sealed(self, state: Floats, frames: int) -> bytes:
        """The state as a token."""
        digest = self._open()[2]
        head = HEAD.pack(MAGIC, frames, _digest(self._encoder), digest)
        body = head + state.astype("<f4").tobytes()
        return body + struct.pack("<I", zlib.crc32(body))

    def close(self) -> None:
        """Frees the engine; no stream may be under way."""
        with self._lock:
            opened, self._opened = self._opened, None
        if opened is not None:
            opened[1].close()
            opened[0].close()

    def _open(self) -> tuple[GraphEngine, Batcher, bytes]:
        with self._lock:
            if self._opened is None:
                made = self._graph()
                engine = GraphEngine(made, threads=self._threads)
                _check(engine, self._encoder)
                batcher = Batcher(engine.run, name="gru", most=MOST, queue=QUEUE, watcher=self._watcher)
                self._opened = engine, batcher, hashlib.sha256(made.content).digest()
            return self._opened


def unsealed(token: bytes, digest: bytes, encoder: EncoderIdentity, hidden: int) -> tuple[Floats, int]:
    """The state and the number of frames in a token; see Recurrence.stream for what it raises."""

    def wrong(what: str) -> InvalidInput:
        return InvalidInput(f"the resume token {what}; begin anew without it", reason="RESUME_TOKEN", field="resume")

    if len(token) < HEAD.size + 4 or not token.startswith(MAGIC):
        raise wrong("is none")
    if zlib.crc32(token[:-4]) != struct.unpack("<I", token[-4:])[0]:
        raise wrong("is damaged")
    _, frames, of_encoder, of_gru = HEAD.unpack_from(token)
    if of_encoder != _digest(encoder):
        raise EncoderMismatch("the resume token is of another encoder; begin anew without it", field="resume")
    if frames >= 2**63:
        raise wrong("counts more frames than there can be")
    if of_gru != digest or len(token) != HEAD.size + 4 * hidden + 4:
        raise wrong("is of another GRU")
    state = np.frombuffer(token, "<f4", hidden, HEAD.size).astype(np.float32)
    if not np.isfinite(state).all():
        raise wrong("holds NaN or infinity")
    return state, frames


def _digest(encoder: EncoderIdentity) -> bytes:
    """32 bytes, whatever an encoder's digest looks like."""
    return hashlib.sha256(encoder.digest.encode()).digest()


def _check(engine: GraphEngine, encoder: EncoderIdentity) -> None:
    names = [spec.name for spec in engine.inputs], [spec.name for spec in engine.outputs]
    sizes = [spec.shape for spec in (*engine.inputs, *engine.outputs)]
    hidden = sizes[1][-1] if len(sizes) == 3 else 0
    if names != ([gru.INPUT, gru.STATE], [gru.NEXT]) or sizes != [(-1, encoder.dimensions), (-1, hidden), (-1, hidden)]:
        raise EngineFailed(
            f"{engine.name} has inputs and outputs {names} of shapes {sizes}; the step of a GRU takes "
            f"x (n, {encoder.dimensions}) and h (n, hidden) and gives h_next (n, hidden)",
            reason="MODEL_INVALID",
        )
    if hidden != encoder.dimensions:
        raise EngineFailed(
            f"{engine.name} has a state of {hidden} values; rankings compare it with vectors of {encoder.dimensions}",
            reason="MODEL_INVALID",
        )
