"""A caller of a running server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc.aio
import pytest_asyncio

from matchcut.server.app import App
from support.wire import Wire


@pytest_asyncio.fixture
async def wire(app: App) -> AsyncIterator[Wire]:
    """A caller of the running server."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        yield Wire(channel)
