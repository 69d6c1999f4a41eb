"""The status that a server gave an asynchronous call, where grpc.aio has lost it.

A message that cannot leave because the call has ended makes grpc.aio put INTERNAL in the place of the server's own
status, before or after that one arrives (https://github.com/grpc/grpc/issues/36066). Uploads that are answered
early run into this all the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from matchcut.client.errors import Error, from_rpc

__all__ = ["Status"]

T = TypeVar("T")
LOST = "Internal error from Core"  # the details that grpc.aio makes up
PATIENCE = 5.0  # seconds; the server's status is on its way when a message fails, so this only bounds a fault


class Status:
    """Remembers the first status of a call that is not made up; looks like a failed call to from_rpc()."""

    def __init__(self, call: Any) -> None:
        self._known = asyncio.Event()
        self._parts: tuple[Any, Any, Any] = (None, None, None)
        call.add_done_callback(self._note)  # called whenever the status changes, not only once

    def code(self) -> Any:
        return self._parts[0]

    def details(self) -> Any:
        return self._parts[1]

    def trailing_metadata(self) -> Any:
        return self._parts[2]

    async def corrected(self, error: Error) -> Error | None:
        """`error`, or where it is the made-up one, the error that the server meant; None if it meant OK."""
        if error.message != LOST:
            return error
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._known.wait()
            if self.code().name == "OK":
                return None
            meant = from_rpc(self)
            meant.__cause__ = error.__cause__
            return meant
        return error

    def _note(self, call: Any) -> None:
        parts = _now(call.code()), _now(call.details()), _now(call.trailing_metadata())
        if not self._known.is_set() and parts[1] != LOST:
            self._parts = parts
            self._known.set()


def _now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that has nothing to wait for, as a finished call's have not."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    raise RuntimeError("the call has not ended")
