"""Engines beside their encoder: used where they fit, built again where they do not."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from matchcut.server.engines.tensorrt import manifest
from matchcut.server.engines.tensorrt.build import Phase, build, check, content
from matchcut.server.engines.tensorrt.library import Library
from matchcut.server.engines.tensorrt.manifest import Batch, Manifest
from matchcut.server.errors import EngineFailed
from matchcut.server.models import measured

__all__ = ["Built", "prepare"]

log = logging.getLogger("matchcut")


@dataclass(frozen=True, slots=True)
class Built:
    """An engine that may be used. why: why it was built now; "" where one was there that fits."""

    manifest: Manifest
    engine: bytes
    why: str


def prepare(
    onnx: Path,
    library: Library,
    targets: tuple[int, ...],
    *,
    batch: Batch | None = None,
    again: bool = False,
    must_keep: bool = False,
    phase: Phase = lambda name, done, steps: None,
    refused: Callable[[str], None] = lambda why: None,
) -> Built:
    """The engine beside an encoder's ONNX file; built where there is none that fits, and kept if the disk allows.

    Args:
        targets: see build().
        batch: None: that of the engine that is there, else the default.
        again: builds also where one is there that fits.
        must_keep: whether it is of no use where it cannot be kept.
        refused: told why the engine that is there is not used.

    Raises:
        InvalidInput, EngineFailed: it cannot be built; see build(). Or kept, where it must be.
    """
    check(library, targets)
    targets, folder = tuple(sorted(set(targets))), onnx.parent
    why, older = "there is none yet", None
    try:
        older = manifest.read(folder)
        if older is not None:
            why = manifest.fault(folder, older, onnx, library, targets, batch)
            if not why and not again:
                return Built(older, content(folder / older.engine), "")
            why = why or "it was asked for"
    except EngineFailed as error:
        why = error.message
    if older is not None:
        refused(f"the engine {folder / older.engine} is not used: {why}")
    batch = batch or (older.batch if older is not None else Batch())
    made = build(content(onnx), library, targets=targets, batch=batch, first_output_only=True, phase=phase)
    facts = measured.facts(onnx)
    precision = str(facts.get("precision", "fp32"))
    fresh = Manifest(
        engine=manifest.title(onnx.stem, library, precision, targets, batch),
        engine_sha256=hashlib.sha256(made).hexdigest(),
        size=len(made),
        onnx_sha256=measured.sha256(onnx),
        library=library.name,
        version=library.version,
        targets=targets,
        batch=batch,
        precision=precision,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        measured={key: facts[key] for key in ("gate", "figures", "passed") if key in facts},
    )
    try:
        manifest.keep(folder, fresh, made)
    except OSError as error:
        if must_keep:
            raise EngineFailed(
                f"the engine cannot be kept in {folder}: {error.strerror}", reason="ENGINE_NOT_KEPT"
            ) from error
        log.warning("the engine cannot be kept in %s, it is built at each start: %s", folder, error)
    return Built(fresh, made, why)
