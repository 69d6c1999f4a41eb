"""The native scan for tests: its variants, rows and bases, codes as they lie in memory, its sources compiled anew."""

from __future__ import annotations

import ctypes
import functools
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.kernels.basis import Axes, Basis, learn
from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.native.shared_library import CHUNK, LEVEL, Library, Variant, load
from matchcut.kernels.sieve import Crew, search_coded, search_each
from matchcut.kernels.topk import Ranked, search

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "kernels" / "native"
TESTS = ROOT / "tests" / "kernels" / "native"
WARNINGS = ("-Wall", "-Wextra", "-Wconversion", "-Werror", "-pedantic")
BASES = ("plain", "mean", "64", "128")


def _library() -> Library:
    loaded = load()
    assert isinstance(loaded, Library), loaded.why
    return loaded


LIBRARY = _library()
RUNNABLE = tuple(variant for variant in LIBRARY.variants if not variant.lacks)


def unit(random: np.random.Generator, count: int, dimensions: int) -> np.ndarray:
    """Directions without any structure."""
    made = random.standard_normal((count, dimensions)) + 1e-9
    lengths: np.ndarray = np.linalg.norm(made, axis=1, keepdims=True)
    return np.asarray(made / lengths, np.float32)


@functools.cache
def waves(dimensions: int) -> np.ndarray:
    """An orthonormal matrix, (dimensions, dimensions): the cosine transform."""
    at = np.arange(dimensions)
    made = np.cos(np.pi * np.outer(at, at + 0.5) / dimensions) * np.sqrt(2 / dimensions)
    made[0] /= np.sqrt(2)
    return np.asarray(made)


def steep(random: np.random.Generator, count: int, dimensions: int, *, shift: int = 0) -> np.ndarray:
    """Unit vectors whose spectrum falls as a trained encoder's does, along `waves`, or along others after a shift."""
    made = (random.standard_normal((count, dimensions)) * _sizes(dimensions)) @ waves(dimensions) + 0.05
    made = np.roll(made * np.where(np.arange(dimensions) % 3 == shift, -1, 1) if shift else made, shift, axis=1)
    lengths: np.ndarray = np.linalg.norm(made, axis=1, keepdims=True)
    return np.asarray(made / lengths, np.float32)


@functools.cache
def basis(name: str, dimensions: int) -> Basis:
    """Of that name in BASES: no turn, with or without a mean, or the axes of `steep`, so many of them dense."""
    if name == "plain":
        return Basis.plain(dimensions)
    sample = steep(np.random.default_rng(1), 600, dimensions)
    mean = sample.mean(axis=0)
    if name == "mean":
        return Basis.plain(dimensions, mean=mean)
    axes = Axes(mean, waves(dimensions), _sizes(dimensions) ** 2)
    if dimensions < 256:  # above, principal axes take seconds
        learnt = learn(sample)
        assert learnt is not None
        axes = learnt
    return axes.basis(int(name))


def _sizes(dimensions: int) -> np.ndarray:
    return np.asarray(1 / (1 + np.arange(dimensions)) ** 0.9)


def bases(dimensions: int) -> tuple[str, ...]:
    """Those of BASES that there are for so many dimensions."""
    return tuple(name for name in BASES if not name.isdigit() or LEVEL < dimensions > int(name))


def coded(rows: np.ndarray, basis: Basis, variant: Variant | None = None) -> CodedRows:
    """These rows in codes."""
    codes = Codes(basis, LIBRARY, variant)
    codes.extend(rows)
    return codes.view()


def ranked(queries: np.ndarray, rows: np.ndarray, kept: CodedRows, *, crew: Crew | None = None, **how: Any) -> Ranked:
    """What search_coded finds with the best variant or this crew, after it was compared with topk.search."""
    found = search_coded(queries, rows, kept, crew=crew or Crew(LIBRARY, LIBRARY.best), **how)
    how.pop("check", None)
    assert found.scores.dtype == np.float64
    assert list(found) == list(search(queries, rows, **how))
    return found


