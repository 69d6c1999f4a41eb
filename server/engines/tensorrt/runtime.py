"""Runs a built TensorRT engine on a GPU, on the lanes that the kernels use too."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any, Protocol

import numpy as np

from matchcut.kernels.cuda.errors import CudaError
from matchcut.kernels.cuda.execute import Settled
from matchcut.kernels.cuda.memory import Buffer
from matchcut.kernels.launch import preprocess as preprocessing
from matchcut.server.engines.base import CheckedEngine, Failed, Seen, guard
from matchcut.server.engines.tensorrt.execution import Bindings, Execution
from matchcut.server.engines.tensorrt.library import Library, logger
from matchcut.server.engines.tensorrt.manifest import Batch
from matchcut.server.errors import EngineFailed
from matchcut.server.models import Encoder
from matchcut.server.records import Floats, Pixels

__all__ = ["TensorRt"]

FLOAT = np.dtype(np.float32).itemsize
KEPT = 8  # executions that nobody uses: each has memory of its own, and TensorRT's for the largest batch


class Gpu(Protocol):
    """What is used of a kernels.cuda.launcher.Context."""

    @property
    def capability(self) -> int: ...
    def lane(self) -> AbstractContextManager[Any]: ...
    def allocate(self, nbytes: int) -> Buffer: ...
    def close(self) -> None: ...


class TensorRt(CheckedEngine):
    """A built engine, deserialised on a GPU. Runs in several threads each have an execution context of their own.

    Pictures go up as they are decoded, a byte a value, and vectors come down: what lies between stays on the device.
    The launches of a batch size are started as one CUDA graph. TensorRT for RTX records it by itself; for plain
    TensorRT it is recorded here.

    Args:
        engine: the serialised engine.
        batch: the sizes that it takes; larger batches run in pieces.
        gpu: an open kernels.cuda.launcher.Context.
        owned: whether that is closed with the engine.
        failed: raises what stands for a failure of the GPU; None: EngineFailed.

    Raises:
        EngineFailed: the engine cannot be loaded here, or is of another network than the encoder.
    """

    def __init__(
        self,
        encoder: Encoder,
        variant: str,
        *,
        library: Library,
        engine: bytes,
        batch: Batch,
        gpu: Gpu,
        owned: bool = True,
        failed: Failed | None = None,
    ) -> None:
        super().__init__(encoder, variant)
        self.sight = f"cuda-{gpu.capability}"
        self._gpu, self._batch, self._owned, self._failed = gpu, batch, owned, failed
        self._trt, self._log = library.module, logger(library)
        self._records = not hasattr(self._trt, "CudaGraphStrategy")
        self._lock = Lock()
        self._idle: OrderedDict[int, list[Execution]] = OrderedDict()  # by batch size, the longest unused first
        self._runtime: Any = None
        self._engine: Any = None
        try:
            with guard(f"{library} cannot load the engine of {encoder.path}"), gpu.lane() as lane:
                self._runtime = self._trt.Runtime(self._log)
                self._engine = self._runtime.deserialize_cuda_engine(engine)
                if self._engine is None:
                    raise EngineFailed(
                        f"{library} refuses the engine of {encoder.path}: {self._fault()}", reason="ENGINE_STALE"
                    )
                self._bindings = self._bound()
                self._give(self._execution(lane, batch.least))  # whether there is memory for one
        except BaseException:
            self._forget()  # at once, not when the error is forgotten
            raise

    def _bound(self) -> Bindings:
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
        return Bindings(*found)

    def infer(self, batch: Floats) -> Floats:
        """See CheckedEngine."""
        return self._run(batch, pictures=False).vectors

    def see(self, pictures: Pixels) -> Seen:
        """See SeeingEngine."""
        self.check_open()
        wanted = (len(pictures), self.encoder.input.height, self.encoder.input.width, 3)
        if pictures.dtype != np.uint8 or pictures.shape != wanted or not len(pictures):
            raise EngineFailed(
                f"{self.variant}: pictures of shape {pictures.shape}, {pictures.dtype}, where "
                f"{self.encoder.identity.name} takes {('n', *wanted[1:])}, uint8, n at least 1"
            )
        with guard(f"{self.variant} failed on a batch of {len(pictures)}"):
            seen = self._run(pictures, pictures=True)
        return Seen(self.checked(seen.vectors, len(pictures)), seen.preprocess_ns)

    def _run(self, batch: Floats | Pixels, *, pictures: bool) -> Seen:
        """One run after another, of sizes that the engine takes."""
        sizes = pieces(len(batch), self._batch)
        try:
            with self._gpu.lane() as lane:
                arriving, start = [], 0
                with self._used() as used:
                    for size in sizes:
                        part, start = batch[start : start + size], start + size
                        used.append(execution := self._taken(lane, size))
                        lane.mark("began")
                        lane.upload(part, execution.pictures if pictures else execution.source)
                        if pictures:
                            execution.settled.launch(lane)
                        lane.mark("preprocess")
                        execution.start(lane)
                        shape = (size, self.encoder.identity.dimensions)
                        arriving.append(lane.download(execution.result, shape, np.float32))
                        lane.mark("encode")
                    lane.synchronize()
                spent = lane.times()
        except CudaError as error:
            if self._failed is None:
                raise
            self._failed(error)
        vectors = np.concatenate([each.array() for each in arriving])
        return Seen(vectors, preprocess_ns=round(spent["preprocess"] * 1e9))

    @contextmanager
    def _used(self) -> Iterator[list[Execution]]:
        """For executions in use: kept for the next run afterwards, but not after a failure, as what they still do on
        the device is not known then."""
        used: list[Execution] = []
        try:
            yield used
        except BaseException:
            for execution in used:
                execution.destroy()
            raise
        for execution in used:
            self._give(execution)

    def _taken(self, lane: Any, size: int) -> Execution:
        with self._lock:
            idle = self._idle.get(size)
            if idle:
                return idle.pop()
        return self._execution(lane, size)

    def _give(self, execution: Execution) -> None:
        """Keeps it for the next run of its size; of those that are kept the longest unused goes. A lane is held."""
        with self._lock:
            self._idle.setdefault(execution.n, []).append(execution)
            self._idle.move_to_end(execution.n)
            gone = None
            if sum(map(len, self._idle.values())) > KEPT:
                size = next(size for size, kept in self._idle.items() if kept)
                gone = self._idle[size].pop(0)
            for size in [size for size, kept in self._idle.items() if not kept]:
                del self._idle[size]
        if gone is not None:
            gone.destroy()

    def _execution(self, lane: Any, n: int) -> Execution:
        """A new one; a lane has to be held, which makes the GPU's context current."""
        if self._records:
            context = self._engine.create_execution_context()
        else:
            settings = self._engine.create_runtime_config()
            settings.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            context = self._engine.create_execution_context(settings)
        if context is None:
            raise EngineFailed(f"no execution context: {self._fault()}; the GPU's memory may be full")
        encoder = self.encoder
        shape = (n, encoder.input.height, encoder.input.width, 3)
        plan = preprocessing.plan(np.empty(shape, np.uint8), encoder.mean, encoder.std, encoder.layout)
        pictures = self._gpu.allocate(int(np.prod(shape)))
        source = self._gpu.allocate(int(np.prod(encoder.shape(n))) * FLOAT)
        result = self._gpu.allocate(n * encoder.identity.dimensions * FLOAT)
        settled = Settled(lane, self._gpu.allocate, plan, pixels=pictures, out=source)
        return Execution(
            context,
            self._bindings,
            encoder.shape(n),
            source=source,
            result=result,
            pictures=pictures,
            settled=settled,
            records=self._records,
            fault=self._fault,
        )

    def _fault(self) -> str:
        return self._log.faults[-1] if self._log.faults else "it does not say why"

    def release(self) -> None:
        """See CheckedEngine."""
        try:
            with self._gpu.lane():
                self._forget()
        except CudaError:  # it is lost, and all of this with it
            self._forget()
        if self._owned:
            self._gpu.close()

    def _forget(self) -> None:
        for kept in self._idle.values():
            for execution in kept:
                execution.destroy()
        self._idle.clear()
        self._engine = None
        self._runtime = None


def pieces(count: int, batch: Batch) -> list[int]:
    """The sizes of as few runs as so many pictures take, alike as far as can be.

    Raises:
        EngineFailed: the engine takes only more of them at once.
    """
    runs = -(-count // batch.most)
    least, longer = divmod(count, runs)
    if least < batch.least:
        raise EngineFailed(
            f"the engine takes batches of {batch.least} or more, not {least}; build it with --batch 1:8:32"
        )
    return [least + 1] * longer + [least] * (runs - longer)
