"""A TensorRT execution context for one number of pictures, with its memory, and the graph of its launches."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Protocol

from matchcut.kernels.cuda.errors import CudaError, DeviceLost, OutOfDeviceMemory
from matchcut.kernels.cuda.execute import Settled
from matchcut.kernels.cuda.graphs import Graph
from matchcut.kernels.cuda.memory import Buffer
from matchcut.server.errors import EngineFailed

__all__ = ["Bindings", "Execution"]

log = logging.getLogger("matchcut")


class Faults(Protocol):
    """Says what TensorRT said last."""

    def __call__(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Bindings:
    """The names of an engine's one input and one output."""

    input: str
    output: str


class Execution:
    """Runs one number of pictures on the device, one run at a time.

    Shape and addresses of its context are set once and stay, as what was recorded holds for them alone (NVIDIA
    TensorRT's developer guide: a graph's context must not be modified).

    Args:
        context: a TensorRT execution context that nothing else uses.
        source: (n, ...) float32 in the encoder's layout. result: (n, dimensions) float32.
        pictures: (n, height, width, 3) uint8. settled: makes `source` of them.
        records: whether its launches are to be recorded here; False where the library does that by itself.

    Raises:
        EngineFailed: TensorRT refuses the shape or the memory.
    """

    def __init__(
        self,
        context: Any,
        bindings: Bindings,
        shape: tuple[int, ...],
        *,
        source: Buffer,
        result: Buffer,
        pictures: Buffer,
        settled: Settled,
        records: bool,
        fault: Faults,
    ) -> None:
        self.n = shape[0]
        self.source, self.result, self.pictures, self.settled = source, result, pictures, settled
        self._context, self._records, self._fault = context, records, fault
        self._graph: Graph | None = None
        done = (
            context.set_input_shape(bindings.input, shape)
            and context.set_tensor_address(bindings.input, source.address)
            and context.set_tensor_address(bindings.output, result.address)
        )
        if not done:
            raise EngineFailed(f"TensorRT refuses a batch of {self.n}: {fault()}")

    @property
    def recorded(self) -> bool:
        """Whether its launches are started as one."""
        return self._graph is not None

    def start(self, lane: Any) -> None:
        """From `source` to `result`; returns before anything is done.

        Raises:
            EngineFailed: TensorRT refuses the run.
            CudaError: see Lane.
        """
        if self._graph is not None:
            lane.replay(self._graph)
            return
        self._enqueue(lane)  # also before it is recorded: the first time a context sets itself up
        if self._records:
            self._record(lane)

    def _enqueue(self, lane: Any) -> None:
        if not self._context.execute_async_v3(lane.stream):
            raise EngineFailed(f"TensorRT refuses a batch of {self.n}: {self._fault()}")

    def _record(self, lane: Any) -> None:
        """Once; what cannot be recorded is launched one by one from then on."""
        self._records = False
        try:
            with lane.record() as recording:
                self._enqueue(lane)
        except (DeviceLost, OutOfDeviceMemory):
            raise
        except (CudaError, EngineFailed) as error:
            log.info("batches of %d are launched kernel by kernel, they cannot be recorded: %s", self.n, error)
            return
        self._graph = recording.graph

    def destroy(self) -> None:
        """Frees the graph; a lane has to be held."""
        if self._graph is not None:
            self._graph.destroy()
            self._graph = None
