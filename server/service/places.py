"""How many calls may be under way at once, and whose they may be."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable

from matchcut.server.errors import Overloaded

__all__ = ["Places"]

MEMORY = 5.0  # seconds for which a place is kept for a client that was refused; most retry sooner


class Places:
    """A number of places; whoever comes when all are taken is refused. Nothing queues. Not for several threads.

    While nobody is refused a client may take them all. Once another one has been, those who hold more than their equal
    share get no more until that one has come back and has its share, or has stayed away for a while: so a client that
    floods is the one to be refused, and the others get in at their next try.

    taken: places that are taken now.

    Args:
        size: how many there are.
        name, flag: of the kind of requests, and of the option that sets the size, for messages.
        now: seconds that only rise.
    """

    def __init__(self, size: int, name: str, flag: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self.size = size
        self._name = name
        self._flag = flag
        self._now = now
        self.taken = 0
        self._held: Counter[str] = Counter()
        self._refused: dict[str, float] = {}  # when each client was refused last, because others held its share

    def enter(self, client: str) -> None:
        """Takes a place for a client, or raises Overloaded."""
        if self._refused or self.taken == self.size:
            self._share_out(client)
        self._held[client] += 1
        self.taken += 1

    def _share_out(self, client: str) -> None:
        """Raises Overloaded where a client gets no place while others have been refused, or because all are taken."""
        now = self._now()
        self._refused = {one: when for one, when in self._refused.items() if now - when < MEMORY}
        share = math.ceil(self.size / len({*self._held, *self._refused, client}))
        owed = sum(max(share - self._held[one], 0) for one in self._refused if one != client)
        below = self._held[client] < share
        if self.taken == self.size:
            if below:
                self._refused[client] = now
            raise Overloaded(
                f"all {self.size} places for {self._name} requests are taken; retry later or raise {self._flag}"
            )
        if owed and not below:
            raise Overloaded(
                f"other clients wait for their share of the {self.size} places for {self._name} requests; retry later "
                f"or raise {self._flag}"
            )
        if self._held[client] + 1 >= share:
            self._refused.pop(client, None)

    def leave(self, client: str) -> None:
        """Gives a place back."""
        self._held[client] -= 1
        self.taken -= 1
        if not self._held[client]:
            del self._held[client]
