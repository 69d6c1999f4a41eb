"""A model that is made when it is first asked for, so that a start does not wait for what few use."""

from __future__ import annotations

import threading
from collections.abc import Callable

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import InvalidInput, MatchcutError, NotFound
from matchcut.server.models import gru
from matchcut.server.models.description import Description
from matchcut.server.models.graph import Graph
from matchcut.server.serving.contract import IndexEntry, Model, ModelState
from matchcut.server.serving.served import Limits, Served

__all__ = ["OnDemand", "recurrent"]


def recurrent(step: Graph, limits: Limits) -> Served:
    """The step of a GRU as a stateful model "gru", whose sequences keep their states.

    Raises:
        EngineFailed: it cannot be loaded.
    """
    description = Description(states={gru.STATE: gru.NEXT})
    return Served(GraphEngine(step, threads=1), description, name="gru", version="1", limits=limits)


class OnDemand:
    """A Repository of one model that comes with the server.

    Args:
        make: makes it; may take a while, and may raise.
    """

    def __init__(self, name: str, version: str, make: Callable[[], Served]) -> None:
        self._name = name
        self._version = version
        self._make = make
        self._made: Served | None = None
        self._fault = ""  # why it could not be made, the last time that was tried
        self._lock = threading.Lock()

    def model(self, name: str, version: str = "") -> Model:
        """See Repository; MatchcutError also where it cannot be made."""
        self._check(name, version)
        with self._lock:
            if self._made is None:
                self._fault = ""
                try:
                    self._made = self._make()
                except MatchcutError as error:
                    self._fault = error.message
                    raise
            return self._made

    def at_hand(self, name: str, version: str = "") -> Model | None:
        """See Repository."""
        return self._made if name == self._name and version in ("", self._version) else None

    def index(self) -> list[IndexEntry]:
        """See Repository; it counts as READY until it has turned out that it cannot be made."""
        state = ModelState.UNAVAILABLE if self._fault else ModelState.READY
        return [IndexEntry(self._name, self._version, state, self._fault)]

    def versions(self, name: str) -> list[str]:
        """See Repository."""
        self._check(name, "")
        return [self._version]

    def load(self, name: str) -> None:
        """See Repository."""
        self.model(name)

    def unload(self, name: str) -> None:
        """See Repository. InvalidInput: it stays."""
        self._check(name, "")
        raise InvalidInput(
            f"{name!r} belongs to the server and stays; name a model of the repository", field="model_name"
        )

    def close(self) -> None:
        """Frees it, if it was made."""
        with self._lock:
            made, self._made = self._made, None
        if made is not None:
            made.retire(None)
            made.runner.close()

    def _check(self, name: str, version: str) -> None:
        if name != self._name or version not in ("", self._version):
            raise NotFound(
                f"there is no model {name!r}" + (f" of version {version}" if name == self._name else ""),
                reason="MODEL_NOT_FOUND",
                field="version" if name == self._name else "model_name",
            )
