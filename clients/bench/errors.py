"""What goes wrong before anything is measured; what goes wrong while measuring is counted, not raised."""

from __future__ import annotations

__all__ = ["BadInput", "LoadError", "Refused", "Unreachable", "WorkerDied"]


class LoadError(Exception):
    """Base of the errors here. The message is one sentence that says what to do."""

    @property
    def message(self) -> str:
        """The sentence."""
        return str(self)


class BadInput(LoadError):
    """What was asked for cannot be measured as it is."""


class Unreachable(LoadError):
    """No connection to the server can be made."""


class Refused(LoadError):
    """The server wants to know first who asks."""


class WorkerDied(LoadError):
    """A process of the generator ended without its result."""
