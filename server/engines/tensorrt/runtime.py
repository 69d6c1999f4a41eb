"""Runs a built TensorRT engine on a GPU, on the lanes that the kernels use too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Any, Protocol

import numpy as np

from matchcut.kernels.cuda.errors import CudaError, DeviceLost, OutOfDeviceMemory
from matchcut.kernels.cuda.execute import Settled
from matchcut.kernels.cuda.memory import Buffer
from matchcut.kernels.launch import preprocess as preprocessing
from matchcut.server.engines.base import CheckedEngine, Failed, Seen, guard
from matchcut.server.engines.tensorrt.contexts import Contexts
from matchcut.server.engines.tensorrt.execution import Execution
from matchcut.server.engines.tensorrt.library import Library, logger
from matchcut.server.engines.tensorrt.manifest import Batch
from matchcut.server.errors import EngineFailed
from matchcut.server.models import Encoder
from matchcut.server.records import Floats, Pixels

__all__ = ["TensorRt", "pieces", "sizes"]

FLOATS = np.float32
FLOAT = np.dtype(FLOATS).itemsize


class Gpu(Protocol):
    """What is used of a kernels.cuda.launcher.Context."""

    @property
    def capability(self) -> int: ...
    @property
    def lost(self) -> bool: ...
    def lane(self) -> AbstractContextManager[Any]: ...
    def allocate(self, nbytes: int) -> Buffer: ...
    def close(self) -> None: ...


class TensorRt(CheckedEngine):
    """A built engine, deserialised on a GPU. Runs in several threads each have an execution context of their own.

    Pictures go up as they are decoded, a byte a value, and vectors come down: what lies between stays on the device.
    A run is of one of a few sizes, the next one that so many pictures fit into; what lies beyond them in memory is
    computed, too, and never looked at. So each size has its launches started as one CUDA graph. TensorRT for RTX
    records it by itself; for plain TensorRT it is recorded here.

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
        self._lock = Lock()  # over the next three
        self._idle: dict[int, list[Execution]] = {}  # by size
        self._spent: list[Execution] = []  # of runs that failed, to be dropped with the GPU's context current
        self._gone = False
        self._runtime: Any = None
        self._engine: Any = None
        self._contexts: Contexts | None = None
        with guard(f"{library} cannot load the engine of {encoder.path}"), gpu.lane() as lane:
            try:
                self._runtime = self._trt.Runtime(self._log)
                self._engine = self._runtime.deserialize_cuda_engine(engine)
                if self._engine is None:
                    raise EngineFailed(
                        f"{library} refuses the engine of {encoder.path}: {self._fault()}", reason="ENGINE_STALE"
                    )
                self._names = self._bound()
                taken, _ = self._names
                self._contexts = Contexts(library, self._engine, taken, allocate=gpu.allocate, fault=self._fault)
                self._give(self._execution(lane, sizes(batch)[0]))  # whether there is memory for one
            except BaseException:
                self._forget()  # at once, not when the error is forgotten
                raise

    def _bound(self) -> tuple[str, str]:
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
        taken, given = found
        return taken, given

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
        """One run after another, of sizes that the engine has."""
        arriving, start = [], 0
        try:
            with self._gpu.lane() as lane, self._used() as used:
                for rows, size in pieces(len(batch), self._batch):
                    execution = used.get(size) or self._taken(lane, size)
                    used[size] = execution
                    part, start = batch[start : start + rows], start + rows
                    lane.mark("began")
                    lane.upload(part, execution.pictures if pictures else execution.source)
                    if pictures:
                        execution.settled.launch(lane)
                    lane.mark("preprocess")
                    execution.start(lane)
                    arriving.append(lane.download(execution.result, (rows, self.encoder.identity.dimensions), FLOATS))
                    lane.mark("encode")
                lane.synchronize()
                spent = lane.times()
        except CudaError as error:
            self._tell(error)
            raise
        except EngineFailed as error:
            if self._gpu.lost:  # TensorRT came upon it first, and only says that it cannot
                self._tell(DeviceLost(error.message))
            raise
        vectors = np.concatenate([each.array() for each in arriving])
        return Seen(vectors, preprocess_ns=round(spent["preprocess"] * 1e9))

    def _tell(self, error: CudaError) -> None:
        """Raises what whoever opened the GPU has for it."""
        if self._failed is not None:
            self._failed(error)

    @contextmanager
    def _used(self) -> Iterator[dict[int, Execution]]:
        """For executions in use, by size. They are kept for the next run, but not after a failure, as what they still
        do on the device is not known then."""
        with self._lock:
            spent, self._spent = self._spent, []
        del spent
        used: dict[int, Execution] = {}
        try:
            yield used
        except BaseException:
            for execution in used.values():
                execution.destroy()
            with self._lock:
                self._spent += used.values()
            raise
        for execution in used.values():
            self._give(execution)

    def _taken(self, lane: Any, size: int) -> Execution:
        """One that nobody uses, or a new one; where there is no room for it those go that nobody uses."""
        with self._lock:
            idle = self._idle.get(size)
            if idle:
                return idle.pop()
        try:
            return self._execution(lane, size)
        except OutOfDeviceMemory:
            self._drop()
            return self._execution(lane, size)

    def _give(self, execution: Execution) -> None:
        """Keeps it for the next run of its size. A lane is held."""
        with self._lock:
            if not self._gone:
                self._idle.setdefault(execution.size, []).append(execution)
                return
        execution.destroy()

    def _execution(self, lane: Any, size: int) -> Execution:
        """A new one; a lane has to be held, which makes the GPU's context current."""
        assert self._contexts is not None
        encoder, allocate = self.encoder, self._gpu.allocate
        shape = (size, encoder.input.height, encoder.input.width, 3)
        context = self._contexts.make(encoder.shape(size))
        plan = preprocessing.plan(np.empty(shape, np.uint8), encoder.mean, encoder.std, encoder.layout)
        pictures = allocate(int(np.prod(shape)))
        source = allocate(int(np.prod(encoder.shape(size))) * FLOAT)
        return Execution(
            size,
            context,
            source=source,
            result=allocate(size * encoder.identity.dimensions * FLOAT),
            pictures=pictures,
            settled=Settled(lane, allocate, plan, pixels=pictures, out=source),
            names=self._names,
            records=self._contexts.records,
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
            self._forget(lost=True)
        if self._owned:
            self._gpu.close()

    def _drop(self, *, lost: bool = False) -> None:
        """Frees all that nobody uses. A lane is held, where the GPU is not lost."""
        with self._lock:
            idle = [execution for kept in self._idle.values() for execution in kept]
            self._idle.clear()
        for execution in idle:
            if lost:
                execution.abandon()
            else:
                execution.destroy()

    def _forget(self, *, lost: bool = False) -> None:
        with self._lock:
            self._gone = True
            self._spent.clear()
        self._drop(lost=lost)
        if self._contexts is not None:
            self._contexts.close()
        self._contexts = self._engine = self._runtime = None


def sizes(batch: Batch) -> tuple[int, ...]:
    """The sizes of runs: from the least that the engine takes, doubled each time, to the most."""
    found, size = [], batch.least
    while size < batch.most:
        found.append(size)
        size *= 2
    return (*found, batch.most)


def pieces(count: int, batch: Batch) -> list[tuple[int, int]]:
    """How many pictures go into each run, and its size, for so many pictures."""
    full, rest = divmod(count, batch.most)
    runs = [(batch.most, batch.most)] * full
    return runs + [(rest, next(size for size in sizes(batch) if size >= rest))] * bool(rest)
