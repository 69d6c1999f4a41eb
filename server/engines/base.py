"""What an engine is, and what all engines share: the checks around a run, and how many cores there are."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np

from matchcut.server.errors import EngineFailed
from matchcut.server.models import Encoder
from matchcut.server.records import Floats

__all__ = ["CheckedEngine", "Engine", "cores", "guard"]


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
        if self._closed:
            raise EngineFailed(f"{self.variant} is closed: load the engine again", reason="ENGINE_CLOSED")
        if batch.ndim != 4 or len(batch) < 1 or batch.shape != self.encoder.shape(len(batch)):
            raise EngineFailed(
                f"{self.variant}: a batch of shape {batch.shape} where {self.encoder.identity.name} takes "
                f"{('n', *self.encoder.shape(1)[1:])}, n at least 1"
            )
        with guard(f"{self.variant} failed on a batch of {len(batch)}"):
            result = self.infer(np.ascontiguousarray(batch, np.float32))
        wanted = (len(batch), self.encoder.identity.dimensions)
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
    except (EngineFailed, ImportError):
        raise
    except Exception as error:
        raise EngineFailed(f"{what}: {error}") from error


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
