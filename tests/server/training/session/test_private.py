"""Private training: what bounds a user's influence, and that what it comes to is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.records import Floats
from matchcut.server.training.session import private
from matchcut.server.training.session.batches import Histories, padded
from matchcut.server.training.session.dataset import Dataset, Row, made
from matchcut.server.training.session.fitting import fresh, loss_of
from matchcut.server.training.session.judging import histories
from matchcut.server.training.session.network import Network
from matchcut.server.training.session.private import Privacy
from matchcut.server.training.session.settings import Settings


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def used(rows: list[Row], vectors: dict[str, Floats]) -> Dataset:
    return made(rows, vectors)


def network_of(data: Dataset, settings: Settings) -> Network:
    return fresh(data, settings, np.arange(len(data.content)))


def optimizer(network: Network, noise: float, clip: float) -> object:
    from opacus.optimizers import DPOptimizer

    return DPOptimizer(
        torch.optim.SGD(network.parameters(), lr=1.0),
        noise_multiplier=noise,
        max_grad_norm=clip,
        expected_batch_size=1,
        loss_reduction="mean",
    )


@pytest.mark.parametrize("kind", ["gru", "sasrec"])
def test_a_users_gradient_is_that_of_their_own_loss(used: Dataset, small: Settings, kind: str) -> None:
    settings = replace(small, kind=kind, dropout=0.0, id_dropout=0.0)
    network = network_of(used, settings)
    few = [(items[:n], strengths[:n]) for (items, strengths), n in zip(histories(used), (2, 5, 9), strict=False)]
    found = private.gradients(network, few)
    for at, history in enumerate(few):
        network.zero_grad()
        loss_of(network, padded([history]), np.random.default_rng(0)).backward()
        for name, weight in network.named_parameters():
            wanted = torch.zeros_like(weight) if weight.grad is None else weight.grad
            torch.testing.assert_close(found[name][at], wanted, atol=1e-5, rtol=1e-3)


def moved(data: Dataset, settings: Settings, taken: Histories, clip: float, at_once: int = 10) -> tuple[float, Tensor]:
    """How far one step without noise moves the weights, and the norms before."""
    torch.manual_seed(0)
    network = network_of(data, settings)
    before = torch.cat([weight.detach().flatten().clone() for weight in network.parameters()])
    norms = private.step(network, optimizer(network, 0.0, clip), taken, at_once, np.random.default_rng(0))
    after = torch.cat([weight.detach().flatten() for weight in network.parameters()])
    return float((after - before).norm()), norms


def test_a_user_moves_the_model_by_the_clip_however_many_events_they_have(used: Dataset, small: Settings) -> None:
    long = (np.tile(np.arange(40), 25), np.ones(1000, np.float32))
    short = (np.array([1, 2]), np.ones(2, np.float32))
    for user in (long, short):
        distance, norms = moved(used, small, [user], clip=0.01)
        assert float(norms[0]) > 0.1  # or there was nothing to cut
        assert distance == pytest.approx(0.01, rel=1e-3)
    distance, norms = moved(used, small, [long], clip=1e6)
    assert distance == pytest.approx(float(norms[0]), rel=1e-3)


def test_users_are_cut_one_by_one_also_where_few_are_taken_at_a_time(used: Dataset, small: Settings) -> None:
    settings, whole = replace(small, dropout=0.0, id_dropout=0.0), histories(used)[:7]
    together, norms = moved(used, settings, whole, clip=0.01)
    few, again = moved(used, settings, whole, clip=0.01, at_once=3)
    torch.testing.assert_close(norms, again)
    assert len(norms) == 7
    assert few == pytest.approx(together, rel=1e-4)
    assert together <= 7 * 0.01 * 1.001


def test_a_step_that_takes_nobody_adds_noise_all_the_same(used: Dataset, small: Settings) -> None:
    distance, norms = moved(used, small, [], clip=1.0)
    assert distance == 0
    assert not len(norms)
    network = network_of(used, small)
    before = torch.cat([weight.detach().flatten().clone() for weight in network.parameters()])
    private.step(network, optimizer(network, 2.0, 0.5), [], 10, np.random.default_rng(0))
    change = torch.cat([weight.detach().flatten() for weight in network.parameters()]) - before
    assert float(change.std()) == pytest.approx(1.0, rel=0.05)  # noise times clip


def test_epsilon_is_spent_and_told(used: Dataset, small: Settings) -> None:
    settings, privacy = replace(small, epochs=3, window=4), Privacy(8.0, 1e-3, users=20)
    taken: list[int] = []
    train = histories(used)
    fitted, spent = private.fit_privately(
        used, train, settings, privacy, told=lambda _, norms: taken.append(len(norms)), seed=1
    )
    assert 0 < spent.epsilon <= 8.0
    assert (spent.delta, spent.steps, spent.users, spent.unit) == (1e-3, 12, 80, "user")
    assert spent.noise > 0.3
    assert spent.rate == pytest.approx(0.25)
    assert len(taken) == 12
    assert len(set(taken)) > 1  # each user is taken by chance
    assert 12 < np.mean(taken) < 28
    assert all(torch.isfinite(weight).all() for weight in fitted.network.parameters())
    from opacus.accountants import RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(spent.noise, spent.rate, spent.steps)]
    assert accountant.get_epsilon(spent.delta) == pytest.approx(spent.epsilon)


def test_noise_is_another_each_time(used: Dataset, small: Settings) -> None:
    settings, privacy, train = replace(small, epochs=1, window=2), Privacy(50.0, 1e-3, users=80), histories(used)[:20]
    first, second = (private.fit_privately(used, train, settings, privacy)[0].network for _ in range(2))
    assert not torch.equal(first.history.out.weight, second.history.out.weight)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"epsilon": float("nan")}, "epsilon is nan"),
        ({"delta": 1.0}, "between 0 and 1"),
        ({"clip": -1.0}, "clip is -1.0"),
        ({"users": 0}, "at least 1"),
    ],
)
def test_promises_that_cannot_be(given: dict[str, float], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        Privacy(**{"epsilon": 1.0, "delta": 1e-5, **given})  # type: ignore[arg-type]


def test_what_would_break_the_promise_is_refused(used: Dataset, rows: list[Row], small: Settings) -> None:
    train, privacy = histories(used), Privacy(8.0, 1e-3)
    with pytest.raises(InvalidInput, match="at least two users"):
        private.fit_privately(used, train[:1], small, privacy)
    with pytest.raises(InvalidInput, match=r"must be below 0\.013"):
        private.fit_privately(used, train, small, Privacy(8.0, 0.02))
    with pytest.raises(InvalidInput, match="items are those that have a vector"):
        private.fit_privately(made(rows), train, small, privacy)
    with pytest.raises(InvalidInput, match="softmax over all items, up to 10"):
        private.fit_privately(used, train, replace(small, full=10), privacy)


def test_an_epsilon_that_no_noise_reaches_says_so(used: Dataset, small: Settings) -> None:
    with pytest.raises(InvalidInput, match="no noise reaches an epsilon"):
        private.fit_privately(used, histories(used), small, Privacy(1e-9, 1e-12))


def test_gradients_that_are_no_numbers_end_it(used: Dataset, small: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "step", lambda *_: torch.tensor([float("nan")]))
    with pytest.raises(EngineFailed, match="lower --rate"):
        private.fit_privately(used, histories(used), small, Privacy(8.0, 1e-3))
