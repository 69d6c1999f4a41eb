"""The training loop: Adam, validation after each epoch, early stopping, checkpoints that training goes on from."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from matchcut.server.errors import InvalidInput
from matchcut.server.training.image.samples import Samples
from matchcut.server.training.progress import Bar

__all__ = ["Fitted", "Plan", "fit", "probabilities"]

EVALUATED = 16  # samples of a batch where nothing is learnt; more take memory and are no faster
WARM_UP = 0.1  # of all steps, in which the learning rate grows
SERIES = ("train loss", "validation loss", "train accuracy", "validation accuracy")

State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """How it is trained.

    epochs: at most. patience: epochs without a lower validation loss after which it stops. rate: the highest learning
    rate; it grows to that over the first tenth of the steps and falls to nothing as a cosine. decay: of weights, as in
    AdamW. smoothing: of labels.
    """

    epochs: int = 30
    patience: int = 6
    batch: int = 64
    rate: float = 2e-3
    decay: float = 1e-3
    smoothing: float = 0.0
    seed: int = 0


@dataclass(slots=True)
class Fitted:
    """What came of it.

    history: of each of SERIES a value for each epoch. best: the epoch whose weights are kept, from 1.
    stopped: whether it ended before the last epoch, since the validation loss fell no more.
    """

    history: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SERIES})
    best: int = 0
    stopped: bool = False

    @property
    def epochs(self) -> int:
        """How many were trained."""
        return len(self.history["train loss"])


def fit(
    model: nn.Module,
    train: Samples,
    validation: Samples,
    plan: Plan,
    bar: Bar,
    *,
    checkpoint: Path | None = None,
    key: str = "",
    ended: Callable[[int], None] = lambda epoch: None,
) -> Fitted:
    """Trains the parameters that want gradients, and leaves the model with those of the lowest validation loss.

    The same seed, data and number of threads give the same weights, also where it was interrupted and goes on.

    Args:
        checkpoint: written after each epoch; where it is there already, training goes on from it.
        key: names all that decides the outcome; a checkpoint with another one is refused.
        ended: told of each epoch, from 1, when its checkpoint is written.

    Raises:
        InvalidInput: the checkpoint cannot be read, or is of another training; or the loss is not finite.
    """
    learnt = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=plan.rate, weight_decay=plan.decay)
    fitted, best = Fitted(), copy.deepcopy(model.state_dict())
    if checkpoint is not None and checkpoint.exists():
        best = restored(checkpoint, key, model, optimizer, fitted)
    steps = -(-len(train.labels) // plan.batch)
    figures: dict[str, float] = {}
    for epoch in bar.track(range(fitted.epochs, plan.epochs), "epoch", total=None, figures=figures):
        if fitted.best and fitted.epochs - fitted.best >= plan.patience:
            fitted.stopped = True
            break
        learned = learn(model, optimizer, train, plan, epoch, steps, bar)
        judged = judge(model, validation)
        values = (learned[0], judged[0], learned[1], judged[1])
        if not all(map(math.isfinite, values)):
            raise InvalidInput(
                f"the loss is not a finite number any more in epoch {epoch + 1}; give a lower learning rate",
                reason="TRAINING_DIVERGED",
                field="rate",
            )
        for name, value in zip(SERIES, values, strict=True):
            fitted.history[name].append(value)
            figures[name] = value
        losses = fitted.history["validation loss"]
        if not fitted.best or losses[-1] < losses[fitted.best - 1]:
            fitted.best, best = epoch + 1, copy.deepcopy(model.state_dict())
        if checkpoint is not None:
            save(checkpoint, key, model, optimizer, fitted, best)
        ended(epoch + 1)
    model.load_state_dict(best)
    model.eval()
    return fitted


def learn(
    model: nn.Module, optimizer: torch.optim.Optimizer, train: Samples, plan: Plan, epoch: int, steps: int, bar: Bar
) -> tuple[float, float]:
    """One epoch; all chance in it follows from the seed and the epoch's number. Returns mean loss and accuracy."""
    generator = torch.Generator().manual_seed(plan.seed * 1_000_003 + epoch)
    order = torch.randperm(len(train.labels), generator=generator).numpy()
    total = right = 0.0
    seen = 0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed * 1_000_003 + epoch)  # of dropout
        model.train()
        for step, start in enumerate(range(0, len(order), plan.batch)):
            rows = order[start : start + plan.batch]
            if len(rows) == 1 and steps > 1:
                continue  # batch normalisation cannot learn from one sample
            for group in optimizer.param_groups:
                group["lr"] = plan.rate * scheduled(epoch * steps + step, plan.epochs * steps)
            labels = torch.from_numpy(train.labels[rows])
            optimizer.zero_grad(set_to_none=True)
            logits = model(train.batch(rows, generator))
            loss = functional.cross_entropy(logits, labels, label_smoothing=plan.smoothing)
            loss.backward()
            optimizer.step()
            seen += len(rows)
            total += float(loss.detach()) * len(rows)
            right += float((logits.detach().argmax(dim=1) == labels).sum())
    return total / seen, right / seen


def scheduled(step: int, steps: int) -> float:
    """The share of the highest learning rate."""
    warm = max(1, round(WARM_UP * steps))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def logits_of(model: nn.Module, samples: Samples) -> torch.Tensor:
    """(n, classes) of all samples, as they are."""
    model.eval()
    rows = np.arange(len(samples.labels))
    with torch.no_grad():
        found = [
            model(samples.batch(rows[start : start + EVALUATED], None)) for start in range(0, len(rows), EVALUATED)
        ]
    return torch.cat(found)


def judge(model: nn.Module, samples: Samples) -> tuple[float, float]:
    """Mean loss and accuracy."""
    logits, labels = logits_of(model, samples), torch.from_numpy(samples.labels)
    loss = float(functional.cross_entropy(logits, labels))
    return loss, float((logits.argmax(dim=1) == labels).to(torch.float64).mean())


def probabilities(model: nn.Module, samples: Samples) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(n, classes) float32 of all samples, as they are."""
    found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = logits_of(model, samples).softmax(dim=1).numpy()
    return found


def save(path: Path, key: str, model: nn.Module, optimizer: torch.optim.Optimizer, fitted: Fitted, best: State) -> None:
    """Writes a checkpoint aside and moves it into place, so that one that is there is whole."""
    aside = path.with_name(path.name + ".part")
    content = {
        "key": key,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": fitted.history,
        "best_epoch": fitted.best,
        "best": dict(best),
    }
    with aside.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def restored(path: Path, key: str, model: nn.Module, optimizer: torch.optim.Optimizer, fitted: Fitted) -> State:
    """Takes everything up again as it was saved; returns the best weights so far.

    Raises:
        InvalidInput: see fit().
    """
    try:
        content = torch.load(path, weights_only=True)  # tensors and plain values, nothing that could be run
        same = content["key"] == key
        if same:
            model.load_state_dict(content["model"])
            optimizer.load_state_dict(content["optimizer"])
            fitted.history.update(content["history"])
            fitted.best = content["best_epoch"]
            return dict(content["best"])
    except Exception as error:  # what is damaged may raise anything
        raise InvalidInput(
            f"{path} cannot be read ({type(error).__name__}): remove it, and training begins anew",
            reason="CHECKPOINT_INVALID",
            field="out",
        ) from error
    raise InvalidInput(
        f"{path} is of a training with other data or options: give those again, or remove it to begin anew",
        reason="CHECKPOINT_OF_OTHER_TRAINING",
        field="out",
    )
