"""A history read by self-attention over its last events."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SasRec"]

FAR = -1e9  # what a position that may not be looked at scores


class SasRec(nn.Module):
    """Layers of causal self-attention over the last `window` events (W.-C. Kang, J. McAuley, arXiv:1808.09781).

    The strength w of an event scales its item's vector. An event's place is counted from the oldest that is looked
    back on. The state is what is looked back on: window * d numbers, oldest first and zeros behind, and how many.

    width: of the state, window * d + 1.
    """

    def __init__(
        self, dimensions: int, window: int, *, layers: int, heads: int, inner: int, gain: float, dropout: float
    ) -> None:
        super().__init__()
        self.dimensions, self.window, self.gain = dimensions, window, gain
        self.width = window * dimensions + 1
        self.place = nn.Embedding(window, dimensions)
        self.blocks = nn.ModuleList(Block(dimensions, heads, inner, dropout) for _ in range(layers))
        self.first = nn.LayerNorm(dimensions)
        self.drop = nn.Dropout(dropout)
        for name, weight in self.named_parameters():
            if name.endswith("weight") and weight.dim() > 1:
                nn.init.normal_(weight, std=0.02)

    def forward(self, x: Tensor, w: Tensor, plain: bool = False) -> Tensor:
        """(n, t, d) what is wanted after each event, of at most `window`; `plain` changes nothing."""
        x = x * w.unsqueeze(-1) * self.gain + self.place.weight[: x.shape[1]]
        x = self.drop(self.first(x))
        causal = torch.ones(x.shape[1], x.shape[1], device=x.device).tril()
        for block in self.blocks:
            x = block(x, causal)
        return x

    def step(self, x: Tensor, h: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """(n, width) the next state and (n, d) what is wanted then, from x (n, d), h (n, width), w (n, 1)."""
        d, most = self.dimensions, self.window
        kept, count = h[:, : most * d].reshape(-1, most, d), h[:, most * d :]
        full = (count > most - 0.5).to(x.dtype).unsqueeze(2)
        moved = torch.cat((kept[:, 1:], torch.zeros_like(kept[:, :1])), 1)
        kept = full * moved + (1 - full) * kept
        place = torch.clamp(count, max=float(most - 1))
        here = (torch.arange(most, device=x.device).unsqueeze(0) - place).abs() < 0.5
        here = here.to(x.dtype).unsqueeze(2)
        kept = kept + here * (x * w).unsqueeze(1)
        wanted = (self.forward(kept, torch.ones_like(kept[:, :, 0])) * here).sum(1)
        return torch.cat((kept.reshape(-1, most * d), place + 1), 1), wanted

    def last(self, x: Tensor, w: Tensor, lengths: Tensor) -> Tensor:
        """(n, d) what is wanted after the last of `lengths` events, from x (n, t, d), w (n, t, 1); t may be any."""
        begin = torch.clamp(lengths - self.window, min=0).unsqueeze(1)
        at = begin + torch.arange(self.window, device=x.device).unsqueeze(0)
        there = (at < lengths.unsqueeze(1)).to(x.dtype).unsqueeze(2)
        within = torch.minimum(at, torch.clamp(lengths - 1, min=0).unsqueeze(1)).unsqueeze(2)
        kept = torch.gather(x * w, 1, within.expand(-1, -1, x.shape[2])) * there
        places = torch.clamp(lengths - 1, max=self.window - 1).unsqueeze(1)
        here = (torch.arange(self.window, device=x.device).unsqueeze(0) == places).to(x.dtype).unsqueeze(2)
        return (self.forward(kept, torch.ones_like(kept[:, :, 0])) * here).sum(1)


class Block(nn.Module):
    """Attention and a network of two layers, each with its input added and then normalised."""

    def __init__(self, dimensions: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.size = heads, dimensions // heads
        self.query, self.key, self.value, self.mix = (nn.Linear(dimensions, dimensions) for _ in range(4))
        self.wide, self.narrow = nn.Linear(dimensions, inner), nn.Linear(inner, dimensions)
        self.after, self.end = nn.LayerNorm(dimensions), nn.LayerNorm(dimensions)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, causal: Tensor) -> Tensor:
        """(n, t, d) from the same; causal: (t, t), 1 where a row may look at a column."""
        q, k, v = (self.parted(each(x)) for each in (self.query, self.key, self.value))
        scores = q @ k.transpose(2, 3) / self.size**0.5 + (1 - causal) * FAR
        seen = self.drop(torch.softmax(scores, -1)) @ v
        x = self.after(x + self.drop(self.mix(seen.transpose(1, 2).flatten(2))))
        out: Tensor = self.end(x + self.drop(self.narrow(self.drop(nn.functional.gelu(self.wide(x))))))
        return out

    def parted(self, x: Tensor) -> Tensor:
        """(n, heads, t, size) from (n, t, d)."""
        return x.unflatten(2, (self.heads, self.size)).transpose(1, 2)
