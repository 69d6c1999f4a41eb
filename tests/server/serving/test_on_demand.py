"""A model that comes with the server and is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from matchcut.server.errors import EngineFailed, InvalidInput, NotFound, Unavailable
from matchcut.server.feed import Caller
from matchcut.server.models import temporal
from matchcut.server.serving import ModelState, SequenceStep
from matchcut.server.serving.on_demand import OnDemand, recurrent
from matchcut.server.serving.served import Limits, Served

SIZE, HALF_LIFE = 16, 2.0


class Maker:
    """Makes the model, and counts."""

    def __init__(self) -> None:
        self.made = 0
        self.fails = False

    def __call__(self) -> Served:
        self.made += 1
        if self.fails:
            raise EngineFailed("on purpose")
        return recurrent(temporal.step(None, dimensions=SIZE, half_life=HALF_LIFE), Limits(threads=1))


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def repository(maker: Maker) -> Iterator[OnDemand]:
    opened = OnDemand("gru", "1", maker)
    yield opened
    opened.close()
    opened.close()  # may be called twice


def test_it_is_made_once_and_not_before_it_is_needed(repository: OnDemand, maker: Maker) -> None:
    assert [(entry.name, entry.version, entry.state) for entry in repository.index()] == [
        ("gru", "1", ModelState.READY)
    ]
    assert repository.versions("gru") == ["1"]
    assert maker.made == 0
    model = repository.model("gru")
    repository.load("gru")
    assert repository.model("gru", "1") is model
    assert maker.made == 1
    assert (model.stateful, [spec.name for spec in model.inputs]) == (True, ["x"])
    assert [spec.name for spec in model.outputs] == ["h_next"], "all that it gives is its next state"


def test_what_cannot_be_made_is_tried_again(repository: OnDemand, maker: Maker) -> None:
    maker.fails = True
    with pytest.raises(EngineFailed):
        repository.model("gru")
    maker.fails = False
    assert repository.model("gru").name == "gru"


def test_others_are_not_there(repository: OnDemand) -> None:
    for ask in (repository.model, repository.versions, repository.load, repository.unload):
        with pytest.raises(NotFound, match="there is no model 'lstm'"):
            ask("lstm")
    with pytest.raises(NotFound, match="no model 'gru' of version 2"):
        repository.model("gru", "2")
    with pytest.raises(InvalidInput, match="belongs to the server and stays"):
        repository.unload("gru")


def test_its_sequences_are_decaying_means(repository: OnDemand) -> None:
    model, owner = repository.model("gru"), object()
    vectors = np.random.default_rng(0).standard_normal((6, SIZE)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kept, mean = 2 ** (-1 / HALF_LIFE), np.zeros(SIZE)
    for at, vector in enumerate(vectors):
        mean = kept * mean + (1 - kept) * vector
        step = SequenceStep(7, owner, start=at == 0)
        state = model.infer({"x": vector[np.newaxis]}, caller=Caller(), step=step).outputs["h_next"][0]
        assert state @ mean / np.linalg.norm(state) / np.linalg.norm(mean) > 1 - 1e-5
    model.leave(owner)
    with pytest.raises(InvalidInput):  # it was its owner's
        model.infer({"x": vectors[:1]}, caller=Caller(), step=SequenceStep(7, owner))


def test_closed_it_serves_no_more(maker: Maker) -> None:
    opened = OnDemand("gru", "1", maker)
    model = opened.model("gru")
    opened.close()
    with pytest.raises(Unavailable):
        model.infer({"x": np.zeros((1, SIZE), np.float32)}, caller=Caller(), step=SequenceStep(1, object(), start=True))
