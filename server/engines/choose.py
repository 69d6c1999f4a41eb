"""`auto`: the engine that costs the least CPU time on this machine among those that are exact enough.

Machines differ too much for a rule: with AMX OpenVINO's bfloat16 is ten times as fast as ONNX Runtime, without
bfloat16 the two are within a tenth of each other, either way.
"""

from __future__ import annotations

import logging
from pathlib import Path

from matchcut.server.engines import memory, registry, trial
from matchcut.server.engines.base import Engine, OpenGpu, cores
from matchcut.server.engines.tensorrt import manifest
from matchcut.server.errors import EngineFailed
from matchcut.server.models import Encoder

__all__ = ["choose"]

log = logging.getLogger(__name__)


def choose(encoder: Encoder, *, threads: int = 0, cache: Path | None = None, gpu: OpenGpu | None = None) -> Engine:
    """Loads the engine that was the fastest here, measuring only where that is not known yet.

    An engine that was built for a GPU beforehand, and lies beside the encoder, is taken without measuring.

    Args:
        threads: threads of one run; 0 takes all cores.
        cache: where the choice is remembered; None measures at each start.
        gpu: one that is open, for an engine that was built for it.

    Raises:
        EngineFailed: no engine can run this encoder; the message says why for each.
    """
    if (ready := on_gpu(encoder, threads, gpu)) is not None:
        return ready
    known = memory.facts(encoder, threads or cores())
    if cache is not None and (variant := memory.recall(cache, known)):
        try:
            engine = registry.make(encoder, variant, threads)
        except EngineFailed as error:
            log.warning("engine %s was the fastest before but cannot be loaded, measuring anew: %s", variant, error)
        else:
            log.info("engine %s, which was the fastest on this CPU before", variant)
            return engine
    engine, trials = measure(encoder, threads)
    report(engine, known, trials)
    if cache is not None:
        try:
            memory.keep(cache, known, engine.variant, trials)
        except OSError as error:
            log.warning("the choice of engine cannot be remembered, it is measured at each start: %s", error)
    return engine


def on_gpu(encoder: Encoder, threads: int, gpu: OpenGpu | None) -> Engine | None:
    """The encoder on a GPU, where an engine was built for it and can be used here."""
    try:
        built = manifest.read(encoder.path.parent)
        if built is None:
            return None
        variant = next(name for name, each in registry.ON_GPU.items() if each.library == built.library)
        engine = registry.make(encoder, variant, threads, gpu)
    except (EngineFailed, StopIteration) as error:
        log.warning("the engine built beside %s is not used, one of the CPU is: %s", encoder.path, error)
        return None
    log.info("engine %s, which was built for this GPU", engine.variant)
    return engine


def measure(encoder: Encoder, threads: int) -> tuple[Engine, list[trial.Trial]]:
    """Loads and compares all engines; closes all but the fastest."""
    engines: list[Engine] = []
    failed: list[trial.Trial] = []
    for variant in [name for name, each in registry.VARIANTS.items() if each.measured]:
        try:
            engines.append(registry.make(encoder, variant, threads))
        except EngineFailed as error:
            failed.append(trial.Trial(variant, fault=error.message))
    trials = trial.compare(engines, trial.frames(encoder))
    ranked = sorted(zip(trials, engines, strict=True), key=lambda pair: pair[0].cost)
    usable = [engine for each, engine in ranked if not each.fault]
    for _, engine in ranked:
        if engine not in usable[:1]:
            engine.close()
    trials += failed
    if not usable:
        reasons = "; ".join(map(str, trials))
        raise EngineFailed(f"no engine can run {encoder.path}: {reasons}", reason="ENGINE_UNAVAILABLE")
    return usable[0], trials


def report(engine: Engine, known: memory.Facts, trials: list[trial.Trial]) -> None:
    """One line: what was chosen, at what cost, and why the others were not."""
    chosen = next(each for each in trials if each.variant == engine.variant)
    others = ", ".join(str(each) for each in trials if each is not chosen)
    by_batch = ", ".join(f"{ms:.1f} at batch {size}" for size, ms in chosen.cpu_ms.items())
    log.info(
        "engine %s is the fastest for %s on %s with %d threads: CPU ms a frame %s, cosine %.5f; others: %s",
        *(engine.variant, engine.encoder.identity.name, known["cpu"], known["threads"]),
        *(by_batch, chosen.cosine, others),
    )
