"""Rows so far into their arrays that a 32-bit product of row and pitch would overflow; nothing else is touched."""

from __future__ import annotations

import mmap

import numpy as np

from matchcut.kernels.gpu import exact, score
from matchcut.kernels.launch.ranking import pairwise
from matchcut.kernels.score import exact_score
from support.triton_interpreter import interpret

ROW = 5_000_000  # times 512 is beyond 2**31
PITCH = 512
KERNELS = {kernel.name: kernel for kernel in (*score.KERNELS, *exact.KERNELS)}


def sparse(count: int, dtype: type[np.generic]) -> np.ndarray:
    """Zeros that take memory only where they are written or read."""
    nbytes = count * np.dtype(dtype).itemsize
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0))
    return np.frombuffer(memory, dtype)


def test_exact_scores_of_far_rows() -> None:
    random = np.random.default_rng(0)
    rows = sparse((ROW + 64) * PITCH, np.float32).reshape(-1, PITCH)
    rows[ROW : ROW + 3] = random.standard_normal((3, PITCH))
    query = random.standard_normal((1, PITCH)).astype(np.float32)
    plan, rest_from, rest = pairwise(PITCH)
    listed = np.array([ROW + 2, ROW, ROW + 1] + [0] * 13, np.int32)
    found, scores = np.array([3], np.int32), np.zeros(16)
    best = np.full(4096, -(2**31), np.int32)
    none, from_to = np.zeros(1, np.int32), np.zeros(2, np.int32)
    groups = sparse(ROW + 64, np.int32)
    interpret(
        KERNELS["exact"],
        (1, 1),
        *(rows.reshape(-1), query.reshape(-1), groups, plan.reshape(-1).copy(), none, from_to, found, listed, scores),
        *(best, 1, PITCH, len(plan), rest_from, rest, 16, 4096),
    )
    np.testing.assert_array_equal(scores[:3], exact_score(np.repeat(query, 3, axis=0), rows[listed[:3]]))


def test_the_scan_of_a_far_tile() -> None:
    scan = KERNELS["scan_int8_8_dense"]
    tile = int(scan.constants["BM"] or 0)
    count = (ROW // tile + 1) * tile
    codes, mask = sparse(count * PITCH, np.int8).reshape(-1, PITCH), sparse(count, np.uint8)
    scale = sparse(count, np.float32)
    codes[ROW], mask[ROW], scale[ROW] = 3, 1, 0.5
    queries = np.zeros((2, 8, PITCH), np.int8)
    queries[1, 0] = 2
    terms = np.zeros((5, 8), np.float32)
    terms[1, 0] = 0.25
    tau = np.full(8, np.inf, np.float32)
    tau[0] = 1.0
    found, pairs = np.zeros(8, np.int32), np.zeros(8 * 16, np.int64)
    unused, floats = np.zeros(16, np.int8), np.zeros(16, np.float32)
    interpret(
        scan,
        (1,),
        *(codes.reshape(-1), scale, floats, mask, queries.reshape(-1), terms.reshape(-1), unused, floats, unused),
        *(floats, tau, found, pairs, 0, count, PITCH, ROW // tile, count // tile, 1, 16),
    )
    assert found.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert pairs[0] & 0xFFFFFFFF == ROW
    assert np.array([pairs[0] >> 32], np.int32).view(np.float32)[0] == 3 * 2 * PITCH * 0.5 * 0.25
