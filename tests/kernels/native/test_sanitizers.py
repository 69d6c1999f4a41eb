"""The library under the sanitizers of GCC, with buffers of exactly the sizes that scan.h asks for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from support.native import RUNNABLE, TESTS, WARNINGS, compiled, driver

COVERED = "-fno-sanitize=null,object-size,pointer-overflow"  # what these find, the address sanitizer finds as well
SANITIZERS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", COVERED)
STRICT = {"ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1", "UBSAN_OPTIONS": "print_stacktrace=1"}


def run(program: Path, shapes: int) -> list[str]:
    """What it prints, without what it says of variants that the processor lacks."""
    done = subprocess.run(
        [str(program), str(shapes)], env=os.environ | STRICT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in done.stdout.splitlines() if not line.startswith("lacks ")]


def test_no_access_is_out_of_bounds_and_nothing_undefined(tmp_path: Path) -> None:
    """With the model of AMX, so that its tiles are read and written under the sanitizers, too; and a first look at
    blocks from everywhere where there are but two chunks."""
    model = f'-DMATCHCUT_AMX_MODEL="{TESTS / "amx_model.h"}"'
    *ran, shapes, starved, pieces = run(driver(tmp_path, "gcc", *SANITIZERS, *WARNINGS, model, "-DSAMPLED=2"), 27)
    names = {variant.name for variant in RUNNABLE}
    assert set(ran) == {f"ran {name}" for name in (names | {"amx"} if "avx512vnni" in names else names)}
    assert shapes == "shapes 27"
    assert int(starved.removeprefix("starved ")) >= 3  # searches in which each allocation failed once
    assert int(pieces.removeprefix("pieces ")) > 1000


def test_the_compiler_has_nothing_to_say(tmp_path: Path) -> None:
    """With what only optimising finds, and as the library is built."""
    assert compiled(tmp_path / "strict.so", "-O3", *WARNINGS).stat().st_size > 10_000
