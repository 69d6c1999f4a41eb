"""The engines by name: which library each needs and how it is made."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata, util
from typing import NamedTuple

from matchcut.server.engines.base import Engine, OpenGpu
from matchcut.server.errors import EngineFailed
from matchcut.server.models import Encoder

__all__ = ["LIBRARIES", "ON_GPU", "VARIANTS", "available", "make", "version", "versions"]


class Variant(NamedTuple):
    """A library at one precision; `make` takes the encoder, the variant's name, the threads and an open GPU, if any.

    measured: whether auto tries it; False where it is what another becomes by the encoder's file.
    """

    library: str
    make: Callable[[Encoder, str, int, OpenGpu | None], Engine]
    measured: bool = True


def onnxruntime(encoder: Encoder, variant: str, threads: int, _: OpenGpu | None) -> Engine:
    """ONNX Runtime, imported only here: importing a library takes longer than running it."""
    from matchcut.server.engines.onnxruntime import OnnxRuntime

    return OnnxRuntime(encoder, variant, threads=threads)


def openvino(exact: float) -> Callable[[Encoder, str, int, OpenGpu | None], Engine]:
    """OpenVINO with that share of the network in float32."""

    def make(encoder: Encoder, variant: str, threads: int, _: OpenGpu | None) -> Engine:
        from matchcut.server.engines.openvino import OpenVino

        return OpenVino(encoder, variant, exact=exact, threads=threads)

    return make


def tensorrt(encoder: Encoder, variant: str, _: int, gpu: OpenGpu | None) -> Engine:
    """TensorRT on that GPU, else the first, by the module that the variant is named after."""
    from matchcut.server.engines.tensorrt.loading import load

    return load(encoder, variant, ON_GPU[variant].library, gpu)


# The first of a library is what its name alone means. The exact ones come first: they are the yardstick.
VARIANTS = {
    "onnxruntime-fp32": Variant("onnxruntime", onnxruntime),
    "onnxruntime-int8": Variant("onnxruntime", onnxruntime, measured=False),  # what that one is with a file in int8
    "openvino-fp32": Variant("openvino", openvino(1.0)),
    "openvino-int8": Variant("openvino", openvino(1.0), measured=False),  # what that one is with a file in int8,
    "openvino-mixed": Variant("openvino", openvino(1.0), measured=False),  # or in part in bfloat16
    "openvino-mixed50": Variant("openvino", openvino(0.5)),
    "openvino-mixed25": Variant("openvino", openvino(0.25)),
    "openvino-bf16": Variant("openvino", openvino(0.0)),
}
# On a GPU: not measured against those, but taken where they are asked for, or where an engine was built beforehand.
# The precision is the ONNX file's.
ON_GPU = {
    "tensorrt": Variant("tensorrt", tensorrt),
    "tensorrt-rtx": Variant("tensorrt_rtx", tensorrt),
}
LIBRARIES = tuple(dict.fromkeys(variant.library for variant in VARIANTS.values()))


def available() -> list[str]:
    """The variants whose library is installed; nothing is imported."""
    return [name for name, variant in VARIANTS.items() if util.find_spec(variant.library) is not None]


def version(library: str) -> str:
    """The version of a library; "" where it is not installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return ""


def versions() -> dict[str, str]:
    """The version of each library of the CPU; "" where it is not installed."""
    return {library: version(library) for library in LIBRARIES}


def make(encoder: Encoder, name: str, threads: int, gpu: OpenGpu | None = None) -> Engine:
    """Loads a variant, or a library's first one.

    Args:
        gpu: for a variant that runs on one; None: it opens the first.

    Raises:
        EngineFailed: there is no such engine, its library is not installed, or the encoder cannot be loaded.
    """
    name = next((variant for variant in VARIANTS if VARIANTS[variant].library == name), name)
    known = VARIANTS | ON_GPU
    if name not in known:
        raise EngineFailed(
            f"there is no engine {name!r}; choose auto, {', '.join((*LIBRARIES, *known))}", reason="ENGINE_UNKNOWN"
        )
    variant = known[name]
    try:
        return variant.make(encoder, name, threads, gpu)
    except ImportError as error:
        raise EngineFailed(
            f"the engine {name} needs {variant.library} ({error}): pip install {variant.library}; "
            f"installed are: {', '.join(available()) or 'none'}",
            reason="ENGINE_NOT_INSTALLED",
        ) from error
