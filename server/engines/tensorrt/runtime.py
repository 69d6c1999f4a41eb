"""Runs a built TensorRT engine on a GPU, on the lanes that the kernels use too."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from matchcut.kernels.cuda.memory import Buffer
from matchcut.server.engines.base import CheckedEngine, guard
from matchcut.server.engines.tensorrt.library import Library, logger
from matchcut.server.engines.tensorrt.manifest import Batch
from matchcut.server.errors import EngineFailed
from matchcut.server.models import Encoder
from matchcut.server.records import Floats

__all__ = ["TensorRt"]

FLOAT = np.dtype(np.float32).itemsize


class Gpu(Protocol):
    """What is used of a kernels.cuda.launcher.Context."""

    def lane(self) -> AbstractContextManager[Any]: ...
    def allocate(self, nbytes: int) -> Buffer: ...
    def close(self) -> None: ...


class Execution:
    """A TensorRT execution context with its own input and output on the device, for one run at a time.

    Its buffers stay where they are, so that a graph which TensorRT captured for a batch size can be launched again.
    """

    def __init__(self, context: Any, source: Buffer, result: Buffer) -> None:
        self.context, self.source, self.result = context, source, result


class TensorRt(CheckedEngine):
    """A built engine, deserialised on a GPU. Runs in several threads each have an execution context of their own.

    TensorRT for RTX captures a CUDA graph for each batch size by itself and launches that. Plain TensorRT leaves that
    to its caller, and it is not done here: PyCUDA 2026.1 wraps none of the driver's calls that capture and launch one.

    Args:
        engine: the serialised engine.
        batch: the sizes that it takes; larger batches run in pieces.
        gpu: an open kernels.cuda.launcher.Context, closed with the engine.

    Raises:
        EngineFailed: the engine cannot be loaded here, or is of another network than the encoder.
    """

    def __init__(
        self, encoder: Encoder, variant: str, *, library: Library, engine: bytes, batch: Batch, gpu: Gpu
    ) -> None:
        super().__init__(encoder, variant)
        self._gpu, self._batch = gpu, batch
        self._trt, self._log = library.module, logger(library)
        self._picture = int(np.prod(encoder.shape(1))) * FLOAT
        self._vector = encoder.identity.dimensions * FLOAT
        self._idle: list[Execution] = []
        self._runtime: Any = None
        self._engine: Any = None
        try:
            with guard(f"{library} cannot load the engine of {encoder.path}"), gpu.lane():
                self._runtime = self._trt.Runtime(self._log)
                self._engine = self._runtime.deserialize_cuda_engine(engine)
                if self._engine is None:
                    raise EngineFailed(
                        f"{library} refuses the engine of {encoder.path}: {self._fault()}", reason="ENGINE_STALE"
                    )
                self._input, self._output = self._bindings()
                self._idle.append(self._execution())
        except BaseException:
            self._forget()  # at once, not when the error is forgotten
            raise

    def _bindings(self) -> tuple[str, str]:
        """The names of the input and the output, whose types and shapes have to be the encoder's."""
        engine, modes = self._engine, self._trt.TensorIOMode
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        wanted = {
            modes.INPUT: (-1, *self.encoder.shape(1)[1:]),
            modes.OUTPUT: (-1, self.encoder.identity.dimensions),
        }
        found: list[str] = []
        for mode, shape in wanted.items():
            of_mode = [name for name in names if engine.get_tensor_mode(name) == mode]
            told = [
                (name, tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name) == self._trt.float32)
                for name in of_mode
            ]
            if len(told) != 1 or told[0][1:] != (shape, True):
                raise EngineFailed(
                    f"the engine has {', '.join(f'{name} {size}' for name, size, _ in told) or 'nothing'} where "
                    f"{self.encoder.identity.name} has one float32 tensor of {shape}; build it again",
                    reason="ENGINE_STALE",
                )
            found += of_mode
        return found[0], found[1]

    def _execution(self) -> Execution:
        """A new one; a lane has to be held, which makes the GPU's context current."""
        strategy = getattr(self._trt, "CudaGraphStrategy", None)
        if strategy is None:
            context = self._engine.create_execution_context()
        else:
            settings = self._engine.create_runtime_config()
            settings.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(settings)
        if context is None:
            raise EngineFailed(f"no execution context: {self._fault()}; the GPU's memory may be full")
        most = self._batch.most
        return Execution(context, self._gpu.allocate(most * self._picture), self._gpu.allocate(most * self._vector))

    def infer(self, batch: Floats) -> Floats:
        """See CheckedEngine."""
        most, parts = self._batch.most, []
        with self._gpu.lane() as lane:
            execution = self._taken()
            for start in range(0, len(batch), most):
                part = batch[start : start + most]
                lane.upload(part, execution.source)
                self.enqueue(execution.context, lane, execution.source, execution.result, len(part))
                parts.append(lane.download(execution.result, (len(part), self.encoder.identity.dimensions), np.float32))
            lane.synchronize()
            self._idle.append(execution)  # not after a failure: what it still does on the device is not known
        return np.concatenate([part.array() for part in parts])

    def enqueue(self, context: Any, lane: Any, source: Buffer, result: Buffer, n: int) -> None:
        """Starts a run on the device's own memory; nothing is copied, and it returns before anything is done.

        Args:
            context: an execution context that no other run uses meanwhile.
            source: (n, ...) float32 in the encoder's layout, on the device, preprocessed.
            result: room for (n, dimensions) float32, on the device.

        Raises:
            EngineFailed: TensorRT refuses the run.
            ValueError: a buffer is too small.
        """
        source.check(0, n * self._picture)
        result.check(0, n * self._vector)
        if n < self._batch.least:
            raise EngineFailed(
                f"the engine takes batches of {self._batch.least} or more, not {n}; build it with --batch 1:8:32"
            )
        done = (
            context.set_input_shape(self._input, (n, *self.encoder.shape(1)[1:]))
            and context.set_tensor_address(self._input, source.address)
            and context.set_tensor_address(self._output, result.address)
            and context.execute_async_v3(lane.stream)
        )
        if not done:
            raise EngineFailed(f"TensorRT refuses a batch of {n}: {self._fault()}")

    def _taken(self) -> Execution:
        try:
            return self._idle.pop()
        except IndexError:
            return self._execution()

    def _fault(self) -> str:
        return self._log.faults[-1] if self._log.faults else "it does not say why"

    def release(self) -> None:
        """See CheckedEngine."""
        with self._gpu.lane():
            self._forget()
        self._gpu.close()

    def _forget(self) -> None:
        self._idle.clear()
        self._engine = None
        self._runtime = None
