"""What the GPU benchmarks share: the card's name, events, and how long reading takes. Needs a GPU and torch."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray


@triton.jit  # type: ignore[untyped-decorator]
def read(x, out, n, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: N803
    """Reads n int32 and all but nothing else."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.sum(tl.load(x + at, mask=at < n, other=0), axis=0)
    if total == 123456789:
        tl.store(out, total)


def card() -> dict[str, str]:
    """What was measured on."""
    query = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit"
    line = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=True
    ).stdout
    values = [value.strip() for value in line.splitlines()[0].split(",")]
    return dict(zip(("card", "driver", "sm_clock", "sm_clock_max", "memory_clock", "power_limit"), values, strict=True))


def torch_events(work: Callable[[], Any]) -> float:
    """Seconds of some torch work on the device."""
    first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    first.record()
    work()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def reading(nbytes: int) -> Callable[[NDArray[np.float32]], float]:
    """Seconds that it takes to read so many bytes."""
    space = torch.zeros(nbytes // 4, dtype=torch.int32, device="cuda")
    out = torch.zeros(1, dtype=torch.int32, device="cuda")
    grid = (triton.cdiv(nbytes // 4, 4096),)
    return lambda _: torch_events(lambda: read[grid](space, out, nbytes // 4, BLOCK=4096, num_warps=4))
