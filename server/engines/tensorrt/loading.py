"""`--engine tensorrt` and `tensorrt-rtx`: from an encoder to an engine that runs, or to what is missing for that."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from matchcut.kernels.cuda.errors import CudaError
from matchcut.kernels.cuda.probe import Absent, probe
from matchcut.server.engines.base import OpenGpu
from matchcut.server.engines.tensorrt import library as libraries
from matchcut.server.engines.tensorrt.manifest import capability
from matchcut.server.engines.tensorrt.prepare import prepare
from matchcut.server.engines.tensorrt.runtime import TensorRt
from matchcut.server.errors import EngineFailed
from matchcut.server.models import Encoder

__all__ = ["load"]

log = logging.getLogger("matchcut")


def load(encoder: Encoder, variant: str, name: str, gpu: OpenGpu | None = None) -> TensorRt:
    """The encoder on a GPU, by the engine beside it; one that does not fit is built again.

    Args:
        name: of the library's module.
        gpu: one that is open; None opens the first.

    Raises:
        ImportError: the library is not installed.
        EngineFailed: there is no GPU that can be used, or the engine cannot be built or loaded.
    """
    library = libraries.find(name)
    context, failed = gpu or (opened(variant), None)
    try:
        target = context.capability
        if library.targets and target not in library.targets:
            raise EngineFailed(
                f"{library} does not know {context.name}, compute capability {capability(target)}; take the engine "
                "tensorrt: pip install tensorrt",
                reason="DEVICE_UNAVAILABLE",
            )
        with context.lane():  # plain TensorRT builds for the GPU whose context is current
            made = prepare(encoder.path, library, (target,), refused=log.warning)
        if made.why:
            log.info("built %s: %s", made.manifest.engine, made.why)
        precision = made.manifest.precision
        return TensorRt(
            encoder,
            f"{variant}-{precision}",
            library=library,
            engine=made.engine,
            batch=made.manifest.batch,
            gpu=context,
            owned=gpu is None,
            failed=failed,
        )
    except BaseException:
        if gpu is None:
            with suppress(CudaError):
                context.close()
        raise


def opened(variant: str) -> Any:
    """The first GPU, a kernels.cuda.launcher.Context.

    Raises:
        EngineFailed: there is none that can be used.
    """
    found = probe()
    if isinstance(found, Absent):
        raise EngineFailed(f"the engine {variant} needs a GPU: {found.why}", reason="DEVICE_UNAVAILABLE")
    from matchcut.kernels.cuda.launcher import Context  # only where there is a GPU

    try:
        return Context.open(0)
    except CudaError as error:
        raise EngineFailed(f"the engine {variant} cannot use the GPU: {error}", reason="DEVICE_UNAVAILABLE") from error
