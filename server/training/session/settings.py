"""Everything that decides what a training of a session model comes to, beside the data."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from matchcut.server.errors import InvalidInput

__all__ = ["KINDS", "Settings"]

KINDS = ("gru", "sasrec")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a session model is built and trained.

    kind: "gru" (B. Hidasi et al., arXiv:1511.06939) or "sasrec" (W.-C. Kang, J. McAuley, arXiv:1808.09781).
    dimensions: of item vectors, d. width: of the GRU's state. layers, heads, inner: of SASRec. window: events that
    SASRec looks back on, and the longest piece of a history that either is trained on at once.
    content, ids: what item vectors are made of. normalise: item vectors and queries have unit length, and scores are
    their cosine times a temperature that is learnt; else scores are plain inner products.
    dropout: of what goes into the history's model. id_dropout: the share of items that are shown by their content alone
    in each step, so that items without a learnt id are not strange to the model.
    rate: Adam's. batch: pieces of histories a step. epochs: at most. patience: epochs without a better validation
    NDCG@10 (see `metric`) before training stops. metric: what validation looks at.
    full: up to so many items the softmax is over all of them; above, over `negatives` drawn ones.
    """

    kind: str = "gru"
    dimensions: int = 64
    width: int = 128
    layers: int = 2
    heads: int = 2
    inner: int = 256
    window: int = 50
    content: bool = True
    ids: bool = True
    normalise: bool = True
    dropout: float = 0.3
    id_dropout: float = 0.1
    rate: float = 0.003
    batch: int = 64
    epochs: int = 200
    patience: int = 10
    metric: str = "ndcg"
    full: int = 50_000
    negatives: int = 4096
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidInput(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}", field="kind")
        if self.metric not in ("recall", "mrr", "ndcg"):
            raise InvalidInput(f"metric is {self.metric!r}; it must be recall, mrr or ndcg", field="metric")
        if not (self.content or self.ids):
            raise InvalidInput("an item vector needs content, ids, or both", field="content")
        for name in ("dimensions", "width", "layers", "heads", "inner", "batch", "epochs", "patience", "negatives"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; it must be at least 1", field=name)
        if self.window < 2 and not (self.window == 0 and self.kind == "gru"):
            raise InvalidInput(
                f"window is {self.window}; it must be at least 2, or 0 for a GRU that is trained on whole histories",
                field="window",
            )
        for name in ("dropout", "id_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInput(f"{name} is {getattr(self, name)}; it must be from 0 to below 1", field=name)
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InvalidInput(f"rate is {self.rate}; it must be above 0", field="rate")
        if self.dimensions % self.heads and self.kind == "sasrec":
            raise InvalidInput(f"{self.dimensions} dimensions do not part among {self.heads} heads", field="heads")

    def table(self) -> dict[str, Any]:
        """As plain values by name."""
        return asdict(self)

    @classmethod
    def of(cls, table: dict[str, Any]) -> Settings:
        """From what table() gives; what is missing has its default."""
        known = {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in table.items() if key in known})
