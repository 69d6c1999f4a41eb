"""What was measured of an encoder in another precision than float32: precision.json, beside its ONNX file.

precision           "fp16", "bf16" or "int8"
onnx_sha256         of the ONNX file beside it
source              name, version, digest and sha256 of the ONNX file of the encoder in float32
products            how many layers with weights there are on the way to the vector
in_float32          the names of those that stay so
gate, figures       what had to be kept, and what is, against float32 on the frames held out
passed              whether it is kept; false only where that was forced
frames              how many calibrated and how many were held out, and of which files
made, by            when, in UTC, and by which versions
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matchcut.server.errors import EngineFailed

__all__ = ["NAME", "facts", "sha256"]

NAME = "precision.json"


def sha256(path: Path) -> str:
    """Of a file's bytes, in hexadecimal.

    Raises:
        EngineFailed: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise EngineFailed(f"{path} cannot be read: {error.strerror}", reason="ENCODER_MISSING") from error


def facts(onnx: Path) -> Mapping[str, Any]:
    """What was measured of this ONNX file; {} where nothing is said, or it is said of another file."""
    try:
        found = json.loads((onnx.parent / NAME).read_text(encoding="utf-8"))
        same = found["onnx_sha256"] == sha256(onnx) and isinstance(found["precision"], str)
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return found if same else {}
