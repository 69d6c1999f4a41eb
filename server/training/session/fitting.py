"""Training of a session model: Adam on the next item's cross-entropy, until validation gets no better."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.evaluation.metrics import Indices
from matchcut.server.training.progress import Bar, bar
from matchcut.server.training.session import checkpoint, judging
from matchcut.server.training.session.batches import Batch, batches, frequencies, pieces
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.judging import Split
from matchcut.server.training.session.losses import Sampler, full, sampled
from matchcut.server.training.session.network import Network
from matchcut.server.training.session.settings import Settings

__all__ = ["Fitted", "fit", "fixed", "fresh", "loss_of"]

LOOKED_AT = 10_000  # users, at most, of each validation
Told = Callable[[int, dict[str, float]], None]


@dataclass(slots=True)
class Fitted:
    """A trained network, in evaluation, with its best weights.

    curves: a value an epoch: "train loss", "validation ndcg@10", .... best: the epoch of the weights, from 1.
    seconds: of training, all runs together.
    """

    network: Network
    curves: dict[str, list[float]] = field(default_factory=dict)
    best: int = 0
    seconds: float = 0.0


def fit(
    data: Dataset,
    split: Split,
    settings: Settings,
    *,
    saved: Path | None = None,
    asked: Mapping[str, Any] | None = None,
    most: int = 0,
    shown: Bar | None = None,
    told: Told | None = None,
) -> Fitted:
    """Trains a network; the same data, settings and machine give the same weights.

    Args:
        saved: the checkpoint's file, written after each epoch and gone on from where it is there.
        asked: further options by name that the checkpoint is to be of, plain values.
        most: events that validation looks back on, see judging.network_scores.
        told: called with number and figures of each epoch once it is saved; what it raises ends the training.

    Raises:
        InvalidInput: nobody has enough events, or the checkpoint is of something else.
        EngineFailed: the loss is no number any more.
    """
    if not len(split.validation.targets) or not any(len(items) > 1 for items, _ in split.train):
        raise InvalidInput(
            "no user has the three events that it takes to learn from one, validate with one and test with one; "
            "let events gather, or give more of them",
            field="events",
        )
    of = {**(asked or {}), **settings.table(), "most": most, "data": data.digest()}
    with fixed(settings.seed):
        run = Run(data, split, settings, most)
        state = checkpoint.load(saved, of) if saved else None
        if state is not None:
            run.restore(state)
        with bar(silent=True) as quiet:
            figures: dict[str, float] = {}
            for epoch in (shown or quiet).track(run.left(), "epoch", total=settings.epochs, figures=figures):
                figures.update(run.epoch())
                if saved:
                    checkpoint.save(saved, {"of": of, **run.state()})
                if told:
                    told(epoch, figures)
        run.network.load_state_dict(run.best)
        run.network.eval()
        return Fitted(run.network, run.curves, run.best_epoch, run.seconds)


@contextmanager
def fixed(seed: int) -> Iterator[None]:
    """One thread and a seed for all that torch draws; as before when the block ends.

    One thread: sums have the same order wherever the training runs, and models of this size gain little by more.
    """
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


def fresh(data: Dataset, settings: Settings, learnt: Indices) -> Network:
    """A network that has learnt nothing; learnt: (m,) the items that will have an id."""
    return Network(settings, torch.from_numpy(data.content), torch.from_numpy(learnt))


class Run:
    """A training under way; everything that it depends on can be saved and restored between two epochs."""

    def __init__(self, data: Dataset, split: Split, settings: Settings, most: int) -> None:
        self.settings, self.split, self.most = settings, split, most
        self.validation = split.validation.some(LOOKED_AT, settings.seed)
        counts = frequencies(split.train, len(data.content))
        learnt = np.flatnonzero(counts)
        self.network = fresh(data, settings, learnt)
        self.random = np.random.default_rng(settings.seed)
        self.adam = torch.optim.Adam(self.network.parameters(), settings.rate)
        self.sampler = Sampler(counts[learnt]) if len(learnt) > settings.full else None
        self.curves: dict[str, list[float]] = {}
        self.best: dict[str, Tensor] = copy.deepcopy(self.network.state_dict())
        self.best_value, self.best_epoch, self.done = -1.0, 0, 0
        self.seconds = 0.0

    def left(self) -> Iterator[int]:
        """Numbers of the epochs to come, until the last or until validation gets no better."""
        while self.done < self.settings.epochs and self.done - self.best_epoch < self.settings.patience:
            yield self.done + 1

    def epoch(self) -> dict[str, float]:
        """Goes through all histories once, then validates."""
        began = time.perf_counter()
        self.network.train()
        total = weight = 0.0
        for batch in batches(
            pieces(self.split.train, self.settings.window, self.random), self.settings.batch, self.random
        ):
            loss = loss_of(self.network, batch, self.random, self.sampler)
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()
            share = float(batch.weights.sum())
            total, weight = total + float(loss.detach()) * share, weight + share
        if not np.isfinite(total):
            raise EngineFailed(
                "the training's loss is no number any more; train with a lower --rate", reason="TRAINING_DIVERGED"
            )
        answers = judging.network_answers(self.network, self.validation.histories, most=self.most)
        found = judging.values(answers, self.validation)
        figures = {
            "train loss": total / weight,
            **{f"validation {name}@10": float(each.mean()) for name, each in found.items()},
        }
        self.done += 1
        self.seconds += time.perf_counter() - began
        for name, value in figures.items():
            self.curves.setdefault(name, []).append(value)
        value = figures[f"validation {self.settings.metric}@10"]
        if value > self.best_value:
            self.best_value, self.best_epoch = value, self.done
            self.best = copy.deepcopy(self.network.state_dict())
        return figures

    def state(self) -> dict[str, Any]:
        """All that the next epoch depends on."""
        return {
            "network": self.network.state_dict(),
            "adam": self.adam.state_dict(),
            "best": self.best,
            "numbers": [self.best_value, self.best_epoch, self.done, self.seconds],
            "curves": self.curves,
            "torch": torch.get_rng_state(),
            "numpy": self.random.bit_generator.state,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to where state() was taken."""
        self.network.load_state_dict(state["network"])
        self.adam.load_state_dict(state["adam"])
        self.best, self.curves = state["best"], state["curves"]
        self.best_value, self.best_epoch, self.done, self.seconds = state["numbers"]
        torch.set_rng_state(state["torch"])
        self.random.bit_generator.state = state["numpy"]


