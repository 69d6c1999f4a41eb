"""The network: a CNN makes a vector of each frame, and a GRU, or a mean, makes one of all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional

__all__ = ["CHANNELS", "GRID", "ClipNet", "FrameNet", "Pooled", "Recurrent", "seeded"]

CHANNELS = (8, 16, 32)
GRID = 4  # cells a side, of which each keeps its own features: where something is must not be lost
STEP = 2 ** len(CHANNELS) * GRID  # pictures are a multiple of this wide and high


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, torch's random numbers follow from the seed; outside they are what they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class FrameNet(nn.Module):
    """Pictures to vectors of length 1, which is how a server hands vectors to the GRU of a live stream.

    Args:
        size: of the square pictures, a multiple of 32.
        dimensions: of the vectors.
    """

    def __init__(self, size: int, dimensions: int) -> None:
        super().__init__()
        layers: list[Any] = []
        for inputs, outputs in zip((3, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(outputs)]
            layers += [nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.AvgPool2d(size // STEP), nn.Flatten())
        self.project = nn.Linear(CHANNELS[-1] * GRID**2, dimensions)

    def forward(self, pictures: Any) -> Any:
        """(n, 3, size, size) float32, normalised, to (n, dimensions) float32."""
        return functional.normalize(self.project(self.layers(pictures)), dim=1)


def last(values: Any, lengths: Any) -> Any:
    """Of (n, t, d) what is at each one's last step, (n, d); at the first where the length is 0."""
    return values.gather(1, (lengths.clamp(min=1) - 1)[:, None, None].expand(-1, 1, values.shape[2]))[:, 0]


class Recurrent(nn.Module):
    """A GRU over the vectors, and the classes from its last state.

    Args:
        dimensions: of the vectors. hidden: of the state.
    """

    def __init__(self, dimensions: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.gru = nn.GRU(dimensions, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)
        with torch.no_grad():
            self.gru.weight_ih_l0.mul_(math.sqrt(dimensions))  # as if each component of the vectors were about 1

    def forward(self, features: Any, lengths: Any) -> Any:
        """(n, t, dimensions) and (n,), 0 to t each, to logits (n, classes) and the states after so many steps."""
        states, _ = self.gru(features)
        state = last(states, lengths) * (lengths > 0).to(states.dtype)[:, None]
        return self.head(state), state

    def loss(self, features: Any, lengths: Any, labels: Any) -> tuple[Any, Any]:
        """Cross-entropy and the last logits. Each step counts, the later the more: what a clip is should show early."""
        logits = self.head(self.gru(features)[0])
        steps = torch.arange(1, logits.shape[1] + 1, device=logits.device)[None]
        weights = steps * (steps <= lengths[:, None])
        each = functional.cross_entropy(
            logits.transpose(1, 2), labels[:, None].expand(-1, logits.shape[1]), reduction="none"
        )
        return ((each * weights).sum(1) / weights.sum(1)).mean(), last(logits, lengths)


class Pooled(nn.Module):
    """The mean of the vectors, and the classes from it through one hidden layer: what knows of no order."""

    def __init__(self, dimensions: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(dimensions, hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, features: Any, lengths: Any) -> Any:
        """As Recurrent; the state is the mean."""
        inside = torch.arange(features.shape[1])[None] < lengths[:, None]
        mean = (features * inside[..., None]).sum(1) / lengths.clamp(min=1)[:, None]
        return self.head(mean), mean

    def loss(self, features: Any, lengths: Any, labels: Any) -> tuple[Any, Any]:
        """Cross-entropy and the logits."""
        logits = self(features, lengths)[0]
        return functional.cross_entropy(logits, labels), logits


class ClipNet(nn.Module):
    """What is trained: clips to logits.

    Args:
        frames: makes vectors of frames; None where the clips hold vectors.
        over_time: a Recurrent or a Pooled.
        mean, std: of R, G, B in 0..255; unused where the clips hold vectors.
    """

    def __init__(self, frames: FrameNet | None, over_time: Any, mean: Any, std: Any) -> None:
        super().__init__()
        self.frames, self.over_time = frames, over_time
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1))

    def forward(self, frames: Any, lengths: Any) -> Any:
        """The frames of n clips, one clip behind the other, and their lengths, (n,); to logits, (n, classes)."""
        return self.over_time(self.padded(frames, lengths), lengths)[0]

    def loss(self, frames: Any, lengths: Any, labels: Any) -> tuple[Any, Any]:
        """What is to be made small, and the logits."""
        loss, logits = self.over_time.loss(self.padded(frames, lengths), lengths, labels)
        return loss, logits

    def padded(self, frames: Any, lengths: Any) -> Any:
        """The vectors of the frames, (n, t, dimensions), zeros behind the end of the shorter clips."""
        vectors = frames if self.frames is None else self.frames(self.prepared(frames))
        inside = torch.arange(int(lengths.max()))[None] < lengths[:, None]
        features = vectors.new_zeros((*inside.shape, vectors.shape[1]))
        features[inside] = vectors
        return features

    def prepared(self, frames: Any) -> Any:
        """(n, height, width, 3) uint8 as the CNN takes them in."""
        return ((frames.permute(0, 3, 1, 2).float() - self.mean) / self.std).contiguous()
