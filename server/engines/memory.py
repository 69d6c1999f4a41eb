"""Remembers what was measured of engines, such as which was the fastest, while nothing that matters changes."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matchcut.server.engines import registry, trial
from matchcut.server.models import Encoder

__all__ = ["Facts", "cpu", "facts", "keep", "read", "recall", "write"]

Facts = dict[str, Any]
CPUINFO = Path("/proc/cpuinfo")


def facts(encoder: Encoder, threads: int) -> Facts:
    """All that the choice depends on, fit for JSON."""
    return {
        **cpu(),
        "versions": registry.versions(),
        "variants": list(registry.VARIANTS),
        "encoder": encoder.identity.digest,
        "threads": threads,
        "gate": trial.GATE,
    }


def cpu() -> Facts:
    """The CPU's name and a digest of its features."""
    try:
        lines = CPUINFO.read_text(errors="replace").partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    features = found.get("flags") or found.get("Features") or platform.machine()
    return {
        "cpu": found.get("model name") or platform.processor() or platform.machine(),
        "model": "-".join(found.get(key, "") for key in ("vendor_id", "cpu family", "model", "stepping")),
        "features": hashlib.sha256(" ".join(sorted(features.split())).encode()).hexdigest(),
    }


def recall(cache: Path, known: Facts) -> str:
    """The variant that was chosen under the same facts; "" where there is none or the file is not to be trusted."""
    variant = read(cache, "engine", known).get("variant")
    return variant if isinstance(variant, str) and variant in registry.VARIANTS else ""


def keep(cache: Path, known: Facts, variant: str, trials: list[trial.Trial]) -> None:
    """Writes the choice and the figures behind it, whole or not at all.

    Raises:
        OSError: the cache cannot be written.
    """
    write(cache, "engine", known, {"variant": variant, "trials": [asdict(each) for each in trials]})


def read(cache: Path, kind: str, known: Facts) -> Facts:
    """What was written under the same facts; {} where there is nothing, or the file is damaged or of other facts."""
    try:
        kept = json.loads(place(cache, kind, known).read_text())
        return kept if kept["facts"] == known else {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}


def write(cache: Path, kind: str, known: Facts, found: Facts) -> None:
    """Writes what was found under these facts, whole or not at all.

    Raises:
        OSError: the cache cannot be written.
    """
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=cache, prefix=f".{kind}-", delete=False) as file:
        written = Path(file.name)
        try:
            file.write(json.dumps({"facts": known, **found}, indent=2))
            file.flush()
            os.replace(written, place(cache, kind, known))
        except BaseException:  # each start would leave one more
            written.unlink(missing_ok=True)
            raise


def place(cache: Path, kind: str, known: Facts) -> Path:
    """Where what was found under these facts lies."""
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return cache / f"{kind}-{digest[:16]}.json"
