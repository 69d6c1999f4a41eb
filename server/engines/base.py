"""What an engine is, and what all engines share: the checks around a run, and how many cores there are."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, Protocol, runtime_checkable

import numpy as np

from matchcut.server.errors import EngineFailed, MatchcutError
from matchcut.server.models import Encoder
from matchcut.server.records import Floats, Pixels

__all__ = ["CheckedEngine", "Engine", "OpenGpu", "SeeingEngine", "Seen", "cores", "guard"]


class Engine(Protocol):
    """A loaded encoder. `variant` names library and precision, for stage times and logs."""

    @property
    def encoder(self) -> Encoder: ...

    @property
    def variant(self) -> str: ...

    def run(self, batch: Floats) -> Floats:
        """Embeds pictures; may be called from several threads at once.

        Args:
            batch: (n, ...) float32 in the encoder's layout, n >= 1, preprocessed.

        Returns (n, dimensions) float32, as the network gives them: not normalised.

        Raises:
            EngineFailed: the batch has another shape, the run failed, the result is not finite, or the engine is
                closed.
        """
        ...

    def close(self) -> None:
        """Frees the model; runs under way in other threads still end well. May be called twice."""
        ...


class Seen(NamedTuple):
    """Embeddings of pictures, and how many nanoseconds of the run went into preprocessing them."""

    vectors: Floats
    preprocess_ns: int


@runtime_checkable
class SeeingEngine(Engine, Protocol):
    """An Engine that preprocesses on the device that it runs on, so that pictures go there a byte a value.

    `sight` names the implementation of its preprocessing, for stage times.
    """

    @property
    def sight(self) -> str: ...

    def see(self, pictures: Pixels) -> Seen:
        """Embeds pictures of the encoder's size; as `run` of what preprocess.preprocess makes of them.

        Args:
            pictures: (n, height, width, 3) uint8 RGB, n >= 1.

        Raises:
            EngineFailed: as `run`.
        """
        ...


class Failed(Protocol):
    """Raises what stands for a failure of a GPU."""

    def __call__(self, error: Exception) -> NoReturn: ...


class OpenGpu(NamedTuple):
    """A GPU that is open already, for an engine to run on. context: a kernels.cuda.launcher.Context."""

    context: Any
    failed: Failed


class CheckedEngine(ABC):
    """An Engine that checks what goes in and what comes out; a library adds `infer` and `release`."""

    def __init__(self, encoder: Encoder, variant: str) -> None:
        self.encoder = encoder
        self.variant = variant
        self._closed = False

    @abstractmethod
    def infer(self, batch: Floats) -> Floats:
        """Runs the network; errors of any class."""

    @abstractmethod
    def release(self) -> None:
        """Frees the model."""

    def run(self, batch: Floats) -> Floats:
        """See Engine."""
        self.check_open()
        if batch.ndim != 4 or len(batch) < 1 or batch.shape != self.encoder.shape(len(batch)):
            raise EngineFailed(
                f"{self.variant}: a batch of shape {batch.shape} where {self.encoder.identity.name} takes "
                f"{('n', *self.encoder.shape(1)[1:])}, n at least 1"
            )
        with guard(f"{self.variant} failed on a batch of {len(batch)}"):
            result = self.infer(np.ascontiguousarray(batch, np.float32))
        return self.checked(result, len(batch))

    def check_open(self) -> None:
        """Raises EngineFailed where the engine is closed."""
        if self._closed:
            raise EngineFailed(f"{self.variant} is closed: load the engine again", reason="ENGINE_CLOSED")

    def checked(self, result: Floats, n: int) -> Floats:
        """What the network gave for n pictures; raises EngineFailed where that is no embeddings."""
        wanted = (n, self.encoder.identity.dimensions)
        if result.shape != wanted:
            raise EngineFailed(f"{self.variant} gave shape {result.shape} instead of {wanted}: correct `dimensions`")
        if not np.isfinite(result).all():
            raise EngineFailed(f"{self.variant} gave numbers that are not finite: the model or its input is broken")
        return result

    def close(self) -> None:
        """See Engine."""
        if not self._closed:
            self._closed = True
            self.release()


@contextmanager
def guard(what: str) -> Iterator[None]:
    """Turns whatever a library raises into EngineFailed; an ImportError passes, since its remedy is another."""
    try:
        yield
    except (MatchcutError, ImportError):
        raise
    except Exception as error:
        raise EngineFailed(f"{what}: {error}") from error


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
