"""Pictures to embeddings: preprocessed by a device or by the engine itself, and the stages that are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.kernels.cpu import Cpu
from matchcut.kernels.preprocess import preprocess
from matchcut.server import models
from matchcut.server.clock import Clock
from matchcut.server.engines import Engine, SeeingEngine
from matchcut.server.engines.base import Seen
from matchcut.server.errors import Cancelled, EngineFailed
from matchcut.server.feed import Caller
from matchcut.server.records import EncoderIdentity, Floats, InputSize, Pixels
from matchcut.server.sight import EMBEDDING, PICTURES, PIXELS, Sight, shared, tune

ENCODER = models.Encoder(
    Path("means.onnx"), EncoderIdentity("means", "1", "ab" * 32, 3), InputSize(8, 8), (10, 20, 30), (2, 4, 8)
)
MS = 1_000_000


class Means:
    """An engine that gives the mean of each channel."""

    encoder, variant = ENCODER, "means-fp32"

    def __init__(self) -> None:
        self.ran: list[tuple[str, int]] = []

    def run(self, batch: Floats) -> Floats:
        self.ran.append(("run", len(batch)))
        vectors: Floats = batch.mean((2, 3))
        return vectors

    def close(self) -> None:
        """Nothing is held."""


class Seeing(Means):
    """One that preprocesses by itself, which it says takes three milliseconds."""

    sight = "cuda-90"
    fails = False

    def see(self, pictures: Pixels) -> Seen:
        self.ran.append(("see", len(pictures)))
        if self.fails:
            raise EngineFailed("it failed")
        return Seen(wanted(pictures), 3 * MS)


def pictures(n: int) -> Pixels:
    return np.random.default_rng(n).integers(0, 256, (n, 8, 8, 3), np.uint8)


def wanted(shown: Pixels) -> Floats:
    return Means().run(preprocess(shown, ENCODER.mean, ENCODER.std, "NCHW"))


def sight(engine: Engine, most: int = 8) -> Sight:
    return Sight(engine, shared(engine, most=most, queue=16), Cpu())


def test_which_engines_see() -> None:
    assert isinstance(Seeing(), SeeingEngine)
    assert not isinstance(Means(), SeeingEngine)


@pytest.mark.parametrize(("made", "way", "variant"), [(Means, "run", "cpu-numpy"), (Seeing, "see", "cuda-90")])
def test_what_comes_out_and_what_is_told(made: type[Means], way: str, variant: str) -> None:
    engine, clock, shown = made(), Clock(), pictures(5)
    answer = sight(engine)(shown, clock=clock, caller=Caller())
    np.testing.assert_allclose(answer.outputs[EMBEDDING], wanted(shown), rtol=1e-6)
    assert engine.ran == [(way, 5)]
    stages = {stage.name: stage for stage in clock.times().stages}
    assert (stages["preprocess"].variant, stages["encode"].variant) == (variant, "means-fp32")
    assert stages["preprocess"].counts == {"frames": 5}
    assert stages["encode"].counts == {"frames": 5, "runs": 1, "batched": 5}
    assert stages["queue"].wall_us >= 0


def test_the_time_of_preprocessing_is_taken_from_the_runs() -> None:
    clock = Clock()
    answer = sight(Seeing())(pictures(2), clock=clock, caller=Caller())
    stages = {stage.name: stage.wall_us for stage in clock.times().stages}
    assert stages["preprocess"] == 3000
    assert answer.input_ns >= 3 * MS
    assert answer.infer_ns < answer.input_ns, "it was counted twice"


def test_pictures_and_numbers_share_a_batcher_but_no_run() -> None:
    engine = Seeing()
    batcher = shared(engine, most=8, queue=16)
    shown = pictures(3)
    seen = Sight(engine, batcher, Cpu())(shown, clock=Clock(), caller=Caller())
    pixels = preprocess(shown, ENCODER.mean, ENCODER.std, "NCHW")
    ran = batcher.submit({PIXELS: pixels}, caller=Caller())
    np.testing.assert_allclose(seen.outputs[EMBEDDING], ran.outputs[EMBEDDING], rtol=1e-6)
    assert engine.ran == [("see", 3), ("run", 3)]


def test_it_is_measured_by_the_way_that_it_is_used() -> None:
    for engine, way in ((Means(), "run"), (Seeing(), "see")):
        batcher = shared(engine, most=4, queue=16)
        assert 1 <= tune(batcher, engine) <= 4
        assert {name for name, _ in engine.ran} == {way}


def test_all_sizes_are_warm_before_any_is_measured() -> None:
    """Else one that compiles at its first run would be taken for slow, and requests not joined."""
    engine = Seeing()
    tune(shared(engine, most=6, queue=16), engine)
    assert [n for _, n in engine.ran[:12]] == [1, 1, 1, 2, 2, 2, 4, 4, 4, 6, 6, 6]
    assert len(engine.ran) > 12


def test_an_engine_that_takes_no_pictures_is_given_none() -> None:
    batcher: Any = shared(Means(), most=4, queue=16)
    with pytest.raises(KeyError):
        batcher.submit({PICTURES: pictures(1)}, caller=Caller())


def test_a_failing_engine_and_a_caller_who_is_gone() -> None:
    engine = Seeing()
    engine.fails = True
    with pytest.raises(EngineFailed, match="it failed"):
        sight(engine)(pictures(1), clock=Clock(), caller=Caller())
    engine.fails, gone = False, Caller()
    gone.leave()
    with pytest.raises(Cancelled):
        sight(engine)(pictures(1), clock=Clock(), caller=gone)
    assert engine.ran == [("see", 1)]
