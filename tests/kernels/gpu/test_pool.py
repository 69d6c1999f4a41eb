"""pool's kernels, run by Triton's interpreter as they are planned for a GPU, against float64.

Tolerances: the kernels sum in float32. A sum of shares * x over n vectors, in tiles and chunks, errs by some 20
roundings of 2**-24 of the largest |x|; a deviation by as much. Powers, exponentials and logarithms err by an ulp here
and by two on a GPU, in the exponent: 2**-22 * (1 + |log2|), of which GeM's root takes its p-th part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from matchcut.kernels.gpu.pool import KERNELS
from matchcut.kernels.gpu.spec import Kernel
from matchcut.kernels.launch.pool import CHUNK, plan, verify
from matchcut.kernels.pool import attend, pool
from matchcut.kernels.pooling import Attention, GeM, Max, Mean, MeanStd, Pooling
from support.pooled import Case, cases, counts, direct, kinds
from support.triton_interpreter import execute, interpret

MEAN = Mean()


def run(case: Case, kind: Pooling = MEAN, *, normalise: bool = True) -> dict[str, NDArray[Any]]:
    """The outputs, found to be of no segment without a result."""
    count, dimensions = case.vectors.shape
    planned = plan(
        count, dimensions, case.offsets, weights=case.weights, mask=case.mask, normalise=normalise, kind=kind
    )
    made = execute(planned, KERNELS, vectors=case.vectors)
    assert np.isfinite(made["out"]).all(), "never NaN, not even where there is no result"
    verify(made["status"], kind)
    return made


def told(work: Callable[[], NDArray[np.float32]]) -> tuple[NDArray[np.float32], str]:
    """The result, or why there is none."""
    try:
        return work(), ""
    except ValueError as error:
        return np.empty(0, np.float32), str(error)


def check(case: Case, kind: Pooling) -> None:
    right, shares = direct(case, kind)
    largest = np.abs(case.vectors[counts(case) > 0]).max()
    made = run(case, kind, normalise=False)
    np.testing.assert_allclose(made["out"], right, rtol=1e-6, atol=20 * 2**-24 * largest)
    if isinstance(kind, Attention):
        np.testing.assert_allclose(made["shares"], shares, rtol=1e-5, atol=1e-12)
        assert not made["shares"][counts(case) == 0].any()


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_every_kernel_is_the_definition(kernel: Kernel) -> None:
    block = int(kernel.name.rsplit("_", 1)[1])
    for dimensions in (1, 33, 512) if block == 512 else (1023, 1280):
        lengths = (1, 2, 3, CHUNK, CHUNK + 1, 2 * CHUNK + 5) if dimensions == 33 else (1, CHUNK + 1)
        for case in cases(dimensions, lengths):
            kind = next(kind for kind in kinds(dimensions) if kind.name == kernel.constants["KIND"])
            (launch,) = plan(len(case.vectors), dimensions, case.offsets, kind=kind).launches
            assert launch.kernel == kernel.name
            assert launch.grid[0] > len(lengths), "a segment is in several chunks, others in one"
            check(case, kind)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9) | st.just(CHUNK + 2), min_size=1, max_size=4),
    dimensions=st.sampled_from([1, 2, 31, 130]),
    seed=st.integers(0, 2**32 - 1),
    which=st.integers(0, 4),
    normalise=st.booleans(),
    scale=st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_is_the_reference(
    lengths: list[int], dimensions: int, seed: int, which: int, normalise: bool, scale: float
) -> None:
    random = np.random.default_rng(seed)
    count = sum(lengths)
    kind = kinds(dimensions, seed)[which]
    if isinstance(kind, Attention):
        kind = Attention(kind.query, temperature=scale)
    vectors = ((random.random((count, dimensions)) + 0.1) * scale).astype(np.float32)
    offsets = np.cumsum([0, *lengths], dtype=np.int64)
    weights, mask = random.random(count).astype(np.float32), random.random(count) < 0.7
    mask[offsets[:-1]] = True
    case = Case(vectors, offsets, weights, mask)
    made = run(case, kind, normalise=normalise)["out"]
    right = pool(vectors, offsets, weights=weights, mask=mask, normalise=normalise, kind=kind)
    np.testing.assert_allclose(made, right, rtol=1e-5, atol=3e-6 if normalise else 3e-6 * scale)


@pytest.mark.parametrize("kind", kinds(3), ids=lambda kind: kind.name)
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(
    "spoil",
    [
        {"mask": [0, 1]},
        {"weights": [0, 1]},
        {"offsets": [0, 2, 2, 70, 140]},
        {"value": (0, np.nan)},
        {"value": (1, np.inf)},
        {"value": (139, -np.inf)},
        {"value": (138, np.nan), "zeros": True},
        {"zeros": True},
    ],
    ids=str,
)
def test_tells_what_the_reference_tells(kind: Pooling, normalise: bool, spoil: dict[str, Any]) -> None:
    vectors = np.random.default_rng(1).random((140, 3), np.float32)
    if spoil.get("zeros"):
        vectors[70:] = 0
    if "value" in spoil:
        row, value = spoil["value"]
        vectors[row, 1] = value
    case = Case(vectors, np.array(spoil.get("offsets", [0, 2, 70, 140])))
    if "mask" in spoil:
        case.mask = np.ones(140, np.bool_)
        case.mask[spoil["mask"]] = False
    if "weights" in spoil:
        case.weights = np.ones(140, np.float32)
        case.weights[spoil["weights"]] = 0
    options: Any = {"weights": case.weights, "mask": case.mask, "normalise": normalise, "kind": kind}
    right, why = told(lambda: pool(case.vectors, case.offsets, **options))
    made, because = told(lambda: run(case, kind, normalise=normalise)["out"])
    assert because == why
    zeros_are_fine = not normalise or isinstance(kind, GeM)  # which raises them to its floor
    assert bool(why) == (set(spoil) != {"zeros"} or not zeros_are_fine)
    if not why:
        np.testing.assert_allclose(made, right, atol=1e-6)


def test_every_fault_is_told_somewhere_above() -> None:
    case = Case(np.zeros((3, 2), np.float32), np.array([0, 1, 1, 3]))
    case.vectors[2] = np.nan
    planned = plan(3, 2, case.offsets)
    assert execute(planned, KERNELS, vectors=case.vectors)["status"].tolist() == [3, 1, 2]


@pytest.mark.parametrize("value", [1e30, 3.4028235e38, 1e-30, 2.0**-126])
def test_numbers_at_the_ends_of_float32_keep_their_direction(value: float) -> None:
    vectors = np.array([[value, 0, -0.0], [0, value, -0.0]], np.float32)
    case = Case(vectors, np.array([0, 2]))
    anywhere: list[Pooling] = [MEAN, Max(), Attention(np.zeros(3, np.float32))]
    for kind in anywhere:
        np.testing.assert_allclose(run(case, kind)["out"], [[0.5**0.5, 0.5**0.5, 0]], rtol=1e-6)
    if value < 1e38:  # a difference of two such numbers is beyond float32, told as infinity
        np.testing.assert_allclose(run(case, MeanStd())["out"], [[0.5, 0.5, 0, 0.5, 0.5, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    "kind", [MEAN, Max(), Attention(np.ones(3, np.float32)), MeanStd()], ids=lambda kind: kind.name
)
@pytest.mark.parametrize("value", [1e-45, 1e-40])
def test_denormal_numbers_count_or_are_zero_but_never_nan(kind: Pooling, value: float) -> None:
    case = Case(np.full((2, 3), value, np.float32), np.array([0, 2]))
    made, why = told(lambda: run(case, kind)["out"])
    if why:
        assert "no direction" in why
    else:
        np.testing.assert_allclose(np.linalg.norm(made), 1, rtol=1e-6)


def test_weights_at_the_ends_of_float32() -> None:
    vectors = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    for weight in (3e38, 1e-45):
        case = Case(vectors, np.array([0, 2, 3]), np.full(3, weight, np.float32))
        np.testing.assert_allclose(run(case, normalise=False)["out"], np.array([[0.5, 0.5], [1, 1]]), rtol=1e-6)
    unequal = Case(vectors, np.array([0, 3]), np.array([3e38, 1e-45, 1e-45], np.float32))
    np.testing.assert_allclose(run(unequal)["out"], [[1, 0]], atol=1e-6)
    unequal.vectors[2] = np.nan
    with pytest.raises(ValueError, match="segment 0 holds NaN"):
        run(unequal)  # it counts, however little


def test_a_deviation_far_smaller_than_its_mean() -> None:
    vectors = (1000 + np.random.default_rng(2).standard_normal((300, 5)) * 1e-2).astype(np.float32)
    case = Case(vectors, np.array([0, 7, 300]))
    made = run(case, MeanStd(), normalise=False)["out"][:, 5:]
    np.testing.assert_allclose(made, direct(case, MeanStd())[0][:, 5:], rtol=1e-3)  # the mean errs by 2**-24 * 1000


@pytest.mark.parametrize("kind", kinds(5), ids=lambda kind: kind.name)
def test_the_order_of_the_programs_does_not_matter(kind: Pooling) -> None:
    *_, case = cases(5, (3, 3 * CHUNK + 1, 1, CHUNK + 1))
    planned = plan(len(case.vectors), 5, case.offsets, weights=case.weights, mask=case.mask, kind=kind)
    forth, back = (execute(planned, KERNELS, vectors=case.vectors, backwards=way) for way in (False, True))
    for name, made in forth.items():
        np.testing.assert_array_equal(back[name], made)


@pytest.mark.parametrize("p", [0.5, 1.0, 3.0, 100.0])
def test_gem_of_any_power(p: float) -> None:
    for case in cases(5, (1, 9, CHUNK + 7)):
        check(case, GeM(p=p, floor=0.01))


def test_a_score_beyond_float32_is_told() -> None:
    case = Case(np.full((2, 4), 1e30, np.float32), np.array([0, 2]))
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        run(case, Attention(np.full(4, 1e30, np.float32)))


def test_a_cold_temperature_leaves_the_best_vector() -> None:
    case = next(cases(31, (5, CHUNK + 3)))
    kind = Attention(case.vectors[2], temperature=1e-3)
    made = run(case, kind)
    right = attend(case.vectors, case.offsets, kind)
    np.testing.assert_allclose(made["out"], right[0], atol=1e-6)
    np.testing.assert_allclose(made["shares"], right[1], atol=1e-6)


def test_rows_beyond_two_giga_numbers(tmp_path: Any) -> None:
    dimensions = 2048
    count = 2**31 // dimensions + CHUNK
    vectors = np.memmap(tmp_path / "sparse", np.float32, "w+", shape=(count, dimensions))
    vectors[-2:] = [[1], [3]]
    (launch,) = plan(count, dimensions, np.array([0, count - 2, count])).launches
    (kernel,) = (kernel for kernel in KERNELS if kernel.name == launch.kernel)
    # Only the last segment's program: the others have 2**31 numbers to read.
    owners, starts, firsts = (np.array(x, t) for x, t in (([0], "i4"), ([count - 2, count], "i8"), ([0, 1], "i4")))
    status, out, shares = np.full(1, -1, np.int32), np.zeros((1, dimensions), np.float32), np.zeros(count, np.float32)
    shares[-2:] = 0.5
    state = [np.zeros(shape, np.float32) for shape in ((1, 2, dimensions), (1, 4))]
    arrived = np.zeros(1, np.int32)
    interpret(kernel, (1,), vectors, shares, owners, starts, firsts, *state, arrived, out, status, dimensions, 0)
    assert status.tolist() == [0]
    assert (out == 2).all()


def test_the_plan_says_what_has_to_be_moved() -> None:
    planned = plan(10, 7, np.array([0, 4, 10]), kind=MeanStd())
    assert planned.moved == 10 * 7 * 4 + 10 * 4 + 2 * 14 * 4 + 2 * 4
    assert [slot.name for slot in planned.outputs] == ["out", "status"]


@pytest.mark.parametrize(
    ("count", "dimensions", "offsets", "options", "message"),
    [
        (3, 4, [0], {}, "offsets must not fall and must go from 0 to the 3"),
        (0, 4, [0], {}, "0 segments of 4 dimensions"),
        (3, 2049, [0, 3], {}, "1 segments of 2049 dimensions"),
        (3, 0, [0, 3], {}, "1 segments of 0 dimensions"),
        (3, 4, [0, 3], {"weights": np.ones(2, np.float32)}, "weights must be"),
        (3, 2, [0, 3], {"kind": Attention(np.full(2, 1e30, np.float32), 1e-10)}, "beyond float32"),
    ],
)
def test_what_no_launch_takes_is_refused(
    count: int, dimensions: int, offsets: list[int], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        plan(count, dimensions, np.array(offsets), **options)
