"""Several sources of replies as one, in the order in which they come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, TypeVar

__all__ = ["merged"]

T = TypeVar("T")
END: Any = object()


class Failed:
    """What a source has raised, on its way to whoever reads from all of them."""

    def __init__(self, error: Exception) -> None:
        self.error = error


async def merged(*sources: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """What the sources yield, until all have ended or one has failed. To be closed, which closes the sources.

    Each runs in a task of its own, one item ahead of the reader at most. Where such a task is cancelled, as Calls.each
    does whose results nobody takes, the reader is cancelled in its stead: it may wait for a write that never ends.
    """
    reader = asyncio.current_task()
    assert reader is not None
    ready: asyncio.Queue[Any] = asyncio.Queue(1)
    over = False

    async def pump(source: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await ready.put(item)
            await ready.put(END)
        except asyncio.CancelledError:
            if not over:
                reader.cancel()
            raise
        except Exception as error:
            await ready.put(Failed(error))

    tasks = [asyncio.create_task(pump(source)) for source in sources]
    try:
        left = len(tasks)
        while left:
            item = await ready.get()
            if isinstance(item, Failed):
                raise item.error
            if item is END:
                left -= 1
            else:
                yield item
    finally:
        over = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
