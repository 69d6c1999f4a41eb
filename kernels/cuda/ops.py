"""preprocess, pool and attend on a GPU, for arrays of the host: up, one launch, and down again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels import pool as reference
from matchcut.kernels.cuda.errors import CudaError, DeviceLost, OutOfDeviceMemory
from matchcut.kernels.cuda.execute import execute
from matchcut.kernels.cuda.launcher import Context
from matchcut.kernels.device import Failure
from matchcut.kernels.launch import pool as pool_plan
from matchcut.kernels.launch import preprocess as preprocess_plan
from matchcut.kernels.pixels import Yuv420
from matchcut.kernels.pooling import Attention, Mean, Pooling
from matchcut.kernels.preprocess import Layout, preprocess

OLDEST = 80  # compute capability from which there are kernels for int8 and bfloat16
_MEAN = Mean()


class Ops:
    """See device.Device for each.

    All that a launch takes is computed on the GPU, however little it is. What none takes is computed by the reference,
    on the CPU: no frames or no segments, more than 2048 dimensions, 65535 frames or as many rows, bfloat16 on a GPU
    older than compute capability 8.0, and what the reference refuses.
    """

    _context: Context

    @property
    def title(self) -> str:
        """See Device."""
        return f"{self._context.name}, compute capability {self._context.capability / 10}"

    def failure(self, error: BaseException) -> Failure | None:
        """See Device."""
        match error:
            case DeviceLost():
                return "lost"
            case OutOfDeviceMemory():
                return "full"
            case CudaError():
                return "failed"
        return None

    def preprocess(
        self,
        frames: NDArray[np.uint8] | Yuv420,
        mean: Sequence[float],
        std: Sequence[float],
        layout: Layout,
        *,
        size: tuple[int, int] | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    ) -> NDArray[Any]:
        """See Device."""
        inputs: dict[str, NDArray[Any]]
        if isinstance(frames, Yuv420):
            packed = replace(frames, luma=np.ascontiguousarray(frames.luma), chroma=np.ascontiguousarray(frames.chroma))
            frames, inputs = packed, {"luma": packed.luma, "chroma": packed.chroma}
        else:
            frames = np.ascontiguousarray(frames)
            inputs = {"pixels": frames}
        try:
            if dtype == "bfloat16" and self._context.capability < OLDEST:
                raise ValueError("there is no such kernel")
            plan = preprocess_plan.plan(frames, mean, std, layout, size=size, dtype=dtype)
        except ValueError:
            return preprocess(frames, mean, std, layout, size=size, dtype=dtype)
        (out,) = plan.outputs
        with self._context.lane() as lane:
            made = execute(lane, plan, **inputs)
            arriving = lane.download(made["out"], out.shape, out.dtype)
        return arriving.array()

    def pool(
        self,
        vectors: NDArray[np.float32],
        offsets: NDArray[np.int64],
        *,
        weights: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
        normalise: bool = True,
        kind: Pooling = _MEAN,
    ) -> NDArray[np.float32]:
        """See Device."""
        made = self._pooled(vectors, offsets, kind, weights, mask, normalise)
        if made is None:
            return reference.pool(vectors, offsets, weights=weights, mask=mask, normalise=normalise, kind=kind)
        return made["out"]

    def attend(
        self,
        vectors: NDArray[np.float32],
        offsets: NDArray[np.int64],
        kind: Attention,
        *,
        weights: NDArray[np.float32] | None = None,
        mask: NDArray[np.bool_] | None = None,
        normalise: bool = True,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See Device."""
        made = self._pooled(vectors, offsets, kind, weights, mask, normalise)
        if made is None:
            return reference.attend(vectors, offsets, kind, weights=weights, mask=mask, normalise=normalise)
        return made["out"], made["shares"]

    def _pooled(
        self,
        vectors: NDArray[np.float32],
        offsets: NDArray[np.int64],
        kind: Pooling,
        weights: NDArray[np.float32] | None,
        mask: NDArray[np.bool_] | None,
        normalise: bool,
    ) -> dict[str, NDArray[Any]] | None:
        """The plan's outputs by name; None: no launch takes this."""
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            return None
        try:
            count, dimensions = vectors.shape
            plan = pool_plan.plan(
                count, dimensions, offsets, weights=weights, mask=mask, normalise=normalise, kind=kind
            )
        except ValueError:
            return None
        with self._context.lane() as lane:
            made = execute(lane, plan, vectors=vectors)
            arriving = {slot.name: lane.download(made[slot.name], slot.shape, slot.dtype) for slot in plan.outputs}
        arrived = {name: pending.array() for name, pending in arriving.items()}
        pool_plan.verify(arrived["status"], kind)
        return arrived
