"""What a session model is: item vectors, and a state that each event of a user moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from matchcut.server.records import EncoderIdentity, Floats, SessionIdentity


class SessionModel(Protocol):
    """Says what a user wants next as a vector that is compared, by inner product, with items' vectors.

    All arrays are float32 and of one row an item or user; it keeps nothing between calls. Safe to be used by several
    threads at once.

    identity: dimensions there are of item vectors and of queries, d. encoder: whose content vectors it takes; c
    dimensions. width: of a state. tenant: whose items' ids it has learnt; those of others are to be given as "".
    """

    @property
    def identity(self) -> SessionIdentity: ...

    @property
    def encoder(self) -> EncoderIdentity: ...

    @property
    def width(self) -> int: ...

    @property
    def tenant(self) -> str: ...

    def items(self, item_ids: Sequence[str], content: Floats) -> Floats:
        """(n, d) vectors of items from their content, (n, c) of unit length; an id not learnt is none to it.

        Raises:
            EngineFailed: the model could not be run, or gave what is not finite.
        """
        ...

    def begin(self, count: int) -> Floats:
        """(count, width) states of users of whom nothing is known."""
        ...

    def step(self, items: Floats, states: Floats, strengths: Floats) -> Floats:
        """(n, width) states after one more event each. Row by row the same as alone, within rounding.

        Args:
            items: (n, d) vectors of the events' items.
            states: (n, width).
            strengths: (n,) above 0 and at most 1.

        Raises:
            EngineFailed: as items().
        """
        ...

    def queries(self, states: Floats) -> Floats:
        """(n, d) what the users want next, of unit length; zero where nothing is known."""
        ...

    def close(self) -> None:
        """Frees what it holds; nobody may use it any more."""
        ...
