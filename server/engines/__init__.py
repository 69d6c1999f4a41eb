"""Engines: what runs an encoder. One Protocol of four members, a second for those on a GPU, one function that loads."""

from __future__ import annotations

from pathlib import Path

from matchcut.server.engines import registry
from matchcut.server.engines.base import Engine, OpenGpu, SeeingEngine, cores
from matchcut.server.models import Encoder

__all__ = ["Engine", "OpenGpu", "SeeingEngine", "cores", "load"]


def load(
    encoder: Encoder,
    *,
    engine: str = "auto",
    threads: int = 0,
    cache: Path | None = None,
    gpu: OpenGpu | None = None,
) -> Engine:
    """Loads an encoder into an engine.

    Args:
        engine: "auto" takes the fastest that is exact enough on this CPU; else a library ("onnxruntime", "openvino":
            float32) or one of registry.VARIANTS.
        threads: threads of one run; 0 takes all cores that the process may use.
        cache: folder where auto remembers its choice; None measures at each start.
        gpu: one that is open already, for an engine that runs on one; None: it opens the first.

    Raises:
        EngineFailed: no such engine, its library is not installed, or the encoder cannot be run.
    """
    if engine != "auto":
        return registry.make(encoder, engine, threads, gpu)
    from matchcut.server.engines.choose import choose

    return choose(encoder, threads=threads, cache=cache, gpu=gpu)
