"""What session.toml says of a version of a session model.

name = "shorts"
version = "2026-03-01"
kind = "gru"                      # or "sasrec"; what made step.onnx
dimensions = 64                   # of item vectors and queries
width = 128                       # of h, the state of step.onnx
tenant = ""                       # whose events it was trained on, and whose ids are in ids.txt; default ""

[encoder]                         # whose content vectors it was trained on
name = "efficientnet-lite0"
version = "57934424"
digest = "..."
dimensions = 1280

[metrics]                         # optional, for people: what the training measured

[files]                           # SHA-256 of each file beside it, lower-case hexadecimal
"items.onnx" = "..."
"step.onnx" = "..."
"ids.txt" = "..."

Further keys are for people, too.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matchcut.server.errors import EngineFailed
from matchcut.server.records import EncoderIdentity

__all__ = ["FILE", "Description", "read", "wrong"]

FILE = "session.toml"
LARGEST = 1 << 20  # bytes of session.toml
MOST = 65_536  # dimensions, or values of a state
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Description:
    """What is said; all of it is possible. files: the SHA-256 of each."""

    name: str
    version: str
    kind: str
    dimensions: int
    width: int
    encoder: EncoderIdentity
    files: Mapping[str, str]
    tenant: str = ""


def read(folder: Path) -> Description:
    """What the folder's session.toml says.

    Raises:
        EngineFailed: it is missing, no TOML, or says something impossible; the reason is MODEL_INVALID.
    """
    table = _parsed(folder / FILE)
    encoder = _of(table, "encoder", dict, "a table")
    files = _of(table, "files", dict, "a table")
    if not all(isinstance(value, str) and SHA256.fullmatch(value) for value in files.values()):
        raise wrong(f"{FILE}: files must give the SHA-256 of each file, as 64 lower-case hexadecimal digits")
    return Description(
        name=_text(table, "name"),
        version=_text(table, "version"),
        kind=_text(table, "kind"),
        dimensions=_size(table, "dimensions"),
        width=_size(table, "width"),
        encoder=EncoderIdentity(
            _text(encoder, "name", "encoder."),
            _text(encoder, "version", "encoder."),
            _text(encoder, "digest", "encoder."),
            _size(encoder, "dimensions", "encoder."),
        ),
        files=files,
        tenant=_of(table, "tenant", str, "a string") if "tenant" in table else "",
    )


def wrong(what: str) -> EngineFailed:
    """An error that says what is wrong with a model."""
    return EngineFailed(what, reason="MODEL_INVALID")


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise wrong(f"{FILE} has more than {LARGEST} bytes: it is none")
        return tomllib.loads(content.decode())
    except OSError as error:
        raise wrong(f"{FILE} cannot be read from {path.parent.name!r}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise wrong(f"{FILE} is not valid TOML: {error}") from error


def _of(table: Mapping[str, Any], key: str, kind: type, said: str, prefix: str = "") -> Any:
    if key not in table:
        raise wrong(f"{FILE}: {prefix}{key} is missing; it must be {said}")
    if type(table[key]) is not kind:
        raise wrong(f"{FILE}: {prefix}{key} must be {said}, not {table[key]!r}")
    return table[key]


def _text(table: Mapping[str, Any], key: str, prefix: str = "") -> str:
    value: str = _of(table, key, str, "text in quotes", prefix)
    if not value:
        raise wrong(f"{FILE}: {prefix}{key} is empty")
    return value


def _size(table: Mapping[str, Any], key: str, prefix: str = "") -> int:
    value: int = _of(table, key, int, f"a whole number from 1 to {MOST}", prefix)
    if not 1 <= value <= MOST:
        raise wrong(f"{FILE}: {prefix}{key} must be a whole number from 1 to {MOST}, not {value}")
    return value
