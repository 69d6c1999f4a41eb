"""What an encoder is: one ONNX file, and one TOML file beside it that says what the picture must look like.

name = "efficientnet-lite0"
version = "57934424"
dimensions = 1280                 # of the first output, (n, dimensions)
labels = "labels.txt"             # optional: class names of the second output, one a line

[input]
width = 224
height = 224
fit = "stretch"                   # or "crop"; stretch where not given
layout = "NCHW"                   # or "NHWC"
mean = [127.0, 127.0, 127.0]      # of R, G, B in 0..255: the input is (value - mean) / std
std = [128.0, 128.0, 128.0]
"""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from matchcut.kernels.preprocess import Layout
from matchcut.server.errors import EngineFailed
from matchcut.server.models import graph_signature
from matchcut.server.records import EncoderIdentity, InputSize

__all__ = ["Channels", "Encoder", "load"]

Channels = tuple[float, float, float]
FITS = ("stretch", "crop")
LAYOUTS = ("NCHW", "NHWC")

KEYS = {"name": str, "version": str, "dimensions": int, "labels": str, "input": dict}
INPUT_KEYS = {"width": int, "height": int, "fit": str, "layout": str, "mean": list, "std": list}
OPTIONAL = {"labels": "", "fit": "stretch"}
WRITTEN = {str: "text in quotes", int: "a whole number", dict: "a table", list: "three numbers"}


@dataclass(frozen=True, slots=True)
class Encoder:
    """A CNN that turns pictures into vectors; nothing is loaded yet.

    path: the ONNX file. Its one input is (n, ...) float32 in `layout`, its first output (n, dimensions) float32.
    mean, std: of R, G, B in 0..255; the input is (value - mean) / std.
    labels: class names of the second output; () where there are none.
    """

    path: Path
    identity: EncoderIdentity
    input: InputSize
    mean: Channels
    std: Channels
    layout: Layout = "NCHW"
    labels: tuple[str, ...] = ()

    def shape(self, n: int) -> tuple[int, int, int, int]:
        """The shape of n pictures in the encoder's layout."""
        width, height = self.input.width, self.input.height
        return (n, 3, height, width) if self.layout == "NCHW" else (n, height, width, 3)


def load(onnx_path: Path) -> Encoder:
    """Reads the description of an encoder and checks it against the graph.

    The digest covers the model's bytes and all that changes its input: another mean makes other vectors.

    Args:
        onnx_path: the ONNX file; the TOML file has the same name with the ending .toml.

    Raises:
        EngineFailed: a file is missing, a field of the TOML file is missing, unknown or invalid, or the graph has
            other inputs or outputs than the TOML file says.
    """
    toml_path = onnx_path.with_suffix(".toml")
    model = content(onnx_path)
    table = Table(toml_path, parsed(toml_path), KEYS)
    inner = Table(toml_path, table["input"], INPUT_KEYS, "input.")
    size = InputSize(inner.positive("width"), inner.positive("height"), cast(Any, inner.one_of("fit", FITS)))
    layout = cast(Layout, inner.one_of("layout", LAYOUTS))
    mean, std = inner.channels("mean"), inner.channels("std")
    if min(std) <= 0:
        inner.wrong("std", "must be above zero")
    preprocessing = json.dumps([size.width, size.height, size.fit, layout, mean, std])
    encoder = Encoder(
        path=onnx_path,
        identity=EncoderIdentity(
            name=table.some("name"),
            version=table.some("version"),
            digest=hashlib.sha256(preprocessing.encode() + b"\n" + model).hexdigest(),
            dimensions=table.positive("dimensions"),
        ),
        input=size,
        mean=mean,
        std=std,
        layout=layout,
        labels=labels(onnx_path.with_name(table["labels"])) if table["labels"] else (),
    )
    check(encoder, model)
    return encoder


