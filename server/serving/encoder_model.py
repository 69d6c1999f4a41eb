"""The server's own encoder as models: its tensors to embeddings, and pictures as they are sent to embeddings."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from matchcut.server import images
from matchcut.server.batcher import Answer, Batcher
from matchcut.server.clock import Clock
from matchcut.server.convert import Converter
from matchcut.server.engines import Engine
from matchcut.server.errors import EngineFailed, InvalidInput, MatchcutError, UnreadableMedia
from matchcut.server.feed import ByteFeed, Caller
from matchcut.server.frames import frames_and_cuts
from matchcut.server.models import graph_signature
from matchcut.server.records import (
    Container,
    Frame,
    Media,
    MediaLimits,
    MediaReport,
    Pixels,
    Sampling,
    ShotMode,
)
from matchcut.server.serving.checks import check_inputs, check_step, check_wanted
from matchcut.server.serving.contract import SequenceStep, Statistics
from matchcut.server.serving.tally import Tally
from matchcut.server.sight import EMBEDDING, PIXELS, Sight
from matchcut.server.tensors import Tensors, TensorSpec

__all__ = ["MEDIA_INPUT", "EncoderModel", "MediaModel"]

MEDIA_INPUT = "media"
START_CODES = (b"\0\0\1", b"\0\0\0\1")  # of H.264 as it is streamed: ITU-T H.264 annex B


class EncoderModel:
    """The encoder under its own name, with the tensors of its ONNX file. See Model.

    Args:
        batcher: of the engine, which others may use, too; see sight.shared().

    Raises:
        EngineFailed: the ONNX file is not there any more.
    """

    def __init__(self, engine: Engine, batcher: Batcher) -> None:
        encoder = engine.encoder
        try:
            signature = graph_signature.read(encoder.path.read_bytes())
        except (OSError, ValueError) as error:
            raise EngineFailed(f"{encoder.path} cannot be read any more: {error}", reason="ENCODER_MISSING") from error
        self._batcher = batcher
        self.name, self.version = encoder.identity.name, encoder.identity.version
        self.inputs = (TensorSpec(signature.inputs[0].name, "FP32", (-1, *encoder.shape(1)[1:])),)
        self.outputs = (TensorSpec(signature.outputs[0].name, "FP32", (-1, encoder.identity.dimensions)),)
        self.max_batch = batcher.most
        self.stateful = self.brief = False
        self.variant = engine.variant
        self.platform = f"{engine.variant.partition('-')[0]}_onnx"
        self.labels: Mapping[str, Sequence[str]] = {}
        self.declared = None
        self._tally = Tally()
        self._shares: Counter[int] = Counter()  # by size of run, rows of runs that are not counted yet
        self._lock = threading.Lock()

    def infer(
        self, inputs: Tensors, *, caller: Caller, wanted: Collection[str] = (), step: SequenceStep | None = None
    ) -> Answer:
        """See Model. InvalidInput also for numbers that are not finite, of which no embedding can be made."""
        with timed(self._tally) as began:
            rows = check_inputs(self.name, self.inputs, inputs, max_batch=self.max_batch)
            check_wanted(self.name, self.outputs, wanted)
            check_step(self.name, step, stateful=False, rows=rows)
            pixels = inputs[self.inputs[0].name]
            if not np.isfinite(pixels).all():
                raise InvalidInput(
                    f"input {self.inputs[0].name!r} has numbers that are not finite; send pixels",
                    field=self.inputs[0].name,
                )
            return self._counted(self._batcher.submit({PIXELS: pixels}, caller=caller), rows, began)

    def embed(self, pictures: Pixels, sight: Sight, caller: Caller) -> Answer:
        """The answer to pictures of the encoder's size; raises what `sight` does."""
        with timed(self._tally) as began:
            return self._counted(sight(pictures, clock=Clock(), caller=caller), len(pictures), began)

    def _counted(self, answer: Answer, rows: int, began: int) -> Answer:
        answer = replace(answer, outputs={self.outputs[0].name: answer.outputs[EMBEDDING]})
        self._ran(answer, rows)
        self._tally.answered(answer, rows, time.perf_counter_ns() - began)
        return answer

    def at_once(self, *_: Any, **__: Any) -> None:
        """See Model; an encoder is never brief."""

    def leave(self, owner: Hashable) -> None:
        """See Model; there is no state."""

    def statistics(self) -> Statistics:
        """See Model."""
        return self._tally.copy()

    def _ran(self, answer: Answer, rows: int) -> None:
        """Counts runs by the rows that were this model's: as many rows of runs of a size make one run of that size."""
        with self._lock:
            self._shares[answer.batch] += rows
            full = self._shares[answer.batch] >= answer.batch
            if full:
                self._shares[answer.batch] -= answer.batch
        if full:
            self._tally.ran(answer.batch, answer.infer_ns)


