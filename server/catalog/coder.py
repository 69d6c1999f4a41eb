"""One thread that codes vectors for the scan, and codes them anew when they have outgrown what was chosen."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from threading import Condition, Lock, Thread
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedRows, Codes
from matchcut.server.catalog.memory import Key, Memory
from matchcut.server.catalog.shelf import Shelf
from matchcut.server.records import Floats

_BLOCK = 2048  # rows coded between two looks at whether to stop
_FEW = 256  # rows that may be coded while readers and the writer wait

_log = logging.getLogger("matchcut.catalog")


class Coding(Protocol):
    """What makes codes; every kernels.device.Device does."""

    def coding(self, rows: Floats, *, check: Callable[[], None] | None = None) -> Codes | None:
        """See Device.coding."""
        ...

    def copied(self, coded: CodedRows, rows: NDArray[np.int64]) -> Codes:
        """See Device.copied."""
        ...

    def prepare(self, rows: Floats, coded: CodedRows) -> None:
        """See Device.prepare."""
        ...


class Coder:
    """Makes codes while readers are answered and changes are made; a shelf without them is ranked more slowly.

    A shelf that has codes extends them itself. Codes for all rows anew are begun from the rows that there are, catch up
    with those that came meanwhile, and take the place of the old ones in an instant; views keep what they have.

    Args:
        memory: whose shelves are coded.
        lock: over the memory.
        coding: makes codes, and brings them to where they are searched.
        least: rows that a shelf has to have.
    """

    def __init__(self, memory: Memory, lock: Lock, coding: Coding, *, least: int) -> None:
        self._memory = memory
        self._lock = lock
        self._coding = coding
        self._least = least
        self._news = Condition()
        self._waiting = dict.fromkeys(memory.tenants())  # in order
        self._closed = False
        self._warned: set[tuple[str, Key]] = set()
        self._thread = Thread(target=self._run, name="catalog-coder", daemon=True)
        self._thread.start()

    def notice(self, tenants: Iterable[str]) -> None:
        """These have changed."""
        with self._news:
            self._waiting |= dict.fromkeys(tenants)
            self._news.notify()

    def follow(self, memory: Memory) -> None:
        """Codes the shelves of another memory from now on; to be called with the lock, and notice() after it."""
        self._memory = memory

    def close(self) -> None:
        """Gives up what it is at; closing again does nothing."""
        with self._news:
            self._closed = True
            self._news.notify()
        self._thread.join()

    def _run(self) -> None:
        while (tenant := self._next()) is not None:
            while not self._closed:
                with self._lock:
                    found = self._memory.due(tenant, self._least)
                if found is None:
                    break
                key, shelf = found
                place = tenant, key
                try:
                    self._code(place, shelf)
                except _Closed:
                    return
                except Exception as error:  # whatever it is, the answers do not depend on it
                    self._warn(place, error)

    def _next(self) -> str | None:
        """The tenant to look at; None: it is the end."""
        with self._news:
            self._news.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            tenant = next(iter(self._waiting))
            del self._waiting[tenant]
            return tenant

    def _code(self, place: tuple[str, Key], shelf: Shelf) -> None:
        """Makes codes of all rows, and of those that come meanwhile, and gives them to the shelf if it is in use."""
        began = time.perf_counter()
        codes, rows = self._begin(place, shelf)
        if codes is None:
            return
        while True:
            for start in range(len(codes), len(rows), _BLOCK):
                self._check()
                codes.extend(rows[start : start + _BLOCK])
            self._check()
            self._coding.prepare(rows, codes.view())  # now, so that no request pays for it
            with self._lock:
                if not self._memory.holds(*place, shelf):
                    return
                rows = shelf.rows
                if len(rows) - len(codes) <= _FEW:
                    codes.extend(rows[len(codes) :])
                    shelf.adopt(codes, self._coding.copied)
                    break
        basis, (tenant, (_, dimensions)) = codes.basis, place
        _log.info(
            "coded %d segments of %d dimensions of tenant %r in %.2f s: %d dense dimensions, %d levels",
            *(len(codes), dimensions, tenant, time.perf_counter() - began, basis.dense, basis.levels),
        )

    def _begin(self, place: tuple[str, Key], shelf: Shelf) -> tuple[Codes | None, Floats]:
        """Empty codes, and the rows that are there by now; None: the device has no use for any."""
        while True:
            with self._lock:
                rows = shelf.try_codes()
            codes = self._coding.coding(rows, check=self._check)
            with self._lock:
                in_use = self._memory.holds(*place, shelf)
                if codes is None or not in_use or len(shelf.rows) < 2 * len(rows):
                    return codes if in_use else None, shelf.rows
            # so many came while the way was chosen that another will be better

    def _check(self) -> None:
        if self._closed:
            raise _Closed

    def _warn(self, place: tuple[str, Key], error: Exception) -> None:
        """Once for each shelf."""
        if place not in self._warned:
            self._warned.add(place)
            tenant, (_, dimensions) = place
            _log.warning(
                "the segments of %d dimensions of tenant %r could not be coded (%s); they are ranked as before, "
                "more slowly than they might be",
                *(dimensions, tenant, str(error) or type(error).__name__),
            )


class _Closed(Exception):
    """The catalogue is being closed."""
