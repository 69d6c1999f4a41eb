"""When a call that failed is sent again: a policy, and the count of one call's attempts."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from matchcut.client.errors import Error, Overloaded, Unavailable

__all__ = ["READ", "REFUSED", "Attempts", "Repeatable", "Retry"]


@dataclass(frozen=True, slots=True)
class Retry:
    """Exponential backoff with jitter, for calls that are safe to send again.

    Sent again are reads, and ingests whose source can be read twice (a path, bytes, vectors), when the server is
    unavailable or says when to come back. A removal is sent again only when the server refused to start it.

    attempts: tries in all; 1 means none again.
    initial, maximum: seconds before the second try, and the most between two. A server that asks for more than
        `maximum` is not waited for: its error is raised.
    multiplier: growth of the pause from try to try.
    hedge: seconds after which a question that has no answer is asked a second time, of another server where several
        stand behind the address; the first answer counts. About the 95th percentile of your latencies is a good value.
        It is for cheap reads: items, pages, counts, health, and rankings against items and vectors. None: never.
    """

    attempts: int = 4
    initial: float = 0.1
    maximum: float = 10.0
    multiplier: float = 2.0
    hedge: float | None = None

    def pause(self, attempt: int, error: Error, draw: Callable[[], float] = random.random) -> float | None:
        """Seconds to wait after the failed try number `attempt` (from 1); None: give up.

        `draw` gives the jitter, uniform in [0, 1): a backoff shrinks by up to half, a server's wish grows by up to
        a quarter, so that callers who were turned away together do not come back together.
        """
        if attempt >= self.attempts:
            return None
        if error.retry_after is not None:
            return error.retry_after * (1 + draw() / 4) if error.retry_after <= self.maximum else None
        if isinstance(error, Overloaded):
            return None  # a limit, such as a message's size, that waiting does not lift
        return min(self.maximum, self.initial * self.multiplier ** (attempt - 1)) * (1 - draw() / 2)


Repeatable: TypeAlias = tuple[type[Error], ...]
READ: Repeatable = (Unavailable, Overloaded)  # also what is idempotent: doing it twice is doing it once
REFUSED: Repeatable = (Overloaded,)  # for what must not be done twice: certainly not begun


class Attempts:
    """The tries of one call, which share its timeout.

    Args:
        repeatable: errors after which this call may be sent again.
        timeout: seconds for all tries and pauses together; None: no bound.
    """

    def __init__(self, policy: Retry, repeatable: Repeatable, timeout: float | None) -> None:
        self._policy = policy
        self._repeatable = repeatable
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._made = 0

    @property
    def remaining(self) -> float | None:
        """Seconds left for the next try; None: no bound."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def pause(self, error: Error) -> float | None:
        """Counts a failed try; seconds to wait before the next one, or None: raise the error."""
        self._made += 1
        if not isinstance(error, self._repeatable):
            return None
        pause = self._policy.pause(self._made, error)
        left = self.remaining
        return None if pause is None or (left is not None and pause >= left) else pause
