"""A trained classifier as a version of a model that the server serves, with its figures beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from matchcut.server import models
from matchcut.server.errors import InvalidInput
from matchcut.server.models.description import contained
from matchcut.server.models.encoder import Channels
from matchcut.server.records import InputSize
from matchcut.server.serving.folder import NUMBER
from matchcut.server.training.export import gate

__all__ = ["OUTPUTS", "Both", "as_json", "check", "described", "next_version", "publish"]

OUTPUTS = ("embedding", "probabilities")
AXES = {name: {0: "n"} for name in ("image", *OUTPUTS)}


class Both(nn.Module):
    """A classifier as it is exported: pictures to embeddings and probabilities."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(n, 3, height, width) to (n, dimensions) and (n, classes)."""
        embedding = self.model.embed(x)
        return embedding, self.model.head(embedding).softmax(dim=1)


def check(content: bytes, model: nn.Module, pictures: Tensor) -> float:
    """The largest difference between the ONNX file, in ONNX Runtime, and torch on these pictures.

    Args:
        pictures: what the network takes, two at least.

    Raises:
        EngineFailed: it is above 1e-5, or the file cannot be run (reason PARITY_FAILED).
    """
    probes = [{"image": np.ascontiguousarray(part.numpy())} for part in (pictures, pictures[:1])]
    return gate(content, Both(model), probes, OUTPUTS, axes=AXES, name="classifier")


def described(*, name: str, version: int, dimensions: int, size: InputSize, mean: Channels, std: Channels) -> str:
    """The TOML file beside the ONNX file. It is an encoder's: it says what the pictures must look like."""
    return f"""\
name = {quoted(name)}
version = "{version}"
dimensions = {dimensions}
labels = "labels.txt"

[input]
width = {size.width}
height = {size.height}
fit = "{size.fit}"
layout = "NCHW"
mean = {[float(value) for value in mean]}
std = {[float(value) for value in std]}
"""


def quoted(text: str) -> str:
    """As TOML writes text; JSON's escapes are TOML's, except for this one character, which JSON leaves as it is."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def next_version(out: Path) -> int:
    """One more than the highest version that is there."""
    there = [int(each.name) for each in out.iterdir() if NUMBER.fullmatch(each.name)] if out.is_dir() else []
    return max(there, default=0) + 1


def publish(aside: Path, out: Path, version: int, files: Mapping[str, bytes], labels: Sequence[str]) -> Path:
    """Writes a version aside, has it read as the server would read it, and moves it into place as a whole.

    Args:
        aside: a folder that does not exist yet, on the same disk as `out`.
        files: the content of each file by name, model.onnx and model.toml among them.

    Returns the version's folder.

    Raises:
        EngineFailed: the server would not take it.
        InvalidInput: the version is there already.
        OSError: the disk is full or cannot be written.
    """
    aside.mkdir(parents=True)
    try:
        for name, content in {**files, "labels.txt": "".join(f"{each}\n" for each in labels).encode()}.items():
            (aside / name).write_bytes(content)
        models.load(aside / "model.onnx")
        place = out / str(version)
        if place.exists() or not contained(place, out):
            raise InvalidInput(f"{place} is there already; train again for another version", field="out")
        aside.rename(place)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    return place


def as_json(values: Mapping[str, Any]) -> bytes:
    """As a file for people and programs."""
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