def loss_of(network: Network, batch: Batch, random: np.random.Generator, sampler: Sampler | None = None) -> Tensor:
    """The loss of a batch; without a sampler over all items."""
    settings = network.settings
    there = torch.from_numpy(batch.weights > 0)
    # Items by their place among those that are learnt; behind the end of a piece, where nothing counts, any will do.
    inputs, targets = (
        (network.index[torch.from_numpy(each)] - 1).clamp(min=0) for each in (batch.inputs, batch.targets)
    )
    targets = targets[there]
    strengths, weights = torch.from_numpy(batch.strengths), torch.from_numpy(batch.weights)[there]
    if sampler is None:
        vectors = network.items(network.learnt, kept(len(network.learnt), settings, random))
        wanted = network.wanted(vectors[inputs], strengths, batch.plain)[there]
        return full(wanted, vectors, targets, weights)
    # Only what occurs in this batch is computed: of 1,000,000 items a few thousand.
    drawn = sampler.draw(settings.negatives, random)
    occurring = torch.cat((inputs.flatten(), targets, torch.from_numpy(drawn)))
    which, places = torch.unique(occurring, return_inverse=True)
    vectors = network.items(network.learnt[which], kept(len(which), settings, random))
    ends = inputs.numel(), inputs.numel() + len(targets)
    wanted = network.wanted(vectors[places[: ends[0]].reshape(inputs.shape)], strengths, batch.plain)[there]
    return sampled(
        wanted,
        vectors[places[ends[0] : ends[1]]],
        vectors[places[ends[1] :]],
        weights,
        targets=targets,
        numbers=torch.from_numpy(drawn),
        log_q=torch.from_numpy(sampler.log_q[drawn]).float(),
    )


def kept(count: int, settings: Settings, random: np.random.Generator) -> Tensor | None:
    """(count, 1) of which items the id is shown this time; None: of all."""
    if not (settings.content and settings.ids and settings.id_dropout):
        return None
    return torch.from_numpy((random.random((count, 1)) >= settings.id_dropout).astype(np.float32))
