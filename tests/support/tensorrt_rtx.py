"""Where TensorRT for RTX has to be there, and where tests do without it."""

from __future__ import annotations

import platform
import sys
from importlib import util

import pytest

MAGIC = b"vtrt"  # with which an engine begins

# The extra "test" brings it there, and nothing else is an excuse.
EXPECTED = sys.platform == "linux" and platform.machine() == "x86_64"

needed = pytest.mark.skipif(
    not EXPECTED and util.find_spec("tensorrt_rtx") is None,
    reason=f"tensorrt-rtx is not installed, and not expected to be on {sys.platform} {platform.machine()}",
)
