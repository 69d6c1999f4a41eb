"""A real server in a process of its own, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bare(**more: str) -> dict[str, str]:
    """This environment without matchcut's variables, but for the cache and those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MATCHCUT_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**kept, "PATH": path, "MATCHCUT_CACHE": str(ROOT / "build" / "cache"), **more}


@contextmanager
def served(
    folder: Path, *options: str, listen: str = "127.0.0.1:0", environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Starts `matchcut serve` with its data in a folder; yields the address, and stops it in the end."""
    folder.mkdir(exist_ok=True)
    out, log = folder / "serve.out", folder / "serve.log"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "matchcut.server", "serve", "--listen", listen, "--data", str(folder / "data")]
    with out.open("w") as stdout, log.open("a") as stderr:
        server = subprocess.Popen(
            [*command, *options], stdout=stdout, stderr=stderr, env=environment or bare(), cwd=ROOT
        )
        try:
            while "serving on " not in (said := out.read_text()):
                assert server.poll() is None, log.read_text()
                time.sleep(0.05)
            yield said.split("serving on ", 1)[1].split()[0]
        finally:
            server.terminate()
            assert server.wait(timeout=60) == 0, log.read_text()
