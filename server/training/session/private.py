"""Training with differential privacy: what comes out depends but a little on any one user.

DP-SGD (M. Abadi et al., arXiv:1607.00133) through Opacus, with a user, not an event, as the unit: two sets of events
are neighbours if one has one user more, with all events of that user. Each step takes each user with the same chance
(Poisson sampling), computes one gradient a user from one piece of the history, cuts it to a norm of at most `clip`,
adds them up, and adds normal noise. Opacus' accountant of Renyi differential privacy says what epsilon that comes to.

What is covered: the weights. Not covered, and so kept out of the model's folder: figures measured on the users' events.
There is no early stopping, which would look at them, and items are those that have a vector, whoever used them. Noise
and draws come from the operating system, not from the seed: whoever knew them could subtract them. They are of ordinary
floating point numbers, of which attacks on the last bits are known (I. Mironov, CCS 2012).

One gradient a user is as large as the model, ids' vectors included, so users of a step are taken a few at a time. Noise
is added to each number of the model: where items are many and users few, items made of content alone come to more.
"""

from __future__ import annotations

import math
import secrets
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.training.progress import Bar, bar
from matchcut.server.training.session.batches import Batch, Histories, padded, pieces
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.fitting import Fitted, fixed, fresh
from matchcut.server.training.session.network import Network
from matchcut.server.training.session.settings import Settings

__all__ = ["Privacy", "Spent", "fit_privately", "gradients"]

BYTES = 256 << 20  # of gradients at a time
TINY = 1e-6
OFTEN = 200  # steps between two looks at what was spent, each of which takes a part of a second


