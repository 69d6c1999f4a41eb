"""Training with early stopping, which can be interrupted after any epoch and goes on to the same end."""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from matchcut.server.errors import InvalidInput
from matchcut.server.training.clip.clips import Clip, batch
from matchcut.server.training.progress import Bar

__all__ = ["Fitted", "Options", "fit", "predictions"]

SERIES = ("train loss", "validation loss", "train accuracy", "validation accuracy")
STEEPEST = 1.0  # to which length a longer gradient is cut
PROGRESS = 0.03  # a lower validation loss counts where it is lower by so much; below that nothing is left to gain
GAIN, OFFSET = 0.3, 25.0  # brightness of each colour, in shares and in steps of 0..255
SHIFT = 1 / 8  # of the picture's side


@dataclass(frozen=True, slots=True)
class Options:
    """How it is trained.

    epochs: at most. batch: clips of one step. rate: Adam's.
    patience: epochs without progress of the validation loss after which it stops.
    seed: of weights, order and augmentation.
    """

    epochs: int = 40
    batch: int = 32
    rate: float = 5e-3
    patience: int = 15
    seed: int = 1


@dataclass(slots=True)
class Fitted:
    """What became of it; the model has the weights of the best epoch.

    history: of each series a value for each epoch. best: the epoch with the lowest validation loss, from 1.
    """

    history: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SERIES})
    best: int = 0

    @property
    def epochs(self) -> int:
        """How many were run."""
        return len(self.history["train loss"])

    def over(self, patience: int) -> bool:
        """Whether the validation loss has made no progress for so many epochs, or can make none any more."""
        mark, since = float("inf"), 0
        for loss in self.history["validation loss"]:
            mark, since = (loss, 0) if loss < mark - PROGRESS else (mark, since + 1)
        return since >= patience or mark < PROGRESS


def fit(
    model: Any,
    train: Sequence[Clip],
    validation: Sequence[Clip],
    options: Options,
    *,
    bar: Bar,
    what: str = "epochs",
    checkpoint: Path | None = None,
    fingerprint: str = "",
    resume: bool = False,
) -> Fitted:
    """Trains a ClipNet by cross-entropy; the same to the bit for the same arguments on the same machine and threads.

    Args:
        what: for the bar.
        checkpoint: written after each epoch, whole or not at all.
        fingerprint: of all that the result depends on besides the number of epochs.
        resume: goes on from the checkpoint where there is one.

    Raises:
        InvalidInput: the checkpoint is of other clips or options, or no checkpoint; or the loss is not finite.
        OSError: the checkpoint cannot be written.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=options.rate)
    fitted, best = Fitted(), copy.deepcopy(model.state_dict())
    if resume and checkpoint is not None and checkpoint.exists():
        fitted, best = restored(checkpoint, fingerprint, model, optimizer)
    figures: dict[str, float] = {}
    for epoch in bar.track(range(fitted.epochs + 1, options.epochs + 1), what, figures=figures):
        if fitted.over(options.patience):
            break
        loss, accuracy = one_epoch(model, optimizer, train, options, epoch)
        held = measured(model, validation, options.batch)
        for name, value in zip(SERIES, (loss, held[0], accuracy, held[1]), strict=True):
            fitted.history[name].append(value)
        if held[0] <= min(fitted.history["validation loss"]):
            fitted.best, best = epoch, copy.deepcopy(model.state_dict())
        figures |= {"loss": loss, "validation": held[0], "accuracy": held[1]}
        if checkpoint is not None:
            save(checkpoint, fingerprint, model, optimizer, fitted, best)
    model.load_state_dict(best)
    return fitted


def one_epoch(model: Any, optimizer: Any, clips: Sequence[Clip], options: Options, epoch: int) -> tuple[float, float]:
    """Mean loss and accuracy of an epoch's steps. What is random follows from the seed and the epoch alone."""
    model.train()
    rng = np.random.default_rng((options.seed, epoch))
    order = rng.permutation(len(clips))
    total, right = 0.0, 0
    for begin in range(0, len(order), options.batch):
        frames, lengths, labels = tensors([clips[at] for at in order[begin : begin + options.batch]])
        if frames.dtype == torch.uint8:
            frames = varied(frames, lengths, rng)
        loss, logits = model.loss(frames, lengths, labels)
        if not torch.isfinite(loss):
            raise InvalidInput(
                f"the loss is not finite any more in epoch {epoch}: lower --learning-rate", field="learning_rate"
            )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), STEEPEST)
        optimizer.step()
        total += float(loss.detach()) * len(labels)
        right += int((logits.argmax(1) == labels).sum())
    return total / len(clips), right / len(clips)


