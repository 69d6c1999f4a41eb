"""The device that the options name, its failures told as errors of this server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from threading import Lock
from typing import NoReturn, ParamSpec, TypeVar

from matchcut.kernels.device import Choice, Device, NoDevice, pick
from matchcut.server.config import Config
from matchcut.server.errors import DeviceFailed, DeviceFull, DeviceLost, InvalidInput

P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger("matchcut")


def chosen(config: Config) -> Choice:
    """The device of the options.

    Raises:
        InvalidInput: it cannot be used, or cannot scan as they say.
    """
    try:
        return pick(config.device, scan=config.scan, threads=config.scan_threads)
    except NoDevice as error:
        name = "scan" if config.device == "auto" else "device"  # auto is refused only where the scan is a GPU's
        message = f"--{name} {getattr(config, name)}: {error}"
    except ValueError as error:
        name, message = "scan", f"--scan {error}; choose another, or auto"
    raise InvalidInput(message, reason="INVALID_OPTION", field=name)


def tell(choice: Choice) -> None:
    """Logs what was chosen, and why no GPU; a warning where there is one that might have been meant."""
    line = f"computing on {choice.device.title}, ranking by {choice.device.scan}"
    if choice.odd:
        log.warning("%s; not on a GPU: %s", line, choice.why)
    else:
        log.info("%s", line)
        if choice.why:
            log.debug("not on a GPU: %s", choice.why)


class Guarded:
    """A kernels.device.Device whose failures are DeviceFailed, DeviceFull and DeviceLost; else as it is.

    Args:
        device: closed with it.
        lost: called once, by whichever thread finds that the device is lost.
    """

    def __init__(self, device: Device, lost: Callable[[], None]) -> None:
        self._device = device
        self._lost = lost
        self._once = Lock()
        self.name, self.title, self.variant, self.scan = device.name, device.title, device.variant, device.scan
        self.preprocess = self._guarded(device.preprocess)
        self.pool = self._guarded(device.pool)
        self.attend = self._guarded(device.attend)
        self.search = self._guarded(device.search)
        self.search_each = self._guarded(device.search_each)
        self.coding = self._guarded(device.coding)
        self.copied = device.copied  # a MemoryError there is the host's, which the catalogue can do without
        self.prepare = self._guarded(device.prepare)
        self.failure = device.failure
        self.close = device.close
        self.context = device.context

    def _guarded(self, method: Callable[P, T]) -> Callable[P, T]:
        @wraps(method)
        def guarded(*arguments: P.args, **options: P.kwargs) -> T:
            try:
                return method(*arguments, **options)
            except Exception as error:
                if self._device.failure(error) is None:
                    raise
                self.failed(error)

        return guarded

    def failed(self, error: Exception) -> NoReturn:
        """Raises what stands for a failure of the device, whoever found it."""
        match self._device.failure(error):
            case "lost":
                if self._once.acquire(blocking=False):
                    log.error("%s is lost, start the server again: %s", self.title, error)
                    self._lost()
                raise DeviceLost("the GPU was lost; the server has to be started again, its log says why") from error
            case "full":
                raise DeviceFull(
                    "the GPU's memory is full; try again when less is asked at once, or serve with --device cpu"
                ) from error
        log.error("%s failed", self.title, exc_info=error)
        raise DeviceFailed("the GPU refused its work; the server's log says more") from error
