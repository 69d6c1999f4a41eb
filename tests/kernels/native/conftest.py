"""What all tests of the native scan share."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="module", autouse=True)
def one_blas_thread() -> Iterator[None]:
    """NumPy's products here are small: threads of OpenBLAS that wait for each other make them slower, up to 20 times.

    Changes nothing where NumPy was built with another library.
    """
    found = list((Path(np.__file__).parents[1] / "numpy.libs").glob("*openblas64*"))
    if not found:
        yield
        return
    library = ctypes.CDLL(str(found[0]))
    before = library.scipy_openblas_get_num_threads64_()
    library.scipy_openblas_set_num_threads64_(1)
    yield
    library.scipy_openblas_set_num_threads64_(before)
