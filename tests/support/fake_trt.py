"""A stand-in for TensorRT's module that computes in host memory, and for the GPU that it would run on."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from matchcut.kernels.cuda.errors import CudaError
from matchcut.server import models
from matchcut.server.engines.base import Failed
from matchcut.server.engines.tensorrt.library import Library
from matchcut.server.engines.tensorrt.manifest import Batch
from matchcut.server.engines.tensorrt.runtime import TensorRt
from matchcut.server.records import EncoderIdentity, Floats, InputSize
from support.numpy_lane import NumpyLane

ENCODER = models.Encoder(
    Path("toy.onnx"), EncoderIdentity("toy", "1", "ab" * 32, 6), InputSize(4, 2), (0, 0, 0), (1, 1, 1)
)
STREAM = 0x5EED


def embedded(batch: Floats) -> Floats:
    """What the stand-in computes: mean and maximum of each channel."""
    return np.concatenate([batch.mean((2, 3)), batch.max((2, 3))], axis=1)


def seen(address: int, shape: tuple[int, ...]) -> Floats:
    """The floats at an address."""
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address)).reshape(shape)


class FakeContext:
    """An execution context."""

    def __init__(self, library: FakeTrt) -> None:
        self.library = library
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.scratch = (0, 0)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return name == self.library.bound("in")

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return name in (self.library.tensors or ())

    def update_device_memory_size_for_shapes(self) -> int:
        return self.library.scratch * self.shapes[self.library.bound("in")][0]

    def set_device_memory(self, memory: int, size: int) -> None:
        assert memory % 256 == 0, "it has to be aligned"
        self.scratch = (memory, size)

    def execute_async_v3(self, stream: int) -> bool:
        library, addresses = self.library, dict(self.addresses)
        source, result = library.bound("in"), library.bound("out")
        shape = self.shapes[source]
        library.runs.append((self, shape[0], stream, addresses))
        library.meanwhile()
        if library.failing:
            library.loggers[-1].log(FakeTrt.ILogger.Severity.ERROR, "enqueueV3: no such thing")
            return False

        def work() -> None:
            vectors = library.network(seen(addresses[source], shape))
            seen(addresses[result], vectors.shape)[...] = vectors

        library.launched(stream, work)
        return True


class FakeSettings:
    """How TensorRT for RTX is to run."""

    def __init__(self, library: FakeTrt) -> None:
        self.library = library
        self.cuda_graph_strategy, self.dynamic_shapes_kernel_specialization_strategy = "none", "lazy"
        self.cache: object = None
        self.allocation = "static"

    def create_runtime_cache(self) -> object:
        self.library.caches += 1
        return object()

    def set_runtime_cache(self, cache: object) -> bool:
        self.cache = cache
        return True

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.allocation = strategy


class FakeTrt:
    """As much of the library's module as running needs.

    tensors: (mode, shape, type) by name; None refuses engines. network: what it computes. launched: is given the stream
    of a run, and what the run does, to be done when the stream comes to it. room: contexts that there can be; scratch:
    bytes of memory that a picture takes beside.

    Args:
        graphs: it is TensorRT for RTX, which records graphs. managed: contexts may have their memory from the caller.
    """

    class ILogger:
        Severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    TensorIOMode = SimpleNamespace(INPUT="in", OUTPUT="out")
    float32 = "float"

    def __init__(self, *, graphs: bool = True, managed: bool = True) -> None:
        self.tensors: dict[str, tuple[str, tuple[int, ...], str]] | None = {
            # Not in the usual order: bindings go by name.
            "vector": ("out", (-1, 6), "float"),
            "pixels": ("in", (-1, 3, 2, 4), "float"),
        }
        self.runs: list[tuple[FakeContext, int, int, dict[str, int]]] = []
        self.loggers: list[Any] = []
        self.settings: list[Any] = []
        self.contexts, self.failing, self.room, self.scratch = 0, False, 1000, 100
        self.caches = 0
        self.name = "tensorrt_rtx" if graphs else "tensorrt"
        self.meanwhile: Callable[[], None] = lambda: None
        self.network: Callable[[Floats], Floats] = embedded
        self.launched: Callable[[int, Callable[[], None]], None] = lambda stream, work: work()
        if graphs:
            self.CudaGraphStrategy = SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole", DISABLED="none")
            self.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager")
        if managed:
            self.ExecutionContextAllocationStrategy = SimpleNamespace(STATIC="static", USER_MANAGED="user")
            self.IExecutionContext = FakeContext

    def bound(self, mode: str) -> str:
        """The name of the one tensor that goes in, or out."""
        return next(name for name, tensor in (self.tensors or {}).items() if tensor[0] == mode)

    def Runtime(self, log: Any) -> Any:  # noqa: N802  # the library's name
        self.loggers.append(log)
        return SimpleNamespace(deserialize_cuda_engine=self._engine)

    def _engine(self, data: bytes) -> Any:
        if self.tensors is None:
            self.loggers[-1].log(FakeTrt.ILogger.Severity.ERROR, "the plan is of another version")
            return None
        tensors, names = self.tensors, list(self.tensors)
        return SimpleNamespace(
            num_io_tensors=len(names),
            get_tensor_name=lambda number: names[number],
            get_tensor_mode=lambda name: tensors[name][0],
            get_tensor_shape=lambda name: tensors[name][1],
            get_tensor_dtype=lambda name: tensors[name][2],
            create_runtime_config=lambda: FakeSettings(self),
            create_execution_context=self._context,
        )

    def _context(self, settings: Any = None) -> FakeContext | None:
        self.contexts += 1
        self.settings.append(settings)
        if not self.room:
            return None
        self.room -= 1
        return FakeContext(self)


class FakeGpu:
    """A context of the driver whose memory is the host's, and whose driver records no graphs."""

    capability, name = 86, "NVIDIA RTX A4000"

    def __init__(self) -> None:
        self.closed, self.lost = 0, False
        self.fails: CudaError | None = None

    @contextmanager
    def lane(self) -> Iterator[NumpyLane]:
        if self.fails is not None:
            raise self.fails
        lane: Any = NumpyLane([])
        lane.stream, lane.record = STREAM, self.record
        yield lane

    def record(self) -> Any:
        raise CudaError("no graphs here")

    def allocate(self, nbytes: int) -> Any:
        return NumpyLane([]).allocate(nbytes)

    def close(self) -> None:
        self.closed += 1


def library_of(trt: Any) -> Library:
    return Library(trt, getattr(trt, "name", "tensorrt_rtx"), "1.7", (86,))


def engine_of(
    trt: FakeTrt,
    gpu: FakeGpu,
    batch: Batch = Batch(1, 2, 4),  # noqa: B008  # frozen
    failed: Failed | None = None,
) -> TensorRt:
    return TensorRt(
        ENCODER, "tensorrt-rtx-fp16", library=library_of(trt), engine=b"plan", batch=batch, gpu=gpu, failed=failed
    )


def pictures(n: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).standard_normal((n, 3, 2, 4)).astype(np.float32)