def ranked_each(
    queries: np.ndarray, rows: np.ndarray, kept: CodedRows, *, crew: Crew | None = None, **how: Any
) -> list[Ranked]:
    """What search_each finds, likewise."""
    found = search_each(queries, rows, kept, crew=crew or Crew(LIBRARY, LIBRARY.best), **how)
    how.pop("check", None)
    wanted = [search(queries[at : at + 1], rows, **how) for at in range(len(queries))]
    assert [list(one) for one in found] == [list(one) for one in wanted]
    return found


@dataclass(frozen=True)
class Decoded:
    """What the bytes of coded rows say; native/scan.h describes them.

    codes: (n, width) int64. scale, tail, tail_scale: (n,) float32. left: (n, levels) uint8.
    """

    codes: np.ndarray
    scale: np.ndarray
    tail: np.ndarray
    tail_scale: np.ndarray
    left: np.ndarray


def decoded(rows: CodedRows) -> Decoded:
    """The bytes of each row, told apart."""
    dense, levels, count = rows.basis.dense, rows.basis.levels, rows.count
    size = LIBRARY.functions.mc_chunk_bytes(dense, levels)
    chunks = np.stack([np.frombuffer((ctypes.c_uint8 * size).from_address(int(at)), np.uint8) for at in rows.table])
    most = len(chunks) * CHUNK
    end, tails = CHUNK * dense, CHUNK * (dense + LEVEL * levels)
    blocks = chunks[:, :end].reshape(-1, CHUNK // 16, dense // 4, 16, 4)
    parts = [blocks.transpose(0, 1, 3, 2, 4).reshape(most, dense)]
    parts += [chunks[:, at : at + CHUNK * LEVEL].reshape(most, LEVEL) for at in range(end, tails, CHUNK * LEVEL)]
    floats = chunks[:, tails : tails + 8 * CHUNK].copy().view(np.float32).reshape(-1, 2, CHUNK)
    record = (8 + levels + 3) // 4 * 4 if levels else 0
    start = tails + 8 * CHUNK
    records = chunks[:, start : start + CHUNK * record].reshape(most, record)[:count]
    tail_scale = records[:, 4:8].copy().view(np.float32)[:, 0] if levels else np.zeros(count, np.float32)
    return Decoded(
        codes=(np.concatenate(parts, axis=1)[:count].astype(np.int64) - 128),
        scale=floats[:, 0].reshape(most)[:count],
        tail=floats[:, 1].reshape(most)[:count],
        tail_scale=tail_scale,
        left=records[:, 8 : 8 + levels],
    )


def compiled(out: Path, *flags: str, sources: tuple[Path, ...] = (), without: tuple[str, ...] = ()) -> Path:
    """A library of the sources in kernels/native and these."""
    kept = [path for path in sorted(NATIVE.glob("*.c")) if path.name not in without]
    return _built(out, ["gcc", "-fPIC", "-shared", "-fvisibility=hidden", *flags], [*kept, *sources], {})


def driver(folder: Path, compiler: str, *flags: str) -> Path:
    """driver.c and the sources in kernels/native as one program."""
    renamed = [f"-D{name}=test_{name}" for name in ("calloc", "realloc", "aligned_alloc")]
    sources = [*sorted(NATIVE.glob("*.c")), TESTS / "driver.c"]
    # GCC 12 for Arm fails on the driver's -O3.
    own = dict.fromkeys(("board.c", "search.c"), renamed) | {"driver.c": ["-O1"]}
    return _built(folder / "driver", [compiler, "-pthread", *flags], sources, own)


def _built(out: Path, command: list[str], sources: list[Path], own: dict[str, list[str]]) -> Path:
    """Compiles all files at the same time, some with flags of their own, and links them."""
    objects = [out.with_name(f"{out.name}-{source.stem}.o") for source in sources]
    command = [*command, "-std=c11", f"-I{NATIVE}"]
    _finish(
        [*command, *own.get(source.name, []), "-c", str(source), "-o", str(made)]
        for source, made in zip(sources, objects, strict=True)
    )
    _finish([[*command, *map(str, objects), "-o", str(out), "-lm"]])
    return out


def _finish(commands: Iterable[list[str]]) -> None:
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    said = [process.communicate()[1] for process in running]
    if any(process.returncode for process in running):
        pytest.fail("\n".join(said))