def varied(frames: Any, lengths: Any, rng: np.random.Generator) -> Any:
    """The clips a little moved and in other light, the same in all frames of a clip; float32.

    Without it a network learns the clips' backgrounds by heart and nothing about motion. What leaves on one side comes
    in on the other. Nothing is mirrored, turned or played backwards: where something goes, and in which order, may be
    what tells the classes apart.
    """
    most = round(frames.shape[1] * SHIFT)
    moves = rng.integers(-most, most + 1, (len(lengths), 2)).tolist()
    parts = frames.split(lengths.tolist())
    moved = torch.cat([torch.roll(part, move, (1, 2)) for part, move in zip(parts, moves, strict=True)])
    gain = torch.from_numpy(rng.uniform(1 - GAIN, 1 + GAIN, (len(lengths), 3)).astype(np.float32))
    offset = torch.from_numpy(rng.uniform(-OFFSET, OFFSET, (len(lengths), 3)).astype(np.float32))
    of = torch.repeat_interleave(lengths)
    return torch.clamp(moved.float() * gain[of, None, None] + offset[of, None, None], 0, 255)


def measured(model: Any, clips: Sequence[Clip], size: int) -> tuple[float, float]:
    """Mean loss and accuracy."""
    logits = torch.from_numpy(predictions(model, clips, size))
    labels = torch.tensor([clip.label for clip in clips])
    return float(functional.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).float().mean())


def predictions(model: Any, clips: Sequence[Clip], size: int = 32) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The logits of clips, (n, classes) float32, in evaluation."""
    model.eval()
    with torch.no_grad():
        found = [model(*tensors(clips[begin : begin + size])[:2]) for begin in range(0, len(clips), size)]
    logits: np.ndarray[Any, np.dtype[np.float32]] = torch.cat(found).numpy()
    return logits


def tensors(clips: Sequence[Clip]) -> tuple[Any, Any, Any]:
    """Frames, lengths and labels of a batch."""
    made = batch(clips)
    return torch.from_numpy(made.frames), torch.from_numpy(made.lengths), torch.from_numpy(made.labels)


def save(path: Path, fingerprint: str, model: Any, optimizer: Any, fitted: Fitted, best: Any) -> None:
    """Writes a checkpoint beside the old one and puts it in its place."""
    state = {
        "fingerprint": fingerprint,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "best_model": best,
        "history": fitted.history,
        "best": fitted.best,
    }
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
        try:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def restored(path: Path, fingerprint: str, model: Any, optimizer: Any) -> tuple[Fitted, Any]:
    """Puts the model and the optimizer back; what was reached, and the weights of the best epoch."""
    try:
        state = torch.load(path, weights_only=True)
        known = state["fingerprint"]
    except Exception as error:  # torch raises many kinds for files that it did not write
        raise InvalidInput(f"{path} is no checkpoint: remove it, or train without --resume", field="resume") from error
    if known != fingerprint:
        raise InvalidInput(
            f"{path} was trained with other clips or options: give the same, or train without --resume",
            reason="CHECKPOINT_MISMATCH",
            field="resume",
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return Fitted(state["history"], state["best"]), state["best_model"]
