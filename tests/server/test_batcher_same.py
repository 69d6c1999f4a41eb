"""Batching never changes an answer: bit for bit where the model works row by row, else within its own rounding."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matchcut.server import engines, models
from matchcut.server.batcher import Answer, Batcher
from matchcut.server.engines import Engine
from matchcut.server.engines.trial import frames, least_cosine
from matchcut.server.feed import Caller
from matchcut.server.records import Floats
from matchcut.server.sight import shared
from support.batching import PATIENCE, Arrays, Asking, Record

# Of EfficientNet-Lite0 in float32: how far a number may be from the one of another batch size, as a share of the
# largest. The libraries add up in another order then; 1e-5 is a hundred units in the last place.
TOLERANCE = 1e-5


def mixed(inputs: Arrays) -> Arrays:
    """Two outputs of two inputs, row by row, whose every bit depends on every bit of the row."""
    x, z = inputs["x"], inputs["z"]
    bits = x.view(np.uint32) * np.uint32(2654435761)
    return {"bits": bits ^ bits.sum(axis=1, dtype=np.uint32)[:, None], "pair": z[:, ::-1] + z[:, :1] / 7}


request = st.tuples(st.integers(1, 9), st.sampled_from([1, 3]), st.sampled_from(["a", "b", None]))


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(request, min_size=1, max_size=12),
    most=st.integers(1, 8),
    workers=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_answer_is_that_of_a_run_alone(
    requests: list[tuple[int, int, str | None]], most: int, workers: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    record = Record()
    batcher = Batcher(mixed, name="mixed", most=most, queue=1000, workers=workers, watcher=record)
    inputs = [
        {
            "x": random.integers(0, 2**32, (count, width), np.uint32).view(np.float32),
            "z": random.integers(-9, 9, (count, 2)).astype(np.float32),
        }
        for count, width, _ in requests
    ]
    kept = [{name: array.tobytes() for name, array in one.items()} for one in inputs]
    asking = [Asking(batcher, one, client=requests[at][2]) for at, one in enumerate(inputs)]
    for at, one in enumerate(asking):
        answer, alone = one.result(), mixed(inputs[at])
        assert {name: array.tobytes() for name, array in answer.outputs.items()} == {
            name: array.tobytes() for name, array in alone.items()
        }
        assert {name: array.shape for name, array in answer.outputs.items()} == {
            name: array.shape for name, array in alone.items()
        }
        assert {name: array.tobytes() for name, array in inputs[at].items()} == kept[at]
    assert sum(record.batches) == sum(count for count, _, _ in requests)
    assert max(record.batches) <= most
    assert not record.dropped_by
    batcher.close()


class Held:
    """An engine whose first run waits, so that all others meet in the second."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.encoder, self.variant = engine.encoder, engine.variant
        self.begun, self.go = threading.Event(), threading.Event()
        self.sizes: list[int] = []

    def run(self, batch: Floats) -> Floats:
        self.sizes.append(len(batch))
        if len(self.sizes) == 1:
            self.begun.set()
            assert self.go.wait(PATIENCE)
        return self._engine.run(batch)

    def close(self) -> None:
        self._engine.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """The default encoder on ONNX Runtime, one thread."""
    encoder = models.load(models.default_encoder(tmp_path_factory.mktemp("cache")))
    opened = engines.load(encoder, engine="onnxruntime", threads=1)
    yield opened
    opened.close()


def met(engine: Engine, pictures: Floats) -> list[Answer]:
    """The answers to pictures that were sent one by one and ran together, behind a first run."""
    held, record = Held(engine), Record()
    batcher = shared(held, most=len(pictures), queue=64, watcher=record)
    first = Asking(batcher, {"pixels": pictures[:1]})
    assert held.begun.wait(PATIENCE)
    asking = []
    for at in range(len(pictures)):
        asking.append(Asking(batcher, {"pixels": pictures[at : at + 1]}))
        record.waiting(at + 1)
    held.go.set()
    first.over()
    answers = [one.result() for one in asking]
    assert held.sizes == [1, len(pictures)]
    return answers


def test_the_default_encoder_gives_the_same_bits_at_the_same_batch_size(engine: Engine) -> None:
    pictures = frames(engine.encoder)[:4]
    together = engine.run(pictures)
    answers = met(engine, pictures)
    assert {answer.batch for answer in answers} == {4}
    found = np.concatenate([answer.outputs["embedding"] for answer in answers])
    assert found.tobytes() == together.tobytes()
    assert not np.array_equal(found[0], found[1])


def test_the_default_encoder_differs_by_rounding_at_another_batch_size(engine: Engine) -> None:
    pictures = frames(engine.encoder)[:4]
    alone = np.concatenate([engine.run(pictures[at : at + 1]) for at in range(4)])
    found = np.concatenate([answer.outputs["embedding"] for answer in met(engine, pictures)])
    assert np.abs(found - alone).max() <= TOLERANCE * np.abs(alone).max()
    assert least_cosine(found, alone) > 0.9999999


def test_numbers_that_are_not_finite_fail_their_sender_only(engine: Engine, small_encoder: Path) -> None:
    small = engines.load(models.load(small_encoder), engine="onnxruntime", threads=1)
    good = np.ones((1, 3, 32, 32), np.float32)
    held, record = Held(small), Record()
    batcher = shared(held, most=8, queue=64, watcher=record)
    first = Asking(batcher, {"pixels": good})
    assert held.begun.wait(PATIENCE)
    sent = [good, np.full_like(good, np.nan), 2 * good]
    asking = []
    for at, pixels in enumerate(sent):
        asking.append(Asking(batcher, {"pixels": pixels}))
        record.waiting(at + 1)
    held.go.set()
    assert getattr(asking[1].failure(), "reason", "") == "ENGINE_FAILED"
    for one, pixels in ((first, good), (asking[0], good), (asking[2], 2 * good)):
        assert one.result().outputs["embedding"].tobytes() == small.run(pixels).tobytes()
    assert held.sizes == [1, 3, 1, 1, 1]
    batcher.close()
    small.close()


def test_the_caller_alone_gets_what_the_engine_gives(engine: Engine) -> None:
    pictures = frames(engine.encoder)[:3]
    answer = shared(engine, most=4, queue=4).submit({"pixels": pictures}, caller=Caller())
    assert answer.outputs["embedding"].tobytes() == engine.run(pictures).tobytes()
