"""To whom sequences belong, so that they end with it."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from weakref import WeakSet

from matchcut.server.oip.parameters import RequestParameters
from matchcut.server.serving import Model, SequenceStep

__all__ = ["Owner"]


class Owner:
    """A stream, or the connection of calls without one. Safe to be used by several threads at once.

    Args:
        key: what sequences of the same owner share; an owner of its own where not given. Calls without a stream share
            that of their connection, so that a sequence can go from call to call, and two callers' never meet.
    """

    def __init__(self, key: Hashable = None) -> None:
        self._key = self if key is None else key
        self._lock = threading.Lock()
        # Weakly, since a model that was replaced is closed when nobody holds it, and then it has no state left.
        self._models: WeakSet[Model] = WeakSet()
        self._ended = False

    @contextmanager
    def step(self, model: Model, given: RequestParameters) -> Iterator[SequenceStep | None]:
        """The step that a request is, while it runs; None where the model keeps no state."""
        if not model.stateful or given.sequence_id is None:
            yield None
            return
        with self._lock:
            self._models.add(model)
        try:
            yield SequenceStep(given.sequence_id, self._key, start=given.start, end=given.end)
        finally:
            with self._lock:
                late = self._ended
            if late:  # the run may have made a state anew after end() had freed it
                model.leave(self._key)

    def end(self) -> None:
        """Frees the state of all its sequences at once."""
        with self._lock:
            self._ended = True
            models = list(self._models)
            self._models.clear()
        for model in models:
            model.leave(self._key)
