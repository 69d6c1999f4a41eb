"""An encoder in another precision on disk: the ONNX file, its description and labels, and what was measured."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.models import Encoder, load
from matchcut.server.models.measured import NAME, facts, sha256
from matchcut.server.precision.conversion import Converted
from matchcut.server.precision.frames import Frames
from matchcut.server.precision.gate import GATES

__all__ = ["copy", "write"]

SHOWN = 8  # digits of a file's sha256 in the version
LIBRARIES = ("matchcut", "numpy", "onnx", "onnxruntime")


def write(encoder: Encoder, converted: Converted, frames: Frames, out: Path, *, force: bool = False) -> Path:
    """Makes the folder of the converted encoder, whole or not at all.

    Args:
        encoder: the one in float32.
        out: the folder; must not be there yet.
        force: also below the gate.

    Returns:
        The ONNX file in it.

    Raises:
        EngineFailed: it is below the gate, or what was written cannot be loaded.
        InvalidInput: the folder is there already, or cannot be written.
    """
    if converted.faults and not force:
        raise EngineFailed(
            f"{converted.precision} is below the gate: {'; '.join(converted.faults)} ({converted.figures}); give other "
            "--frames or another precision, or take it as it is with --force",
            reason="BELOW_GATE",
        )
    known = measured(encoder, converted, frames)
    return publish(out, encoder, converted.model, description(encoder, version(encoder, converted)), known)


def copy(encoder: Encoder, out: Path) -> Path:
    """The same encoder in a folder of its own, whole or not at all.

    Returns:
        The ONNX file in it.

    Raises:
        EngineFailed: it cannot be read.
        InvalidInput: the folder is there already, or cannot be written.
    """
    try:
        model = encoder.path.read_bytes()
    except OSError as error:
        raise EngineFailed(f"{encoder.path} cannot be read: {error.strerror}", reason="ENCODER_MISSING") from error
    return publish(out, encoder, model, description(encoder, encoder.identity.version), facts(encoder.path))


def publish(out: Path, encoder: Encoder, model: bytes, toml: str, known: Mapping[str, Any]) -> Path:
    """Makes the folder aside and moves it into place; returns the ONNX file in it."""
    if out.exists():
        raise InvalidInput(f"{out} is there already; give another folder, or remove it", field="out")
    name = encoder.path.name
    files = {name: model, Path(name).with_suffix(".toml").name: toml.encode()}
    if encoder.labels:
        files["labels.txt"] = "".join(f"{label}\n" for label in encoder.labels).encode()
    if known:
        files[NAME] = (json.dumps(known, indent=2) + "\n").encode()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent, ignore_cleanup_errors=True) as scratch:
            built = Path(scratch) / "encoder"
            built.mkdir()
            for each, data in files.items():
                with (built / each).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())  # the folder's name is the proof that it is whole, also after a power cut
            load(built / name)
            built.rename(out)
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written: {error.strerror}", field="out") from error
    return out / name


def version(encoder: Encoder, converted: Converted) -> str:
    """What the converted encoder is called beside its name, which says of which file its figures are.

    Its vectors are others than the original's, and depend on the frames it was made with: also others than those of
    the default encoder in int8, which comes with figures of its own.
    """
    made = hashlib.sha256(converted.model).hexdigest()
    return f"{encoder.identity.version}-{converted.precision}-{made[:SHOWN]}"


def measured(encoder: Encoder, converted: Converted, frames: Frames) -> dict[str, Any]:
    """The content of precision.json."""
    identity = encoder.identity
    return {
        "precision": converted.precision,
        "onnx_sha256": hashlib.sha256(converted.model).hexdigest(),
        "source": {
            "name": identity.name,
            "version": identity.version,
            "digest": identity.digest,
            "onnx_sha256": sha256(encoder.path),
        },
        "products": converted.products,
        "in_float32": list(converted.left),
        "gate": asdict(GATES[converted.precision]),
        "figures": asdict(converted.figures),
        "passed": not converted.faults,
        "frames": {
            "calibration": len(frames.calibration),
            "held_out": len(frames.held_out),
            "media": list(frames.media),
        },
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": {library: metadata.version(library) for library in LIBRARIES},
    }


def description(encoder: Encoder, version: str) -> str:
    """The TOML file of an encoder, under that version."""

    def text(value: str) -> str:
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    size = encoder.input
    labels = 'labels = "labels.txt"\n' if encoder.labels else ""
    return (
        f"name = {text(encoder.identity.name)}\nversion = {text(version)}\n"
        f"dimensions = {encoder.identity.dimensions}\n{labels}\n[input]\nwidth = {size.width}\nheight = {size.height}\n"
        f"fit = {text(size.fit)}\nlayout = {text(encoder.layout)}\nmean = {list(encoder.mean)}\n"
        f"std = {list(encoder.std)}\n"
    )
