"""Sets of defaults for a kind of machine: what `--profile` names. Any option that is given beats them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PROFILES", "STANDARD", "explained", "written"]

STANDARD = "standard"

# A board or a box beside cameras: one core for the encoder, a few callers, some ten thousand segments, and memory that
# others want too. What is measured of it is in tests/bench/results/edge.csv.
EDGE: Mapping[str, Any] = {
    # One core, and nothing that was made for more.
    "threads": 1,
    "scan_threads": 1,
    "runs": 1,
    "turns": 1,
    # A frame at a time: on one thread it takes no longer than in a batch, and the layers' results take the least room.
    "batch": 1,
    "max_batch": 1,
    # A fifth of the weights and, on most CPUs, less time; by the one engine that every platform has, so that no start
    # loads and measures others.
    "precision": "int8",
    "engine": "onnxruntime",
    # Below this NumPy ranks in some ten milliseconds. Codes would be memory, a quarter of the vectors, which lie in a
    # file here, and work at each start.
    "scan_from": 32768,
    "vectors": "file",
    # Lists for users take a second copy of the items' vectors: only where somebody asks for one.
    "users_ahead": "off",
    # Few at once, and the rest is told so at once.
    "max_media_requests": 2,
    "max_requests": 16,
    "max_connections": 64,
    "max_streams": 32,
    "max_queue": 16,
    "models_sequences": 32,
    "stream_requests": 2,
    # What a caller may make the server hold.
    "max_message": 8 << 20,
    "max_buffered": 32 << 20,
    "max_pixels": 1920 * 1088,
    "user_memory": 8 << 20,
}

PROFILES: Mapping[str, Mapping[str, Any]] = {STANDARD: {}, "edge": EDGE}


def explained(name: str) -> str:
    """What a profile sets, as a command line would."""
    return " ".join(f"--{option.replace('_', '-')} {written(value)}" for option, value in PROFILES[name].items())


def written(value: Any) -> str:
    """A value as people write it: whole mebibytes with their unit."""
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20}MiB"
    return str(value)
