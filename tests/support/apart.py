"""Functions that have to run in a process of their own.

The messages of the open inference protocol have the same names in every package that has them, and protobuf takes a
name once a process. So the standard client, which brings its own, cannot be imported where our server is.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context
from typing import Any

__all__ = ["Apart"]


class Apart:
    """Another process, which runs the functions of a module one at a time.

    Args:
        module: is imported there and must not be imported here; arguments and results are pickled.
    """

    def __init__(self, module: str) -> None:
        self._module = module
        self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))

    async def run(self, function: str, *arguments: Any, **options: Any) -> Any:
        """The function's result; what it raises is raised here."""
        return await asyncio.wrap_future(self._pool.submit(call, self._module, function, arguments, options))

    def close(self) -> None:
        """Ends the process."""
        self._pool.shutdown()


def call(module: str, function: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Runs there."""
    return getattr(import_module(module), function)(*arguments, **options)
