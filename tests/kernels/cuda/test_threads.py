"""Many threads, one context: lanes are waited for, and closing waits for lanes."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cuda_sim.contexts import simulated_context, write_manifest
from cuda_sim.simulation import Simulation
from matchcut.kernels.cuda import Context, CudaError, Manifest
from matchcut.kernels.gpu.spec import Kernel

ADD = Kernel("add", lambda: None, {"x": "*i64", "y": "*i64", "n": "i64"}, {})


def add(grid: tuple[int, ...], x: Any, y: Any, n: int) -> None:
    x[:n] += y[:n]


def test_threads_do_not_mix_up_their_work(simulation: Simulation) -> None:
    with simulated_context([ADD], stand_ins={"add": add}, lanes=3) as context:
        ones = context.allocate(8 * 100)
        with context.lane() as lane:
            lane.upload(np.ones(100, np.int64), ones)

        def work(number: int) -> bool:
            with context.lane() as lane:
                x = lane.upload(np.full(100, number, np.int64))
                for _ in range(5):
                    lane.launch("add", (1,), x, ones, 100)
                arrived = lane.download(x, (100,), np.int64)
                if number % 2:
                    lane.synchronize()
                kept = context.allocate(number + 1)
                del kept
            return bool((arrived.array() == number + 5).all())

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work, range(200)))
        assert simulation.counts.streams <= 3


def test_a_lane_is_waited_for(simulation: Simulation) -> None:
    with simulated_context([], lanes=1) as context:
        got = threading.Event()

        def second() -> None:
            with context.lane():
                got.set()

        with context.lane():
            thread = threading.Thread(target=second)
            thread.start()
            assert not got.wait(0.1)
        thread.join(10)
        assert got.is_set()
        assert simulation.counts.streams == 1


def test_several_lanes_in_one_thread(simulation: Simulation) -> None:
    with simulated_context([], lanes=2) as context, context.lane() as one, context.lane() as other:
        assert one is not other
        buffer = context.allocate(8)
        one.fill(buffer, 1)
        one.synchronize()
        other.fill(buffer, 2, 4)
        other.synchronize()
        arrived = one.download(buffer, (2,), np.uint32)
        one.synchronize()
        assert arrived.array().tolist() == [0x02020202, 0x01010101]


def test_closing_waits_for_lanes_and_refuses_new_ones(simulation: Simulation, tmp_path: Path) -> None:
    context = Context.open(manifest=Manifest.read(write_manifest(tmp_path, [ADD])))
    inside, leave = threading.Event(), threading.Event()

    def work() -> None:
        with context.lane():
            inside.set()
            leave.wait(10)

    worker = threading.Thread(target=work)
    worker.start()
    assert inside.wait(10)
    closer = threading.Thread(target=context.close)
    closer.start()
    while not context._closed:
        time.sleep(0.01)
    with pytest.raises(CudaError, match="closed"), context.lane():
        pass
    with pytest.raises(CudaError, match="closed"):
        context.allocate(1)
    closer.join(0.1)
    assert closer.is_alive()
    leave.set()
    worker.join(10)
    closer.join(10)
    assert not closer.is_alive()
    assert (simulation.counts.contexts, simulation.counts.leaked) == (0, 0)


def test_who_waits_for_a_lane_when_it_is_closed_gets_none(simulation: Simulation, tmp_path: Path) -> None:
    context = Context.open(manifest=Manifest.read(write_manifest(tmp_path, [ADD])), lanes=1)
    refused: list[str] = []

    def wait() -> None:
        try:
            with context.lane():
                pass
        except CudaError as error:
            refused.append(str(error))

    with context.lane():
        waiter = threading.Thread(target=wait)
        waiter.start()
        time.sleep(0.05)
        closer = threading.Thread(target=context.close)
        closer.start()
        waiter.join(10)
        assert refused == ["the context is closed"]
    closer.join(10)
    assert simulation.counts.contexts == 0


@pytest.mark.parametrize("elsewhere", [False, True])
def test_everything_is_given_back_by_whichever_thread_closes(
    simulation: Simulation, tmp_path: Path, elsewhere: bool
) -> None:
    manifest = Manifest.read(write_manifest(tmp_path, [ADD]))
    for _ in range(20):  # more than the stack of contexts is deep
        context = Context.open(manifest=manifest)
        kept = context.allocate(1 << 20)
        with context.lane() as lane:
            lane.mark("start")
            lane.download(lane.upload(np.zeros(1 << 20, np.uint8)), (1 << 20,), np.uint8)
        context.load("add") if "add" in simulation.programs else None
        if elsewhere:
            thread = threading.Thread(target=context.close)
            thread.start()
            thread.join(10)
        else:
            context.close()
        context.close()  # does nothing
        assert kept.nbytes
        del kept
        counts = simulation.counts
        assert (counts.used, counts.pinned, counts.streams, counts.events, counts.contexts) == (0, 0, 0, 0, 0)
        assert (counts.leaked, counts.misuses) == (0, 0)


@pytest.mark.parametrize("held", [False, True])
def test_the_end_of_a_process_that_did_not_close(tmp_path: Path, held: bool) -> None:
    """It closes what it can, and is not aborted by PyCUDA, which does that where a context is still pushed."""
    script = tmp_path / "script.py"
    manifest = write_manifest(tmp_path, [ADD])
    script.write_text(
        "import threading\nfrom pathlib import Path\n"
        "from cuda_sim.simulation import load\nload().reset()\n"
        "import matchcut.kernels.cuda.launcher as launcher\nlauncher._AT_EXIT = 0.1\n"
        f"context = launcher.Context.open(manifest=launcher.Manifest.read(Path({str(manifest)!r})))\n"
        "kept = context.allocate(1000)\n"
        "def hold():\n    with context.lane():\n        inside.set()\n        threading.Event().wait()\n"
        "inside = threading.Event()\n"
        + ("threading.Thread(target=hold, daemon=True).start()\ninside.wait(10)\n" if held else "")
        + "print('end')\n"
    )
    done = subprocess.run(
        ["env", f"PYTHONPATH={Path(__file__).parents[2]}", sys.executable, str(script)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
