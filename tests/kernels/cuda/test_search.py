"""The whole way of a search on the simulated driver: the real launcher and the real PyCUDA, no step left out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from cuda_sim.contexts import simulated_context
from cuda_sim.simulation import Simulation
from matchcut.kernels import topk
from matchcut.kernels.cuda import DeviceLost, Manifest
from matchcut.kernels.cuda.home import Cuda
from matchcut.kernels.cuda.manifest import CUBINS
from matchcut.kernels.gpu.exact import KERNELS as EXACT
from matchcut.kernels.gpu.score import KERNELS as SCORE
from matchcut.kernels.gpu.topk import KERNELS as SELECT

ALL = (*SCORE, *EXACT, *SELECT)
ROWS, DIMENSIONS = 700, 48


def unit(count: int, seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).standard_normal((count, DIMENSIONS))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values.astype(np.float32)


def compiled() -> Manifest:
    if not (CUBINS / "manifest.json").is_file():
        pytest.fail("no kernels are compiled: run ./build.sh kernels")
    return Manifest.read(CUBINS / "manifest.json")


@pytest.mark.parametrize(
    ("kind", "capability", "built"),
    [("int8", 90, False), ("bf16", 90, False), ("fp32", 90, False), ("int8", 90, True), ("bf16", 121, True)],
)
def test_answers_are_those_of_the_cpu(simulation: Simulation, kind: str, capability: int, built: bool) -> None:
    rows, queries, groups = unit(ROWS, 1), unit(3, 2), np.arange(ROWS) // 2
    with simulated_context(ALL, capability=capability, manifest=compiled() if built else None) as context:
        home = Cuda(scan=kind, context=context)
        codes = home.coding(rows)
        assert codes is not None
        codes.extend(rows)
        wanted = topk.search(queries, rows, groups=groups, k=10)
        found = home.search(queries, rows, groups=groups, k=10, coded=codes.view())
        assert found.variant == f"cuda-{kind}"
        np.testing.assert_array_equal(found.rows, wanted.rows)
        np.testing.assert_array_equal(found.scores, wanted.scores)
        assert any(launch.name.startswith(f"scan_{kind}") for launch in simulation.launches)
        assert context.binary(simulation.launches[0].name).target == ("90" if capability == 90 else "ptx80")


def test_threads_search_at_once(simulation: Simulation) -> None:
    rows, groups = unit(ROWS, 1), np.arange(ROWS)
    with simulated_context(ALL, lanes=2) as context:
        home = Cuda(scan="int8", context=context)
        codes = home.coding(rows)
        assert codes is not None
        codes.extend(rows)

        def same(seed: int) -> bool:
            queries = unit(2, seed)
            found = home.search(queries, rows, groups=groups, k=5, coded=codes.view())
            return bool((found.rows == topk.search(queries, rows, groups=groups, k=5).rows).all())

        with ThreadPoolExecutor(3) as pool:
            assert all(pool.map(same, range(10, 16)))


@pytest.mark.parametrize("nth", [1, 3])
def test_a_device_that_is_lost_says_so(simulation: Simulation, nth: int) -> None:
    rows, groups = unit(ROWS, 1), np.arange(ROWS)
    with simulated_context(ALL) as context:
        home = Cuda(scan="int8", context=context)
        codes = home.coding(rows)
        assert codes is not None
        codes.extend(rows)
        simulation.fail_launch(nth)
        for _ in range(2):
            with pytest.raises(DeviceLost):
                home.search(rows[:1], rows, groups=groups, k=5, coded=codes.view())
        assert context.lost