class MediaModel:
    """Pictures as files to embeddings: decoded here, seen by the encoder. See Model.

    Each row is one JPEG or PNG file, or one H.264 access unit in Annex B form that needs no other: an IDR picture with
    its parameter sets.

    Args:
        encoder: answers for the pictures.
        engine: whose encoder says what they have to be.
        sight: of the engine.
        limits: of each row.
    """

    def __init__(self, encoder: EncoderModel, engine: Engine, sight: Sight, *, limits: MediaLimits) -> None:
        self._encoder = encoder
        self._described = engine.encoder
        self._sight = sight
        self._limits = limits
        self.name, self.version = f"{encoder.name}-media", encoder.version
        self.inputs = (TensorSpec(MEDIA_INPUT, "BYTES", (-1, 1)),)
        self.outputs = encoder.outputs
        self.max_batch = encoder.max_batch
        self.stateful = self.brief = False
        self.variant = encoder.variant
        self.platform = encoder.platform  # no "ensemble", as clients look for the models that one is made of
        self.labels: Mapping[str, Sequence[str]] = {}
        self.declared = None
        self._tally = Tally()

    def infer(
        self, inputs: Tensors, *, caller: Caller, wanted: Collection[str] = (), step: SequenceStep | None = None
    ) -> Answer:
        """See Model. UnreadableMedia and MediaLimitExceeded for a row that is no picture or too large a one."""
        with timed(self._tally) as began:
            rows = check_inputs(self.name, self.inputs, inputs, max_batch=self.max_batch)
            check_wanted(self.name, self.outputs, wanted)
            check_step(self.name, step, stateful=False, rows=rows)
            encoder, converter = self._described, Converter(self._described.input)
            pictures = np.empty((rows, encoder.input.height, encoder.input.width, 3), np.uint8)
            for row, data in enumerate(inputs[MEDIA_INPUT][:, 0]):
                caller.check()
                with told_of_row(row):
                    pictures[row] = picture(data, converter, self._limits)
            decoded_ns = time.perf_counter_ns() - began
            answer = self._encoder.embed(pictures, self._sight, caller)
            answer = replace(answer, input_ns=answer.input_ns + decoded_ns)
            self._tally.ran(rows, answer.infer_ns)
            self._tally.answered(answer, rows, time.perf_counter_ns() - began)
        return answer

    def at_once(self, *_: Any, **__: Any) -> None:
        """See Model; an encoder is never brief."""

    def leave(self, owner: Hashable) -> None:
        """See Model; there is no state."""

    def statistics(self) -> Statistics:
        """See Model."""
        return self._tally.copy()


def picture(data: bytes, converter: Converter, limits: MediaLimits) -> Pixels:
    """(height, width, 3) uint8, as the pipeline would make it of the same bytes.

    Raises:
        UnreadableMedia, MediaLimitExceeded: there is no picture in the bytes, or too large a one.
    """
    if not data.startswith(START_CODES):
        return images.still(data, converter, limits)
    media = Media(Container(ByteFeed([data]), "h264"), Sampling(shots=ShotMode.OFF), limits)
    with closing(frames_and_cuts(media, converter.size, MediaReport(), Clock())) as events:
        for event in events:
            if isinstance(event, Frame):
                return event.rgb
    raise UnreadableMedia("there is no picture in it; send a whole JPEG, PNG or H.264 IDR picture")


@contextmanager
def timed(tally: Tally) -> Iterator[int]:
    """The time at which a request came, by time.perf_counter_ns(); where the block raises, it counts as failed."""
    began = time.perf_counter_ns()
    try:
        yield began
    except BaseException:
        tally.failed(time.perf_counter_ns() - began)
        raise


@contextmanager
def told_of_row(row: int) -> Iterator[None]:
    """Puts the row's number before the message of an error."""
    try:
        yield
    except MatchcutError as error:
        error.message = f"row {row} of {MEDIA_INPUT!r}: {error.message}"
        error.field = MEDIA_INPUT
        raise
