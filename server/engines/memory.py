"""Remembers which engine was the fastest, for as long as nothing that matters changes."""

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

__all__ = ["Facts", "facts", "keep", "recall"]

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


def place(cache: Path, known: Facts) -> Path:
    """Where the choice under these facts lies."""
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
    return cache / f"engine-{digest[:16]}.json"


def recall(cache: Path, known: Facts) -> str:
    """The variant that was chosen under the same facts; "" where there is none or the file is not to be trusted."""
    try:
        kept = json.loads(place(cache, known).read_text())
        variant = kept["variant"] if kept["facts"] == known else ""
    except (OSError, ValueError, TypeError, KeyError):
        return ""
    return variant if isinstance(variant, str) and variant in registry.VARIANTS else ""


def keep(cache: Path, known: Facts, variant: str, trials: list[trial.Trial]) -> None:
    """Writes the choice and the figures behind it, whole or not at all.

    Raises:
        OSError: the cache cannot be written.
    """
    cache.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"facts": known, "variant": variant, "trials": [asdict(each) for each in trials]}, indent=2)
    with tempfile.NamedTemporaryFile("w", dir=cache, prefix=".engine-", delete=False) as file:
        file.write(text)
    os.replace(file.name, place(cache, known))
