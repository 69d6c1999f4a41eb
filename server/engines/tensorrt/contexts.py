"""Execution contexts of a TensorRT engine, each for one number of pictures, with no more memory than that takes."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any, NamedTuple

from matchcut.kernels.cuda.errors import OutOfDeviceMemory
from matchcut.kernels.cuda.memory import Buffer
from matchcut.server.engines.tensorrt.library import Library
from matchcut.server.errors import EngineFailed

__all__ = ["Context", "Contexts"]


class Context(NamedTuple):
    """An execution context whose shape is set. scratch: its activations; None: it has memory of its own."""

    made: Any
    scratch: Buffer | None


class Contexts:
    """Makes them, one at a time. To be used with the GPU's context current.

    records: whether the launches of a run are to be recorded by the caller. TensorRT for RTX does that by itself, with
    all kernels compiled before a context is there, and once for contexts that need the same.

    Args:
        engine: deserialised.
        bound: the name of its input.
        allocate: gives device memory, see kernels.cuda.launcher.Context.
        fault: says what TensorRT said last.
    """

    def __init__(
        self,
        library: Library,
        engine: Any,
        bound: str,
        *,
        allocate: Callable[[int], Buffer],
        fault: Callable[[], str],
    ) -> None:
        self._trt, self._engine, self._bound = library.module, engine, bound
        self._allocate, self._fault = allocate, fault
        self.records = library.name == "tensorrt"
        self._cache: Any = None  # of kernels that were compiled here; has to outlive the contexts
        self._lock = Lock()
        # Memory for the shape instead of for the largest one came with TensorRT 10.1.
        kinds = getattr(self._trt, "ExecutionContextAllocationStrategy", None)
        managed = hasattr(getattr(self._trt, "IExecutionContext", None), "set_device_memory")
        self._managed = kinds.USER_MANAGED if kinds is not None and managed else None

    def make(self, shape: tuple[int, ...]) -> Context:
        """One for an input of that shape.

        Raises:
            EngineFailed: TensorRT refuses the shape.
            OutOfDeviceMemory: there is no room for it.
        """
        with self._lock:
            made = self._plain() if self.records else self._for_rtx()
        if made is None:
            raise OutOfDeviceMemory(f"TensorRT gives no execution context: {self._fault()}")
        if not made.set_input_shape(self._bound, shape):
            raise EngineFailed(f"TensorRT refuses a batch of {shape[0]}: {self._fault()}")
        scratch = None
        if self._managed is not None and (size := made.update_device_memory_size_for_shapes()):
            scratch = self._allocate(size)
            made.set_device_memory(scratch.address, size)
        return Context(made, scratch)

    def _plain(self) -> Any:
        if self._managed is None:
            return self._engine.create_execution_context()
        return self._engine.create_execution_context(self._managed)

    def _for_rtx(self) -> Any:
        trt, settings = self._trt, self._engine.create_runtime_config()
        if hasattr(trt, "CudaGraphStrategy"):
            settings.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):  # not in the background, while it serves
            eager = trt.DynamicShapesKernelSpecializationStrategy.EAGER
            settings.dynamic_shapes_kernel_specialization_strategy = eager
        if hasattr(settings, "set_runtime_cache"):
            if self._cache is None:
                self._cache = settings.create_runtime_cache()
            settings.set_runtime_cache(self._cache)
        if self._managed is not None:
            settings.set_execution_context_allocation_strategy(self._managed)
        return self._engine.create_execution_context(settings)

    def close(self) -> None:
        """Lets go of the engine; all contexts have to be gone."""
        self._cache = self._engine = None
