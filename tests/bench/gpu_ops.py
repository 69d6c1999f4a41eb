"""preprocess and pool on a GPU, beside the time that moving their bytes takes and beside torch.

    python tests/bench/gpu_ops.py [--results FOLDER]

Needs a GPU, PyCUDA and torch. Microseconds on the device for one launch, of several in a row on other inputs each, so
that nothing is in the cache. First each result is compared with the reference on the CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from gpu_common import card, reading
from numpy.typing import NDArray

from matchcut.kernels import pool as pooling
from matchcut.kernels.cuda.lane import Lane
from matchcut.kernels.cuda.launcher import Context
from matchcut.kernels.cuda.memory import Buffer
from matchcut.kernels.launch import Plan, Slot
from matchcut.kernels.launch import pool as pool_plan
from matchcut.kernels.launch import preprocess as preprocess_plan
from matchcut.kernels.pixels import Yuv420
from matchcut.kernels.pooling import Attention, GeM, Max, Mean, MeanStd
from matchcut.kernels.preprocess import preprocess

SETS = 10  # of inputs
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def prepared(lane: Lane, context: Context, plan: Plan, inputs: dict[str, NDArray[Any]]) -> list[list[Any]]:
    """The arguments of the plan's only launch for each set of inputs, with their memory."""
    (launch,) = plan.launches
    tables = {id(one): lane.upload(one) for one in launch.arguments if isinstance(one, np.ndarray)}
    made = []
    for _ in range(SETS):
        slots: dict[str, Buffer] = {}
        for slot in [one for one in launch.arguments if isinstance(one, Slot)]:
            slots.setdefault(slot.name, context.allocate(max(16, slot.nbytes)))
            if slot.name in inputs:
                lane.upload(inputs[slot.name], slots[slot.name])
            else:
                lane.fill(slots[slot.name], 0, slot.nbytes)
        lane.synchronize()
        made.append(
            [slots[one.name] if isinstance(one, Slot) else tables.get(id(one), one) for one in launch.arguments]
        )
    return made


def timed(lane: Lane, plan: Plan, sets: list[list[Any]], readings: int = 40) -> tuple[float, float]:
    """Median and p99 of a launch, in microseconds."""
    (launch,) = plan.launches
    took = []
    for _ in range(readings):
        lane.mark("start")
        for arguments in sets:
            lane.launch(launch.kernel, launch.grid, *arguments)
        lane.mark("end")
        lane.synchronize()
        took.append(lane.times()["end"] * 1e6 / len(sets))
    return float(np.median(took[3:])), float(np.percentile(took[3:], 99))


