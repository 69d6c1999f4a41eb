"""What is set for the process as a whole: the C library's memory, and the threads of NumPy's matrix products."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["one_thread_for_products", "save_memory", "starting"]

# Parameters of mallopt(), from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
SMALL = 256 << 10

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


def libraries(word: str) -> list[str]:
    """Files that are mapped into this process and have that word in their names."""
    try:
        lines = MAPS.read_text(errors="replace").splitlines()
    except OSError:
        return []
    paths = (line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6)
    return sorted({path for path in paths if word in Path(path).name and Path(path).is_file()})
