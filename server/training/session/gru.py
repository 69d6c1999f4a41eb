"""A history read by a GRU whose steps are as long as the events were strong."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Gru"]


class Gru(nn.Module):
    """One layer; the equations of a step are those of torch.nn.GRU (see server/models/gru.py) but for the last:

        h' = h + w (f(x, h) - h)

    with f what torch.nn.GRU gives and w in (0, 1] the event's strength; so an event of strength 1 is a plain step, and
    one of strength 0 would be none.

    width: of the state. gain: what item vectors are multiplied by, so that their components are about 1.
    """

    def __init__(self, dimensions: int, width: int, *, gain: float, dropout: float) -> None:
        super().__init__()
        self.width, self.gain = width, gain
        self.cell = nn.GRU(dimensions, width, batch_first=True)
        self.out = nn.Linear(width, dimensions)
        self.drop = nn.Dropout(dropout)
        for weight in (self.cell.weight_ih_l0, self.cell.weight_hh_l0):
            nn.init.xavier_uniform_(weight)
        for bias in (self.cell.bias_ih_l0, self.cell.bias_hh_l0):
            nn.init.zeros_(bias)

    def forward(self, x: Tensor, w: Tensor, plain: bool = False) -> Tensor:
        """(n, t, d) what is wanted after each event.

        Args:
            x: (n, t, d) item vectors, oldest first. w: (n, t) strengths.
            plain: all strengths are 1, for which torch has a faster way to the same numbers.
        """
        x = self.drop(x * self.gain)
        if plain:
            states, _ = self.cell(x)
        else:
            given = nn.functional.linear(x, self.cell.weight_ih_l0, self.cell.bias_ih_l0)
            h = x.new_zeros(x.shape[0], self.width)
            all_states = []
            for at in range(x.shape[1]):
                h = self.moved(given[:, at], h, w[:, at, None])
                all_states.append(h)
            states = torch.stack(all_states, 1)
        wanted: Tensor = self.out(states)
        return wanted

    def step(self, x: Tensor, h: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """(n, width) the next state and (n, d) what is wanted then, from x (n, d), h (n, width), w (n, 1)."""
        given = nn.functional.linear(x * self.gain, self.cell.weight_ih_l0, self.cell.bias_ih_l0)
        h = self.moved(given, h, w)
        return h, self.out(h)

    def moved(self, given: Tensor, h: Tensor, w: Tensor) -> Tensor:
        """The next state; `given` is the input's part of all three gates, (n, 3 * width)."""
        own = nn.functional.linear(h, self.cell.weight_hh_l0, self.cell.bias_hh_l0)
        i_r, i_z, i_n = given.chunk(3, 1)
        h_r, h_z, h_n = own.chunk(3, 1)
        n = torch.tanh(i_n + torch.sigmoid(i_r + h_r) * h_n)
        # f - h = (1 - z) (n - h), and 1 - z is the sigmoid of the gate's opposite.
        return h + w * torch.sigmoid(-(i_z + h_z)) * (n - h)


def gain(dimensions: int, normalise: bool) -> float:
    """What a vector of unit length is multiplied by so that its components are about 1."""
    return math.sqrt(dimensions) if normalise else 1.0