@dataclass(frozen=True, slots=True)
class Privacy:
    """What is promised and how: epsilon and delta of the whole training; clip: the norm that a user's gradient is cut
    to; users: that a step takes in the mean."""

    epsilon: float
    delta: float
    clip: float = 1.0
    users: int = 64

    def __post_init__(self) -> None:
        for name in ("epsilon", "clip"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InvalidInput(f"{name} is {getattr(self, name)}; it must be above 0", field=name)
        if not 0 < self.delta < 1:
            raise InvalidInput(f"delta is {self.delta}; it must be between 0 and 1, below 1 / users", field="delta")
        if self.users < 1:
            raise InvalidInput(f"users is {self.users}; a step takes at least 1", field="users")


@dataclass(frozen=True, slots=True)
class Spent:
    """What it came to: epsilon at delta. noise: its deviation in units of clip. rate: the chance with which a step
    takes a user. steps: how many there were. unit: what two sets of events may differ by."""

    epsilon: float
    delta: float
    noise: float
    clip: float
    rate: float
    steps: int
    users: int
    unit: str = "user"


def fit_privately(
    data: Dataset,
    train: Histories,
    settings: Settings,
    privacy: Privacy,
    *,
    shown: Bar | None = None,
    told: Callable[[int, Tensor], None] | None = None,
    seed: int | None = None,
) -> tuple[Fitted, Spent]:
    """Trains for all of settings.epochs, an epoch being as many steps as take each user once in the mean.

    Args:
        told: called with number and, one a user taken, the gradients' norms before they are cut, of each step.
        seed: of noise and draws, for tests alone: with a seed that is known nothing is private.

    Raises:
        InvalidInput: there are too few users or too many items, items of which the events alone tell, or an epsilon
            that no noise reaches.
        EngineFailed: the gradients are no numbers any more.
        ImportError: opacus is not installed.
    """
    from opacus.accountants import RDPAccountant
    from opacus.optimizers import DPOptimizer
    from opacus.utils.uniform_sampler import UniformWithReplacementSampler

    train = [history for history in train if len(history[0]) > 1]
    check(data, train, settings, privacy)
    rate = min(1.0, privacy.users / len(train))
    steps_an_epoch = max(1, round(1 / rate))
    steps = steps_an_epoch * settings.epochs
    noise = noise_for(privacy, rate, steps, len(train))
    began = time.perf_counter()
    with fixed(secrets.randbits(63) if seed is None else seed), bar(silent=True) as quiet:
        # All items, for which were used is the users' secret.
        network = fresh(data, settings, np.arange(len(data.content)))
        random = np.random.default_rng(seed)
        draws = torch.Generator().manual_seed(secrets.randbits(63) if seed is None else seed)
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        adam = DPOptimizer(
            torch.optim.Adam(weights, settings.rate),
            noise_multiplier=noise,
            max_grad_norm=privacy.clip,
            expected_batch_size=rate * len(train),
            generator=draws,
        )
        accountant = RDPAccountant()
        adam.attach_step_hook(accountant.get_optimizer_hook_fn(rate))
        at_once = max(1, BYTES // (4 * sum(weight.numel() for weight in weights)))
        sampler = UniformWithReplacementSampler(num_samples=len(train), sample_rate=rate, generator=draws, steps=steps)
        figures: dict[str, float] = {}
        for number, taken in enumerate((shown or quiet).track(sampler, "step", total=steps, figures=figures), start=1):
            norms = step(network, adam, [train[at] for at in taken], at_once, random)
            if not bool(torch.isfinite(norms).all()):
                raise EngineFailed("a gradient is no number any more; train with a lower --rate", reason="DIVERGED")
            if told:
                told(number, norms)
            if number % OFTEN == 0:
                figures["epsilon"] = accountant.get_epsilon(privacy.delta)
        spent = Spent(
            accountant.get_epsilon(privacy.delta),
            privacy.delta,
            noise,
            privacy.clip,
            rate,
            steps,
            len(train),
        )
        network.eval()
    return Fitted(network, {}, settings.epochs, time.perf_counter() - began), spent


def noise_for(privacy: Privacy, rate: float, steps: int, users: int) -> float:
    """The deviation of the noise, in units of clip, with which so many steps stay within epsilon."""
    from opacus.accountants.utils import get_noise_multiplier

    try:
        with warnings.catch_warnings():
            # That a bound may not be tight on the way to the answer.
            warnings.simplefilter("ignore", UserWarning)
            found: float = get_noise_multiplier(
                target_epsilon=privacy.epsilon, target_delta=privacy.delta, sample_rate=rate, steps=steps
            )
    except ValueError as error:
        raise InvalidInput(
            f"no noise reaches an epsilon of {privacy.epsilon} with {users} users: train fewer epochs, take fewer "
            "users a step, or allow more",
            field="epsilon",
        ) from error
    return found


def check(data: Dataset, train: Histories, settings: Settings, privacy: Privacy) -> None:
    """Raises InvalidInput where the promise could not be kept, or the training not be done."""
    if len(train) < 2:
        raise InvalidInput("private training needs at least two users with two events", field="events")
    if privacy.delta >= 1 / len(train):
        raise InvalidInput(
            f"delta is {privacy.delta}; with {len(train)} users it must be below {1 / len(train):.2g}", field="delta"
        )
    if not data.has_content or not bool((data.content != 0).any(axis=1).all()):
        raise InvalidInput(
            "with --epsilon items are those that have a vector, or the model would tell which were used: give "
            "--vectors or a server's data folder, and leave out events of other items",
            field="vectors",
        )
    if len(data.content) > settings.full:
        raise InvalidInput(
            f"private training takes the softmax over all items, up to {settings.full}; there are {len(data.content)}",
            field="events",
        )


def step(network: Network, adam: Any, taken: Histories, at_once: int, random: np.random.Generator) -> Tensor:
    """One step with the users taken, none perhaps; the norms of their gradients before they are cut."""
    weights = dict(network.named_parameters())
    window = network.settings.window
    norms = []
    parts = [taken[begin : begin + at_once] for begin in range(0, len(taken), at_once)] or [[]]
    for at, part in enumerate(parts):
        found = gradients(network, [one_piece(history, window, random) for history in part])
        if part:
            norms.append(torch.stack([each.reshape(len(each), -1).norm(dim=1) for each in found.values()]).norm(dim=0))
        for name, weight in weights.items():
            weight.grad_sample = found[name]
        adam.signal_skip_step(do_skip=at < len(parts) - 1)
        adam.step()
        adam.zero_grad()
    return torch.cat(norms) if norms else torch.zeros(0)


def one_piece(history: tuple[Any, Any], window: int, random: np.random.Generator) -> tuple[Any, Any]:
    """One of the pieces that a history is cut into, at random."""
    made = pieces([history], window, random)
    return made[int(random.integers(len(made)))]


def gradients(network: Network, taken: Histories) -> dict[str, Tensor]:
    """(users, *weight) of each weight by name, the gradient of each user's own loss: the mean over their piece."""
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    if not taken:
        return {name: weight.new_zeros((0, *weight.shape)) for name, weight in weights.items()}
    batch = padded(taken)
    buffers = dict(network.named_buffers())
    whole = Loss(network)

    def loss(given: dict[str, Tensor], *piece: Tensor) -> Tensor:
        named = {f"network.{name}": value for name, value in {**given, **buffers}.items()}
        found: Tensor = torch.func.functional_call(whole, named, piece)
        return found

    network.train()
    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0, 0, 0), randomness="different")
    found: dict[str, Tensor] = each(weights, *tensors(batch))
    return found


def tensors(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four arrays of a batch."""
    inputs, strengths, targets, weights = (
        torch.from_numpy(each) for each in (batch.inputs, batch.strengths, batch.targets, batch.weights)
    )
    return inputs, strengths, targets, weights


class Loss(nn.Module):
    """The loss of one piece, (t,) of each, of plain operations: gradients of many at once can be taken of it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, strengths: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        settings = self.network.settings
        keep = None
        if settings.content and settings.ids and settings.id_dropout:
            keep = (torch.rand(len(self.network.content), 1) >= settings.id_dropout).float()
        vectors = self.network.items(keep=keep)
        wanted = self.network.wanted(vectors[inputs].unsqueeze(0), strengths.unsqueeze(0)).squeeze(0)
        each = nn.functional.cross_entropy(wanted @ vectors.T, targets, reduction="none")
        return (each * weights).sum() / weights.sum().clamp(min=TINY)
