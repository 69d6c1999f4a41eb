"""The folder of compiled kernels: one file for each kernel and target, and the manifest that describes them."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matchcut.kernels.compile.one import SCRATCH, TRITON, Made, ptxas_version
from matchcut.kernels.compile.targets import FALLBACK, TARGETS, gpu_of
from matchcut.kernels.gpu.spec import Kernel

VERSION = 1  # of the manifest's form
MANIFEST = "manifest.json"
Entries = dict[str, Any]  # of the manifest, by the kernels' names


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Waits until no other process writes this folder. The lock is on what holds it: the folder itself is replaced."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    held = os.open(folder.parent, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def read(folder: Path) -> Entries:
    """What is there already; nothing where the manifest is not of this form.

    Raises:
        FileExistsError: the folder holds other things, and would be replaced.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} is no folder of compiled kernels: give an empty or a new one")
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        current = manifest["version"] == VERSION
        return dict(manifest["kernels"]) if current else {}
    except (ValueError, KeyError, TypeError):
        return {}


def current(folder: Path, there: Entries, keys: Mapping[str, str]) -> Entries:
    """The entries that hold still: compiled from these very kernels, with their files whole."""
    kept: Entries = {}
    for name, entry in there.items():
        if keys.get(name) != entry.get("key"):
            continue
        whole = {target: made for target, made in entry["targets"].items() if _whole(folder, made)}
        if whole:
            kept[name] = {**entry, "targets": whole}
    return kept


def described(kernel: Kernel, key: str) -> Entries:
    """The manifest's entry of a kernel that is compiled for no target yet."""
    return {
        "key": key,
        "arguments": [list(pair) for pair in kernel.arguments.items()],
        "aligned": sorted(kernel.aligned),
        "constants": dict(kernel.constants),
        "warps": kernel.warps,
        "block": 32 * kernel.warps,
        "scratch": SCRATCH,
        "targets": {},
    }


def made_entry(name: str, target: str, made: Made) -> Entries:
    """What the manifest says of one file."""
    entry: Entries = {
        "file": f"ptx/{name}.ptx" if target == FALLBACK else f"sm_{target}/{name}.cubin",
        "arch": "sm_80" if target == FALLBACK else gpu_of(target).arch,
        "entry": made.entry,
        "shared": made.shared,
    }
    if target != FALLBACK:  # what is portable has no registers yet
        entry |= {"registers": made.registers, "spills": made.spills, "stack": made.stack, "columns": made.columns}
    return entry | {"bytes": len(made.code), "sha256": hashlib.sha256(made.code).hexdigest()}


def replace(folder: Path, entries: Entries, code: Mapping[str, bytes]) -> None:
    """Writes the folder anew, and then puts it in place of the old: whoever reads sees the one or the other.

    Args:
        folder: to be replaced.
        entries: of the manifest.
        code: the new files by their names in the folder; the others of `entries` are taken from the old one.
    """
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fresh.chmod(0o755)
        for entry in entries.values():
            for made in entry["targets"].values():
                path = fresh / made["file"]
                path.parent.mkdir(exist_ok=True)
                if made["file"] in code:
                    path.write_bytes(code[made["file"]])
                else:
                    shutil.copyfile(folder / made["file"], path)
        (fresh / MANIFEST).write_text(text(entries), encoding="utf-8")
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as old:
            if folder.exists():
                folder.rename(Path(old) / "old")
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def text(entries: Entries) -> str:
    """The manifest: the same for the same entries, whatever order they came in."""
    kernels = {}
    for name in sorted(entries):
        made = entries[name]["targets"]
        kernels[name] = {**entries[name], "targets": {target: made[target] for target in TARGETS if target in made}}
    manifest = {"version": VERSION, "triton": TRITON, "ptxas": ptxas_version(), "kernels": kernels}
    return json.dumps(manifest, indent=1) + "\n"


def _whole(folder: Path, made: Entries) -> bool:
    try:
        found = hashlib.sha256((folder / made["file"]).read_bytes()).hexdigest()
    except OSError:
        return False
    return found == str(made["sha256"])