class Table:
    """A TOML table whose keys and types are known; its errors name the field."""

    def __init__(self, path: Path, values: Mapping[str, Any], kinds: Mapping[str, type], prefix: str = "") -> None:
        self.path, self.values, self.prefix = path, {**OPTIONAL, **values}, prefix
        for key in values:
            if key not in kinds:
                self.wrong(key, f"is unknown; known are {', '.join(kinds)}")
        for key, kind in kinds.items():
            if key not in self.values:
                self.wrong(key, f"is missing; it must be {WRITTEN[kind]}")
            if type(self.values[key]) is not kind:
                self.wrong(key, f"must be {WRITTEN[kind]}, not {self.values[key]!r}")

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def wrong(self, key: str, what: str) -> NoReturn:
        raise EngineFailed(f"{self.path}: {self.prefix}{key} {what}", reason="ENCODER_INVALID")

    def some(self, key: str) -> str:
        """Text that is not empty."""
        value: str = self[key]
        return value if value.strip() else self.wrong(key, "must not be empty")

    def positive(self, key: str) -> int:
        """A whole number of at least 1."""
        value: int = self[key]
        return value if value > 0 else self.wrong(key, f"must be at least 1, not {value}")

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        """One of a few words."""
        value: str = self[key]
        return value if value in choices else self.wrong(key, f"must be one of {', '.join(choices)}, not {value!r}")

    def channels(self, key: str) -> Channels:
        """Three finite numbers."""
        match self[key]:
            case [int() | float() as r, int() | float() as g, int() | float() as b]:
                value = (float(r), float(g), float(b))
                if all(map(math.isfinite, value)):
                    return value
        return self.wrong(key, f"must be three numbers, not {self[key]!r}")


def content(path: Path) -> bytes:
    """The bytes of a file that has to be there."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineFailed(
            f"{path}: cannot read this part of the encoder: {error.strerror}", reason="ENCODER_MISSING"
        ) from error


def parsed(path: Path) -> Mapping[str, Any]:
    """The TOML file as a dict."""
    try:
        return tomllib.loads(content(path).decode())
    except ValueError as error:
        raise EngineFailed(f"{path} is not valid TOML: {error}", reason="ENCODER_INVALID") from error


def labels(path: Path) -> tuple[str, ...]:
    """Class names, one a line."""
    return tuple(content(path).decode(errors="replace").splitlines())


def check(encoder: Encoder, model: bytes) -> None:
    """Compares the description with the graph; what the graph leaves open shows when it is run."""
    path, dimensions = encoder.path, encoder.identity.dimensions
    try:
        signature = graph_signature.read(model)
    except ValueError as error:
        raise EngineFailed(f"{path} cannot be read as ONNX: {error}", reason="ENCODER_INVALID") from error

    def wrong(what: str) -> NoReturn:
        raise EngineFailed(f"{path}: {what}; correct {path.stem}.toml or the model", reason="ENCODER_INVALID")

    def differs(tensor: graph_signature.Tensor, shape: tuple[int | None, ...]) -> bool:
        if not tensor.shape:
            return False
        pairs = zip(tensor.shape, shape, strict=False)
        return len(tensor.shape) != len(shape) or any(None not in pair and pair[0] != pair[1] for pair in pairs)

    if signature.external:
        wrong("the weights lie in another file; save the model as one file")
    if len(signature.inputs) != 1 or not signature.outputs:
        wrong(f"the graph has {len(signature.inputs)} inputs and {len(signature.outputs)} outputs, not one and some")
    image, embedding = signature.inputs[0], signature.outputs[0]
    if {image.element, embedding.element} != {graph_signature.FLOAT}:
        wrong(f"{image.name!r} and {embedding.name!r} must both be float32")
    if image.shape and image.shape[0] is not None:
        wrong(f"{image.name!r} takes exactly {image.shape[0]} pictures; its first size must be open")
    if differs(image, encoder.shape(1)):
        wrong(f"{image.name!r} has shape {image.shape} where the description says {encoder.shape(1)}")
    if differs(embedding, (None, dimensions)):
        wrong(f"{embedding.name!r} has shape {embedding.shape} where the description says (n, {dimensions})")
    if encoder.labels and len(signature.outputs) < 2:
        wrong("labels are given, but the graph has no second output for them")
    if encoder.labels and differs(signature.outputs[1], (None, len(encoder.labels))):
        wrong(f"{len(encoder.labels)} labels for {signature.outputs[1].name!r} of shape {signature.outputs[1].shape}")
