"""What is of the process as a whole: the C library's memory, the threads of NumPy's matrix products, and its end."""

from __future__ import annotations

import atexit
import ctypes
import gc
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

__all__ = ["end", "end_quickly", "end_within", "one_thread_for_products", "save_memory", "starting"]

# Parameters of mallopt(), from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
SMALL = 256 << 10

TELLING = 0.2  # seconds for the last words of a process whose log may lead nowhere

MAPS = Path("/proc/self/maps")
SETTERS = (
    "scipy_openblas_set_num_threads64_",
    "scipy_openblas_set_num_threads",
    "openblas_set_num_threads64_",
    "openblas_set_num_threads",
)


def save_memory() -> bool:
    """Lets the C library keep little of what was freed: one arena for all threads, and large pieces go back at once.

    To be called before there are threads.

    Returns:
        False where the C library knows no such settings, as musl, and nothing was changed.
    """
    with suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        settings = ((M_ARENA_MAX, 1), (M_MMAP_THRESHOLD, SMALL), (M_TRIM_THRESHOLD, SMALL))
        return all(mallopt(parameter, value) == 1 for parameter, value in settings)
    return False


@contextmanager
def starting() -> Iterator[Callable[[], None]]:
    """Lets Python look for no garbage while a program starts, as nearly all that is made then stays.

    Gives what is to be called once it has started: what is there by then is never looked at again, which would touch,
    now and then, all of it.
    """

    def started() -> None:
        gc.freeze()
        if enabled:
            gc.enable()

    enabled = gc.isenabled()
    gc.disable()
    try:
        yield started
    finally:
        gc.unfreeze()
        if enabled:
            gc.enable()


def one_thread_for_products() -> bool:
    """Lets NumPy multiply matrices on the thread that asks for it, where it does so by OpenBLAS.

    A server has threads of its own for all that takes long. And OpenBLAS's threads can wait for each other for ever
    when several threads of Python multiply at once: seen in ssyrk of 0.3.31, which held up the end of a server
    (OpenBLAS issue 1117 is of the same place).

    Returns:
        Whether such a library was found in the process.
    """
    import numpy  # noqa: F401  which brings the library

    found = False
    for path in libraries("openblas"):
        with suppress(OSError):
            library = ctypes.CDLL(path)
            for name in SETTERS:
                with suppress(AttributeError):
                    getattr(library, name)(1)
                    found = True
                    break
    return found


def end() -> NoReturn:
    """Ends the process at once, with the code 0; what was printed and logged is out, what is open the kernel closes."""
    _briefly(_flush)
    os._exit(0)


def end_quickly() -> None:
    """Lets the process end as end() does once the program has come to its own end.

    The interpreter would take itself apart: a fifth of a second of CPU time in a server, more than a second on a busy
    machine, and engines and libraries of C++ may have threads at work meanwhile.
    """
    atexit.register(end)


def end_within(seconds: float, last_words: Callable[[], None]) -> None:
    """Ends the process after so many seconds, whatever it is at then, with the code 0.

    Args:
        last_words: logs that; it gets no longer than TELLING.
    """

    def over() -> None:
        _briefly(last_words)
        end()

    timer = threading.Timer(seconds, over)
    timer.daemon = True
    timer.start()


def _briefly(tell: Callable[[], None]) -> None:
    """Calls something that writes, and waits for it no longer than TELLING: nobody may read that."""
    telling = threading.Thread(target=tell, daemon=True)
    try:
        telling.start()
    except RuntimeError:  # from Python 3.12 on there are no new threads at the end; end_within() still watches
        tell()
    else:
        telling.join(TELLING)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # there is no reader, or it is closed
            stream.flush()
    logging.shutdown()


def libraries(word: str) -> list[str]:
    """Files that are mapped into this process and have that word in their names."""
    try:
        lines = MAPS.read_text(errors="replace").splitlines()
    except OSError:
        return []
    paths = (line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6)
    return sorted({path for path in paths if word in Path(path).name and Path(path).is_file()})
