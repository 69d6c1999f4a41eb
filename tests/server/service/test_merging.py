"""Several sources of replies as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from matchcut.server.service.merging import merged


class Source:
    """Yields what it is given, as it is given; None ends it."""

    def __init__(self) -> None:
        self.given: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        self.closed = False
        self.task: asyncio.Task[object] | None = None

    async def items(self) -> AsyncGenerator[int, None]:
        self.task = asyncio.current_task()
        try:
            while (item := await self.given.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


async def test_items_come_as_they_come_and_all_do() -> None:
    one, two = Source(), Source()
    got: list[int] = []
    async with aclosing(merged(one.items(), two.items())) as both:
        for source, item in ((one, 1), (two, 2), (two, 3), (one, 4)):
            source.given.put_nowait(item)
            got.append(await anext(both))
        one.given.put_nowait(None)
        two.given.put_nowait(5)
        got.append(await anext(both))
        assert one.closed
        two.given.put_nowait(None)
        assert [item async for item in both] == []
    assert got == [1, 2, 3, 4, 5]


async def test_each_source_keeps_its_order() -> None:
    sources = [Source() for _ in range(3)]
    for number, source in enumerate(sources):
        for item in range(20):
            source.given.put_nowait(100 * number + item)
        source.given.put_nowait(None)
    got = [item async for item in merged(*(source.items() for source in sources))]
    assert len(got) == 60
    for number in range(3):
        of = [item for item in got if item // 100 == number]
        assert of == sorted(of)


async def test_one_failure_ends_all() -> None:
    one, two = Source(), Source()
    one.given.put_nowait(ValueError("broken"))
    with pytest.raises(ValueError, match="broken"):
        async for _ in merged(one.items(), two.items()):
            pass
    assert one.closed
    assert two.closed


async def test_closing_closes_the_sources() -> None:
    one, two = Source(), Source()
    for item in (1, 2, 3):
        one.given.put_nowait(item)
    async with aclosing(merged(one.items(), two.items())) as both:
        assert await anext(both) == 1
    assert one.closed
    assert two.closed


async def test_a_source_that_is_given_up_cancels_its_reader() -> None:
    one, two = Source(), Source()
    reading = asyncio.Event()
    one.given.put_nowait(1)

    async def read() -> None:
        async with aclosing(merged(one.items(), two.items())) as both:
            async for _ in both:
                reading.set()
                await asyncio.Event().wait()  # a write that never ends

    reader = asyncio.create_task(read())
    await reading.wait()
    assert one.task is not None
    one.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(reader, 10)
    assert two.closed
