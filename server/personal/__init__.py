"""What a user should see now: recall, ask, rank, arrange, explain."""

from __future__ import annotations

from matchcut.server.personal.personal import Personal

__all__ = ["Personal"]
