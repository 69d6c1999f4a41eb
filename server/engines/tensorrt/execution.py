"""What runs one number of pictures by TensorRT: a context, its memory, and the graph of its launches."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from matchcut.kernels.cuda.errors import CudaError, DeviceLost
from matchcut.kernels.cuda.execute import Settled
from matchcut.kernels.cuda.graphs import Graph
from matchcut.kernels.cuda.memory import Buffer
from matchcut.server.engines.tensorrt.contexts import Context
from matchcut.server.errors import EngineFailed

__all__ = ["Execution"]

log = logging.getLogger("matchcut")


class Execution:
    """Runs `size` pictures on the device, one run at a time.

    Shape and addresses of its context are set once and stay, as what was recorded holds for them alone (NVIDIA
    TensorRT's developer guide: a graph's context must not be modified).

    Args:
        source: (size, ...) float32 in the encoder's layout. result: (size, dimensions) float32.
        pictures: (size, height, width, 3) uint8. settled: makes `source` of them.
        names: of the engine's input and output.
        records: whether its launches are to be recorded here.
        fault: says what TensorRT said last.

    Raises:
        EngineFailed: TensorRT refuses the memory.
    """

    def __init__(
        self,
        size: int,
        context: Context,
        *,
        source: Buffer,
        result: Buffer,
        pictures: Buffer,
        settled: Settled,
        names: tuple[str, str],
        records: bool,
        fault: Callable[[], str],
    ) -> None:
        self.size = size
        self.source, self.result, self.pictures, self.settled = source, result, pictures, settled
        self._context, self._records, self._fault = context, records, fault
        self._graph: Graph | None = None
        taken, given = names
        context.made.set_tensor_address(taken, source.address)
        if not context.made.set_tensor_address(given, result.address):
            raise EngineFailed(f"TensorRT refuses the memory of a batch of {size}: {fault()}")

    def start(self, lane: Any) -> None:
        """From `source` to `result`; returns before anything is done.

        Raises:
            EngineFailed: TensorRT refuses the run.
            CudaError: see Lane.
        """
        if self._graph is not None:
            lane.replay(self._graph)
            return
        if not self._enqueued(lane):  # also before it is recorded: the first time a context sets itself up
            raise EngineFailed(f"TensorRT refuses a batch of {self.size}: {self._fault()}")
        if self._records:
            self._record(lane)

    def _enqueued(self, lane: Any) -> bool:
        return bool(self._context.made.execute_async_v3(lane.stream))

    def _record(self, lane: Any) -> None:
        """Once; what cannot be recorded is launched kernel by kernel from then on."""
        self._records = False
        lane.synchronize()
        try:
            with lane.record() as recording:
                if not self._enqueued(lane):
                    raise EngineFailed(self._fault())
        except DeviceLost:
            raise
        except (CudaError, EngineFailed) as error:
            log.info("batches of %d are launched kernel by kernel, they cannot be recorded: %s", self.size, error)
            # The next run may be told of what failed here: this one, of the same pictures, asks for it.
            self._enqueued(lane)
            return
        self._graph = recording.graph

    def destroy(self) -> None:
        """Frees the graph; a lane has to be held."""
        if self._graph is not None:
            self._graph.destroy()
            self._graph = None

    def abandon(self) -> None:
        """Forgets the graph, whose GPU is lost."""
        self._graph = None
