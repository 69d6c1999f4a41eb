"""The sampled softmax stands for the full one: its sum is right in the mean, and its loss near where many are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from matchcut.server.training.session.losses import Sampler, full, sampled

ITEMS, DIMENSIONS = 60, 6


@pytest.fixture
def world() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Queries, items, targets and weights."""
    torch.manual_seed(0)
    return torch.randn(9, DIMENSIONS), torch.randn(ITEMS, DIMENSIONS), torch.arange(9) * 5, torch.rand(9) + 0.1


def drawn_loss(world: tuple[Tensor, Tensor, Tensor, Tensor], sampler: Sampler, count: int, seed: int) -> Tensor:
    queries, items, targets, weights = world
    numbers = sampler.draw(count, np.random.default_rng(seed))
    return sampled(
        queries,
        items[targets],
        items[numbers],
        weights,
        targets=targets,
        numbers=torch.from_numpy(numbers),
        log_q=torch.from_numpy(sampler.log_q[numbers]).float(),
    )


def test_the_full_loss_is_the_weighted_mean_of_minus_log_softmax(world: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    queries, items, targets, weights = (each.double().numpy() for each in world)
    scores = queries @ items.T
    each = np.log(np.exp(scores).sum(1)) - scores[np.arange(9), targets.astype(int)]
    assert float(full(*world)) == pytest.approx((each * weights).sum() / weights.sum(), rel=1e-5)


def test_the_drawn_sum_has_the_full_ones_as_its_mean(world: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    queries, items, targets, _ = world
    sampler = Sampler(np.arange(ITEMS) ** 2)  # very uneven
    one = torch.ones(1)
    scores = (queries[:1] @ items.T)[0].double()
    sums = []
    for seed in range(2000):
        loss = drawn_loss((queries[:1], items, targets[:1], one), sampler, 40, seed)
        sums.append(float(torch.exp(loss.double() + scores[targets[0]])))
    error = np.std(sums) / np.sqrt(len(sums))
    wanted = float(torch.exp(scores).sum())
    assert abs(np.mean(sums) - wanted) < 4 * error
    assert error < 0.03 * wanted  # or the test could not fail


def test_it_comes_near_the_full_loss_and_its_gradient_where_many_are_drawn(
    world: tuple[Tensor, Tensor, Tensor, Tensor],
) -> None:
    sampler = Sampler(np.arange(ITEMS))
    queries = world[0].requires_grad_()
    exact = full(*world)
    (wanted,) = torch.autograd.grad(exact, queries)
    near = drawn_loss(world, sampler, 20_000, 1)
    (found,) = torch.autograd.grad(near, queries)
    assert near.item() == pytest.approx(exact.item(), abs=0.02)
    torch.testing.assert_close(found, wanted, atol=0.03, rtol=0.05)
    # Without the correction for how often each is drawn it would not.
    flat = Sampler(np.arange(ITEMS))
    flat.log_q = np.full(ITEMS, -np.log(ITEMS))
    assert abs(drawn_loss(world, flat, 20_000, 1).item() - exact.item()) > 0.05


def test_each_item_can_be_drawn_and_as_often_as_is_said() -> None:
    sampler = Sampler(np.array([0, 10, 1000]))
    found = np.bincount(sampler.draw(100_000, np.random.default_rng(0)), minlength=3) / 100_000
    np.testing.assert_allclose(found, np.exp(sampler.log_q), atol=0.01)
    assert np.exp(sampler.log_q).sum() == pytest.approx(1)
    assert found[0] > 0
