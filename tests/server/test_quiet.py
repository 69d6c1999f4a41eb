"""A server tells nobody that it runs: libraries that would are kept from it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARIES = ("onnxruntime", "openvino")
USED = """
import sys, time
import matchcut.server.app
for name in sys.argv[1:]:
    __import__(name)
time.sleep(2)  # some do it from a thread of theirs
print([name for name, module in sys.modules.items() if name.startswith("openvino_telemetry") and module is not None])
"""


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_library_keeps_or_tells_anything_of_its_use(library: str, tmp_path: Path) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not on this platform")
    kept = {
        name: value for name, value in os.environ.items() if name not in ("XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    }
    environment = {**kept, "HOME": str(tmp_path), "MATCHCUT_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", USED, library], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
    assert sorted(tmp_path.rglob("*")) == []
