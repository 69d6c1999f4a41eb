"""A server for commands, which are not asynchronous: it runs in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from matchcut.server.app import App
from matchcut.server.config import Config


@pytest.fixture
def address(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a running server, which MATCHCUT_SERVER names too."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    app = App(config)
    try:
        asyncio.run_coroutine_threadsafe(app.__aenter__(), loop).result(30)
        try:
            monkeypatch.setenv("MATCHCUT_SERVER", app.address)
            yield app.address
        finally:
            asyncio.run_coroutine_threadsafe(app.__aexit__(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