def by_torch(work: Callable[[int], Any], readings: int = 30) -> float:
    """Median of one of several in a row, in microseconds."""
    took = []
    for _ in range(readings):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        for at in range(SETS):
            work(at)
        last.record()
        last.synchronize()
        took.append(first.elapsed_time(last) * 1e3 / SETS)
    return float(np.median(took[3:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, help="folder for gpu_ops.csv; default: tests/bench/results")
    options = parser.parse_args()
    where, random = card(), np.random.default_rng(0)
    context = Context.open()
    figures: list[dict[str, Any]] = []

    def row(
        what: str, plan: Plan, inputs: dict[str, NDArray[Any]], check: Callable[[NDArray[Any]], None], rival: float
    ) -> None:
        with context.lane() as lane:
            sets = prepared(lane, context, plan, inputs)
            median, p99 = timed(lane, plan, sets)
            (launch,) = plan.launches
            slot = plan.outputs[0]
            at = next(i for i, one in enumerate(launch.arguments) if isinstance(one, Slot) and one.name == slot.name)
            made = lane.download(sets[0][at], slot.shape, slot.dtype)
            lane.synchronize()
            check(made.array())
        read = reading(-(-plan.moved // 4) * 4)
        none = np.empty((1, 1), np.float32)
        limit = float(np.median([read(none) for _ in range(20)])) * 1e6
        figures.append(
            {
                **where,
                "what": what,
                "megabytes": round(plan.moved / 1e6, 2),
                "device_us": round(median, 1),
                "device_p99_us": round(p99, 1),
                "gb_per_s": round(plan.moved / median / 1e3),
                "read_as_much_us": round(limit, 1),
                "torch_us": round(rival, 1) if rival else "",
            }
        )
        print(*list(figures[-1].values())[6:], flush=True)

    def near(wanted: NDArray[Any], tolerance: float) -> Callable[[NDArray[Any]], None]:
        def check(made: NDArray[Any]) -> None:
            if made.dtype == np.uint16:
                made = (made.astype(np.uint32) << 16).view(np.float32)
            worst = np.abs(made.astype(np.float64).reshape(wanted.shape) - wanted.astype(np.float64)).max()
            assert worst <= tolerance, worst

        return check

    luma = random.integers(16, 236, (16, 1080, 1920), np.uint8)
    chroma = random.integers(16, 241, (16, 540, 960, 2), np.uint8)
    yuv = Yuv420(luma, chroma)
    for dtype, tolerance in (("float16", 4e-3), ("bfloat16", 3e-2)):
        plan = preprocess_plan.plan(yuv, MEAN, STD, "NCHW", size=(224, 224), dtype=dtype)
        wanted = preprocess(yuv, MEAN, STD, "NCHW", size=(224, 224))
        row(
            f"preprocess 16 x 1080p NV12 to 224, {dtype}",
            plan,
            {"luma": luma, "chroma": chroma},
            near(wanted, tolerance),
            0,
        )
    rgb = random.integers(0, 256, (16, 224, 224, 3), np.uint8)
    plan = preprocess_plan.plan(rgb, MEAN, STD, "NCHW")
    on_gpu = [torch.from_numpy(rgb).cuda() for _ in range(SETS)]
    mean, std = (torch.tensor(one, device="cuda").view(1, 3, 1, 1) for one in (MEAN, STD))
    rival = by_torch(lambda at: (on_gpu[at].permute(0, 3, 1, 2).float() - mean) / std)
    row(
        "preprocess 16 x 224 RGB, float32", plan, {"pixels": rgb}, near(preprocess(rgb, MEAN, STD, "NCHW"), 1e-5), rival
    )
    big = random.integers(0, 256, (16, 720, 1280, 3), np.uint8)
    plan = preprocess_plan.plan(big, MEAN, STD, "NCHW", size=(224, 224), dtype="float16")
    large = [torch.from_numpy(big).cuda() for _ in range(SETS)]

    def resized(at: int) -> Any:
        pixels = large[at].permute(0, 3, 1, 2).half()
        small = torch.nn.functional.interpolate(pixels, (224, 224), mode="bilinear", antialias=True)
        return (small - mean.half()) / std.half()

    wanted = preprocess(big, MEAN, STD, "NCHW", size=(224, 224))
    row("preprocess 16 x 720p RGB to 224, float16", plan, {"pixels": big}, near(wanted, 1e-2), by_torch(resized))
    vectors = random.standard_normal((3000, 1280)).astype(np.float32) + np.float32(0.2)
    offsets = np.sort(random.choice(np.arange(1, 3000), 99, replace=False))
    offsets = np.concatenate([[0], offsets, [3000]]).astype(np.int64)
    segment = torch.from_numpy(np.repeat(np.arange(100), np.diff(offsets))).cuda()
    lengths = torch.from_numpy(np.diff(offsets)).cuda()
    floats = [torch.from_numpy(vectors).cuda() for _ in range(SETS)]

    def averaged(at: int) -> Any:
        total = torch.zeros(100, 1280, device="cuda").index_add_(0, segment, floats[at])
        return torch.nn.functional.normalize(total / lengths[:, None])

    query = random.standard_normal(1280).astype(np.float32)
    for name, kind in (
        ("mean", Mean()),
        ("max", Max()),
        ("GeM(3)", GeM()),
        ("attention", Attention(query, 10.0)),
        ("mean and deviation", MeanStd()),
    ):
        plan = pool_plan.plan(3000, 1280, offsets, kind=kind)
        if isinstance(kind, Attention):
            wanted = pooling.attend(vectors, offsets, kind)[0]
        else:
            wanted = pooling.pool(vectors, offsets, kind=kind)
        rival = by_torch(averaged) if name == "mean" else 0
        row(f"pool 3000 x 1280 in 100 segments, {name}", plan, {"vectors": vectors}, near(wanted, 2e-6), rival)
    context.close()
    if options.results:
        common.RESULTS = options.results
    columns = list(figures[0])
    print(common.keep("gpu_ops", columns, [[figure[key] for key in columns] for figure in figures]))


if __name__ == "__main__":
    main()
