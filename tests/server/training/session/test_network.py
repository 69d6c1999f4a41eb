"""What the models compute: a GRU whose steps are as long as events are strong, causal attention, and item vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from matchcut.server.errors import InvalidInput
from matchcut.server.training.session.gru import Gru
from matchcut.server.training.session.network import Network
from matchcut.server.training.session.sasrec import SasRec
from matchcut.server.training.session.settings import Settings
from matchcut.server.training.session.tower import Tower, unit


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def gru() -> Gru:
    made = Gru(6, 8, gain=2.0, dropout=0.5)
    made.eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return made


def sasrec(window: int = 4) -> SasRec:
    made = SasRec(6, window, layers=2, heads=2, inner=12, gain=2.0, dropout=0.5)
    made.eval()
    for weight in made.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return made


def test_with_events_of_full_strength_it_is_torchs_gru(gru: Gru) -> None:
    x, w = torch.randn(3, 7, 6), torch.ones(3, 7)
    torch.testing.assert_close(gru(x, w), gru(x, w, plain=True), atol=1e-6, rtol=1e-5)


def test_a_weaker_event_moves_the_state_by_as_much_less(gru: Gru) -> None:
    x, h = torch.randn(5, 6), torch.randn(5, 8)
    whole, _ = gru.step(x, h, torch.ones(5, 1))
    for share in (0.5, 0.01):
        part, wanted = gru.step(x, h, torch.full((5, 1), share))
        torch.testing.assert_close(part, h + share * (whole - h), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(wanted, gru.out(part))


@pytest.mark.parametrize("length", [1, 3, 4, 5, 11])
def test_steps_come_to_what_a_whole_history_does(gru: Gru, length: int) -> None:
    x, w = torch.randn(3, length, 6), torch.rand(3, length)
    for model in (gru, sasrec()):
        h = torch.zeros(3, model.width)
        for at in range(length):
            h, wanted = model.step(x[:, at], h, w[:, at, None])
        if isinstance(model, SasRec):
            whole = model.last(x, w.unsqueeze(2), torch.full((3,), length))
            if length <= model.window:
                torch.testing.assert_close(model(x, w)[:, -1], whole, atol=1e-5, rtol=1e-5)
        else:
            whole = model(x, w)[:, -1]
        torch.testing.assert_close(wanted, whole, atol=1e-5, rtol=1e-5)


def test_nothing_is_known_of_what_comes_later(gru: Gru) -> None:
    x, w = torch.randn(2, 4, 6), torch.rand(2, 4)
    other = x.clone()
    other[:, 3] = torch.randn(2, 6)
    for model in (gru, sasrec()):
        before, after = model(x, w), model(other, w)
        torch.testing.assert_close(before[:, :3], after[:, :3])
        assert not torch.allclose(before[:, 3], after[:, 3])


def test_sasrec_looks_back_on_its_window_alone() -> None:
    model = sasrec(window=3)
    x, w = torch.randn(2, 6, 6), torch.ones(2, 6, 1)
    other = x.clone()
    other[:, :3] = torch.randn(2, 3, 6)
    lengths = torch.tensor([6, 6])
    torch.testing.assert_close(model.last(x, w, lengths), model.last(other, w, lengths))
    other[:, 3] = 0
    assert not torch.allclose(model.last(x, w, lengths), model.last(other, w, lengths))


def tower(**given: bool) -> Tower:
    chosen = {"use_content": True, "use_ids": True, "normalise": True, **given}
    made = Tower(5, 3, 4, **chosen)
    made.centre(unit(torch.randn(20, 5)))
    return made


def test_item_vectors_have_unit_length_or_are_nothing() -> None:
    content = torch.cat((unit(torch.randn(3, 5)), torch.zeros(1, 5)))
    lengths = tower()(content, torch.tensor([1, 2, 0, 0])).norm(dim=1)
    torch.testing.assert_close(lengths, torch.tensor([1.0, 1, 1, 0]))


def test_an_item_without_a_learnt_id_is_its_content_and_one_without_content_its_id() -> None:
    made = tower()
    content, index = unit(torch.randn(3, 5)), torch.tensor([1, 2, 3])
    dropped = made(content, index, torch.zeros(3, 1))
    torch.testing.assert_close(dropped, made(content, torch.zeros(3, dtype=torch.int64)))
    assert not torch.allclose(dropped, made(content, index))
    nothing = torch.zeros(3, 5)
    assert made.table is not None
    assert made.gate is not None
    torch.testing.assert_close(made(nothing, index), unit(made.table.weight[1:] * torch.sigmoid(made.gate)))


def test_what_vectors_are_made_of_can_be_chosen() -> None:
    content, index = unit(torch.randn(3, 5)), torch.tensor([1, 2, 3])
    ids = tower(use_content=False)
    torch.testing.assert_close(ids(content, index), ids(unit(torch.randn(3, 5)), index))
    alone = tower(use_ids=False)
    torch.testing.assert_close(alone(content, index), alone(content, index * 0))
    assert tower(normalise=False)(content, index).norm(dim=1).max() > 1


def test_centring_takes_out_what_all_have_in_common() -> None:
    content = unit(torch.randn(200, 5) * 0.05 + torch.tensor([1.0, 1, 1, 1, 1]))
    made = Tower(5, 0, 4, use_content=True, use_ids=False, normalise=True)
    assert made(content, torch.zeros(200, dtype=torch.int64)).mean(0).norm() > 0.9
    made.centre(torch.cat((content, torch.zeros(300, 5))))
    assert made(content, torch.zeros(200, dtype=torch.int64)).mean(0).norm() < 0.3


def test_scores_are_cosines_times_a_temperature() -> None:
    network = Network(Settings(dimensions=4, width=6), unit(torch.randn(7, 5)), torch.tensor([1, 4])).eval()
    vectors = network.items()
    wanted = network.wanted(vectors[torch.tensor([[0, 1]])], torch.ones(1, 2))
    torch.testing.assert_close(wanted.norm(dim=2), torch.full((1, 2), 14.0), rtol=1e-4, atol=1e-4)
    assert vectors.shape == (7, 4)
    assert network.index.tolist() == [0, 1, 0, 0, 2, 0, 0]
    torch.testing.assert_close(vectors[4], network.tower(network.content[4:5], torch.tensor([2]))[0])
    torch.testing.assert_close(vectors[5], network.tower(network.content[5:6], torch.tensor([0]))[0])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kind": "lstm"}, "gru, sasrec"),
        ({"metric": "map"}, "recall, mrr or ndcg"),
        ({"content": False, "ids": False}, "content, ids, or both"),
        ({"dimensions": 0}, "at least 1"),
        ({"window": 1}, "at least 2"),
        ({"kind": "sasrec", "window": 0}, "at least 2"),
        ({"kind": "sasrec", "dimensions": 5}, "do not part"),
        ({"dropout": 1.0}, "below 1"),
        ({"id_dropout": -0.1}, "from 0"),
        ({"rate": 0.0}, "above 0"),
        ({"rate": float("nan")}, "above 0"),
    ],
)
def test_settings_that_cannot_be(given: dict[str, object], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        Settings(**given)  # type: ignore[arg-type]


def test_settings_come_back_from_plain_values() -> None:
    settings = Settings(kind="sasrec", seed=3)
    assert Settings.of({**settings.table(), "unknown": 1}) == settings
    assert np.isfinite(settings.rate)
