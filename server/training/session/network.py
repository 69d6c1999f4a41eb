"""A session model under training: a tower for items, a model for histories, and the temperature of their scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from matchcut.server.training.session.gru import Gru, gain
from matchcut.server.training.session.sasrec import SasRec
from matchcut.server.training.session.settings import Settings
from matchcut.server.training.session.tower import Tower, unit

__all__ = ["Network"]

SCALE = 14.0  # of cosines at the start: 1 / 0.07
MOST_SCALE = 100.0


class Network(nn.Module):
    """Scores of items after each event of a history.

    Items are numbered from 0, as in the data. Only those that were used have an id that is learnt, and are what the
    softmax is over: all that it could learn of the others is that nobody has used them yet, which is why they have to
    be ranked by their content.

    content: (items, c). learnt: (m,) int64, the items that have an id. index: (items,) int64, their place in `learnt`
    from 1, 0 for the others. None of these is saved with the weights.
    """

    def __init__(self, settings: Settings, content: Tensor, learnt: Tensor) -> None:
        super().__init__()
        self.settings = settings
        items, d = len(content), settings.dimensions
        index = torch.zeros(items, dtype=torch.int64)
        index[learnt] = torch.arange(1, len(learnt) + 1)
        for name, value in (("content", content), ("learnt", learnt), ("index", index)):
            self.register_buffer(name, value, persistent=False)
        self.tower = Tower(
            content.shape[1],
            len(learnt),
            d,
            use_content=settings.content,
            use_ids=settings.ids,
            normalise=settings.normalise,
        )
        self.tower.centre(content)
        scaled = gain(d, settings.normalise)
        self.history: Gru | SasRec
        if settings.kind == "gru":
            self.history = Gru(d, settings.width, gain=scaled, dropout=settings.dropout)
        else:
            self.history = SasRec(
                d,
                settings.window,
                layers=settings.layers,
                heads=settings.heads,
                inner=settings.inner,
                gain=scaled,
                dropout=settings.dropout,
            )
        self.log_scale = nn.Parameter(torch.tensor(math.log(SCALE))) if settings.normalise else None

    def items(self, which: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """(n, d) vectors of these items, or of all; keep: see Tower."""
        if which is None:
            which = torch.arange(len(self.content), device=self.content.device)
        vectors: Tensor = self.tower(self.content[which], self.index[which], keep)
        return vectors

    def wanted(self, x: Tensor, w: Tensor, plain: bool = False) -> Tensor:
        """(n, t, d) queries after each event; scores are their inner products with item vectors.

        Args:
            x: (n, t, d) vectors of the events' items. w: (n, t) strengths. plain: they are all 1.
        """
        queries: Tensor = self.history(x, w, plain)
        if self.log_scale is None:
            return queries
        return unit(queries) * self.log_scale.exp().clamp(max=MOST_SCALE)
