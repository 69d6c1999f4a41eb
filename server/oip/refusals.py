"""Errors that only callers of this protocol meet."""

from __future__ import annotations

from matchcut.server.errors import MatchcutError

__all__ = ["AlreadyThere", "NotAllowed", "Unsupported"]


class NotAllowed(MatchcutError):
    """The server was started with an option that forbids it."""

    code = "PERMISSION_DENIED"
    reason = "NOT_ALLOWED"


class Unsupported(MatchcutError):
    """The protocol knows it, this server does not."""

    code = "UNIMPLEMENTED"
    reason = "UNSUPPORTED"


class AlreadyThere(MatchcutError):
    """The name is taken."""

    code = "ALREADY_EXISTS"
    reason = "ALREADY_EXISTS"
