"""What is read of the memory that was in use when a request began."""

from __future__ import annotations

from threading import Lock

from matchcut.server.catalog.contract import Stored, View
from matchcut.server.catalog.memory import Memory, key_of
from matchcut.server.records import EncoderIdentity


class LocalEdition:
    """See contract.Edition. The memory stays for as long as somebody has an edition of it.

    Args:
        lock: over the memory.
    """

    def __init__(self, memory: Memory, lock: Lock) -> None:
        self._memory = memory
        self._lock = lock

    def get(self, tenant: str, item_id: str) -> Stored | None:
        """See contract.Edition."""
        with self._lock:
            return self._memory.stored(tenant, item_id)

    def view(self, tenant: str, encoder: EncoderIdentity) -> View:
        """See contract.Edition."""
        with self._lock:
            return self._memory.view(tenant, key_of(encoder))
