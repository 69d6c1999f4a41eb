"""One request as the stages see it: who waits for it, where its time goes, when it computes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from matchcut.server.clock import Clock
from matchcut.server.feed import Caller
from matchcut.server.turns import Turn

__all__ = ["Job"]


@dataclass(slots=True)
class Job:
    """One request's run through the pipeline.

    idle: whether the sender's next piece would have to be waited for. dropped: how many of its pieces were dropped
    because they came too fast. client: whose it is, for turns that are fair between clients; "": nobody's in
    particular. turn: where it takes turns at computing.
    """

    caller: Caller = field(default_factory=Caller)
    clock: Clock = field(default_factory=Clock)
    idle: Callable[[], bool] = lambda: False
    dropped: Callable[[], int] = lambda: 0
    client: str = ""
    turn: Turn | None = None

    def check(self) -> None:
        """Raises where nobody waits for it any longer; lets others go first where it is their turn."""
        self.caller.check()
        if self.turn is not None:
            self.turn.pause()

    def aside(self) -> AbstractContextManager[None]:
        """The block waits for something that is not computed here."""
        return nullcontext() if self.turn is None else self.turn.aside()

    def end_turn(self) -> None:
        """What is left to do takes no time of a core."""
        if self.turn is not None:
            self.turn.end()
