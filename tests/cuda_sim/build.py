"""Compiles the simulated driver for the PyCUDA that is installed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "build" / "cuda_sim"
_COMPILE = ["cc", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden"]


def installed() -> Path | None:
    """PyCUDA's library in this Python, if it is there."""
    spec = importlib.util.find_spec("pycuda")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []
    return next((library for folder in folders for library in folder.glob("_driver*.so")), None)


def built() -> Path:
    """libcuda.so.1 with all functions that PyCUDA imports, compiled unless it is there already.

    Raises:
        RuntimeError: there is no PyCUDA.
    """
    pycuda = installed()
    if pycuda is None:
        raise RuntimeError("PyCUDA is not installed in this Python: ./build.sh test does that")
    sources = sorted(HERE.glob("*.[ch]"))
    content = b"".join(source.read_bytes() for source in sources)
    stubs = _stubs(pycuda, content.decode())
    folder = OUT / hashlib.sha256(content + stubs.encode()).hexdigest()[:16]
    library = folder / "libcuda.so.1"
    if not library.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            generated, made = Path(work, "stubs.c"), Path(work, "libcuda.so.1")
            generated.write_text(stubs)
            files = [str(source) for source in sources if source.suffix == ".c"]
            name = "-Wl,-soname,libcuda.so.1"  # so the loader takes it for the one that PyCUDA asks for
            subprocess.run([*_COMPILE, name, "-o", str(made), *files, str(generated), "-lpthread"], check=True)
            os.replace(made, library)  # whole or not at all, whoever else builds it
    return library


def _stubs(pycuda: Path, sources: str) -> str:
    listed = subprocess.run(["nm", "-D", "--undefined-only", str(pycuda)], check=True, capture_output=True, text=True)
    imported = {line.split()[-1].partition("@")[0] for line in listed.stdout.splitlines() if line.strip()}
    written = set(re.findall(r"^API (cu\w+)\(", sources, re.MULTILINE))
    missing = sorted(name for name in imported if re.fullmatch(r"cu[A-Z]\w+", name) and name not in written)
    head = "/* matchcut simulation: imported by PyCUDA, never called by matchcut's launcher. */\n"
    visible = '__attribute__((visibility("default")))'
    return head + "".join(f"{visible} int {name}(void);\nint {name}(void) {{ return 801; }}\n" for name in missing)
