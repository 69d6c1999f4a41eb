"""TensorRT by either of its names: `tensorrt` and, for GeForce and RTX cards, `tensorrt_rtx`. Their Python is alike.

Sources: the Python API references of NVIDIA TensorRT 10 and 11 and of TensorRT for RTX 1.
"""

from __future__ import annotations

import functools
import importlib
import logging
import re
from collections import deque
from dataclasses import dataclass
from typing import Any

from matchcut.server.errors import EngineFailed

__all__ = ["NAMES", "Library", "find", "logger"]

NAMES = ("tensorrt", "tensorrt_rtx")
REMEMBERED = 16  # errors of a library
OLDEST = 10  # of `tensorrt`: the first with strongly typed networks that are what they say

log = logging.getLogger("matchcut")


@dataclass(frozen=True, slots=True)
class Library:
    """An imported TensorRT.

    name: of its module. targets: the compute capabilities, as 10 * major + minor, that it builds for without a GPU;
    empty where it builds for the GPU at hand only.
    """

    module: Any
    name: str
    version: str
    targets: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def find(name: str = "") -> Library:
    """The library of that name; without one the first that is installed.

    Raises:
        ImportError: it is not installed, or cannot be loaded.
        EngineFailed: it is too old.
    """
    for each in (name,) if name else NAMES:
        try:
            module = importlib.import_module(each)
        except ImportError:
            if name or each == NAMES[-1]:
                raise
            continue
        return described(module, each)
    raise AssertionError("NAMES is not empty")


def described(module: Any, name: str) -> Library:
    """What is known of an imported module.

    Raises:
        EngineFailed: it is too old.
    """
    version = str(module.__version__)
    if name == "tensorrt" and int(version.partition(".")[0]) < OLDEST:
        raise EngineFailed(
            f"tensorrt {version} is too old; version {OLDEST} or newer is needed: pip install -U tensorrt",
            reason="ENGINE_NOT_INSTALLED",
        )
    capabilities = getattr(module, "ComputeCapability", None)
    known = getattr(capabilities, "__members__", {}) if hasattr(module.IBuilderConfig, "set_compute_capability") else {}
    targets = sorted(int(found[1]) for found in (re.fullmatch(r"SM(\d+)", each) for each in known) if found)
    return Library(module, name, version, tuple(targets))


def logger(library: Library) -> Any:
    """A TensorRT logger that hands on to `logging`; `faults` are its errors, the newest last."""
    return logger_class(library.module)(library.name)


@functools.cache
def logger_class(module: Any) -> Any:
    """The library's kind of logger, which can only be derived from once the library is there."""
    errors = {module.ILogger.Severity.INTERNAL_ERROR, module.ILogger.Severity.ERROR}

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            module.ILogger.__init__(self)
            self.name = name
            self.faults: deque[str] = deque(maxlen=REMEMBERED)

        def log(self, severity: Any, text: str) -> None:
            if severity in errors:
                self.faults.append(text.strip())
            # Errors come back as EngineFailed, and warnings are about the library's own choices.
            log.debug("%s: %s", self.name, text.strip())

    return Log
