"""Compiling ahead of time: what is written, that it is the same each time, and what happens to kernels that are wrong.

All of it in processes of their own: in this one Triton interprets.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matchcut.kernels.compile.one import PTXAS, Fault, agree, usage
from matchcut.kernels.gpu.spec import Kernel

TOYS = """
import triton
import triton.language as tl

from matchcut.kernels.gpu.spec import Kernel


@triton.jit
def twice(value):
    return value * 2


@triton.jit
def toy(x, y, n, one, yes, half, unused, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, twice(tl.load(x + at, mask=at < n, other=0.0)) + one, mask=at < n)


@triton.jit
def sums(x, y, BLOCK: tl.constexpr):
    tl.store(y, tl.sum(tl.load(x + tl.arange(0, BLOCK))))


ARGUMENTS = {"x": "*fp32", "y": "*fp32", "n": "i32", "one": "fp32", "yes": "i1", "half": "fp16", "unused": "i64"}
KERNELS = (
    Kernel("toy", toy, ARGUMENTS, {"BLOCK": 256}, aligned=frozenset({"n"})),
    Kernel("sums", sums, {"x": "*fp32", "y": "*fp32"}, {"BLOCK": 512}, warps=2, fusion=False),
    Kernel("late", sums, {"x": "*fp32", "y": "*fp32"}, {"BLOCK": 256}, oldest=90),
)
"""

WRONG = """
import triton
import triton.language as tl

from matchcut.kernels.gpu.spec import Kernel


def plain(x):
    pass


@triton.jit
def unknown(x):
    tl.store(x, tl.nothing_of_the_kind(1))


@triton.jit
def vast(x, y, D: tl.constexpr):
    i = tl.arange(0, 128)
    sums = tl.zeros((128, 128), tl.float32)
    for k in range(0, D, 64):
        at = i[:, None] * D + k + tl.arange(0, 64)[None, :]
        sums = tl.dot(tl.load(x + at), tl.load(x + at).T, sums)
    tl.store(y + i[:, None] * 128 + i[None, :], sums)


FINE = {"x": "*fp16", "y": "*fp32"}
KERNELS = (
    Kernel("plain", plain, {"x": "*fp32"}, {}),
    Kernel("unknown", unknown, {"x": "*fp32"}, {}),
    Kernel("vast", vast, FINE, {"D": 1024}, stages=9),
    Kernel("order", vast, {"y": "*fp32", "x": "*fp16"}, {"D": 512}),
    Kernel("lacking", vast, {"x": "*fp16"}, {"D": 512}),
    Kernel("argument", vast, {**FINE, "D": "i32"}, {}),
    Kernel("surplus", vast, FINE, {"D": 512, "E": 1}),
    Kernel("kind", vast, {"x": "*fp17", "y": "*fp32"}, {"D": 512}),
    Kernel("pointer", vast, FINE, {"D": 512}, aligned=frozenset({"x"})),
)
"""

CRASHES = """
import multiprocessing
import os

import triton

from matchcut.kernels.gpu.spec import Kernel

if multiprocessing.parent_process() is not None:
    os.abort()


@triton.jit
def crash(x):
    pass


KERNELS = (Kernel("crash", crash, {"x": "*fp32"}, {}),)
"""


def compiler(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command in a folder, whose modules it can import; by default for sm_80 and sm_90 into its `out`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TRITON")}
    given = {**kept, "PYTHONPATH": str(folder), **environment}
    targets = () if "--targets" in arguments else ("--targets", "80,90,ptx80")
    command = [sys.executable, "-m", "matchcut.kernels.compile", "--out", "out", *targets, *arguments]
    return subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True)


def toys(folder: Path, text: str = TOYS, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    (folder / "toys.py").write_text(text)
    return compiler(folder, "--module", "toys", *arguments, **environment)


def manifest(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((folder / "out" / "manifest.json").read_text())
    return read


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the toys have been compiled."""
    folder = tmp_path_factory.mktemp("built")
    done = toys(folder, TOYS, "--times", "times.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 kernels in 7 files, ")
    assert "5 compiled in " in done.stdout
    assert len((folder / "times.csv").read_text().splitlines()) == 6
    return folder


def test_the_manifest_says_what_a_launcher_needs(built: Path) -> None:
    read = manifest(built)
    assert {name: read[name] for name in ("version", "triton", "ptxas")} == {
        "version": 1, "triton": "3.9.0", "ptxas": "12.9.86",
    }  # fmt: skip
    assert list(read["kernels"]) == ["late", "sums", "toy"]
    toy = read["kernels"]["toy"]
    assert {name: toy[name] for name in toy if name not in ("key", "targets")} == {
        "arguments": [["x", "*fp32"], ["y", "*fp32"], ["n", "i32"], ["one", "fp32"], ["yes", "i1"], ["half", "fp16"],
                      ["unused", "i64"]],
        "aligned": ["n"],
        "constants": {"BLOCK": 256},
        "warps": 4,
        "block": 128,
        "scratch": 2,
    }  # fmt: skip
    assert read["kernels"]["sums"]["block"] == 64
    assert list(toy["targets"]) == ["80", "90", "ptx80"]
    assert list(read["kernels"]["late"]["targets"]) == ["90"]
    ninety = toy["targets"]["90"]
    assert list(ninety) == ["file", "arch", "entry", "shared", "registers", "spills", "stack", "columns", "bytes",
                            "sha256"]  # fmt: skip
    assert (ninety["file"], ninety["arch"], ninety["entry"]) == ("sm_90/toy.cubin", "sm_90a", "toy")
    assert (ninety["shared"], ninety["spills"], ninety["stack"]) == (0, 0, 0)
    assert 8 <= ninety["registers"] <= 64
    assert list(toy["targets"]["ptx80"]) == ["file", "arch", "entry", "shared", "bytes", "sha256"]
    sizes = {made["file"]: made["bytes"] for entry in read["kernels"].values() for made in entry["targets"].values()}
    there = files(built / "out")
    assert {name: len(content) for name, content in there.items() if name != "manifest.json"} == sizes
    for file in ("sm_80/toy.cubin", "sm_90/toy.cubin"):
        assert there[file].startswith(b"\x7fELF")
        assert there[file][8] == 7, "of the ABI of CUDA 13, which no driver of CUDA 12 loads"


def test_it_is_the_same_each_time_and_anywhere(built: Path, tmp_path: Path) -> None:
    # Another folder, another number of processes, and variables that change what Triton does of itself.
    noise = {"TRITON_F32_DEFAULT": "ieee", "PTXAS_OPTIONS": "--opt-level 0", "DISABLE_PTXAS_OPT": "1",
             "TRITON_FORCE_DISABLE_FP_FUSION": "1", "TMPDIR": str(tmp_path)}  # fmt: skip
    done = toys(tmp_path / "elsewhere", TOYS, "--jobs", "1", **noise)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "elsewhere" / "out") == files(built / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"], "it has left something behind"


def test_the_portable_code_is_old_enough_for_drivers_and_new_enough_for_gpus(built: Path, tmp_path: Path) -> None:
    code = built / "out" / "ptx" / "toy.ptx"
    text = code.read_text()
    assert re.findall(r"^\.(?:version|target) .*", text, re.MULTILINE) == [".version 8.0", ".target sm_80"]
    assert ".file" not in text, "the path of the source is in it"
    newer = PTXAS.with_name("ptxas-blackwell")
    subprocess.run([str(newer), "--gpu-name=sm_121", str(code), "-o", str(tmp_path / "x.o")], check=True)


def test_what_has_not_changed_is_not_compiled_again(built: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (built / "out").rglob("*")}
    done = toys(built)
    assert "nothing to compile" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (built / "out").rglob("*")} == before
    assert toys(built, TOYS, "--check").returncode == 0


def test_what_has_changed_is(built: Path, tmp_path: Path) -> None:
    assert toys(tmp_path, TOYS, "--targets", "90").returncode == 0
    before = files(tmp_path / "out")
    assert before.keys() == {"manifest.json", "sm_90/toy.cubin", "sm_90/sums.cubin", "sm_90/late.cubin"}
    helper = TOYS.replace("value * 2", "value * 3")
    check = toys(tmp_path, helper, "--check", "--targets", "90")
    assert (check.returncode, check.stderr) == (1, "compile: toy is not compiled as it is now\n")
    assert files(tmp_path / "out") == before
    changed = toys(tmp_path, helper, "--targets", "90")
    assert "1 compiled" in changed.stdout
    different = {name for name, content in files(tmp_path / "out").items() if content != before[name]}
    assert different == {"manifest.json", "sm_90/toy.cubin"}
    (tmp_path / "out" / "sm_90" / "sums.cubin").write_bytes(b"damaged")
    option = helper.replace("warps=2", "warps=8").replace('Kernel("late"', 'Kernel("later"')
    renamed = toys(tmp_path, option, "--targets", "90", "--only", "later")
    assert "2 kernels in 2 files" in renamed.stdout, "what has changed and is not compiled again stays no longer"
    assert files(tmp_path / "out").keys() == {"manifest.json", "sm_90/toy.cubin", "sm_90/later.cubin"}


def test_a_kernel_that_is_wrong_is_named_and_the_others_go_on(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "crashes.py").write_text(CRASHES)
    done = toys(tmp_path, TOYS, "--module", "wrong", "--module", "crashes", "--targets", "86", "--table", "table.csv")
    assert done.returncode == 1
    said = [line for line in done.stderr.splitlines() if line.startswith("compile: ")]
    for start in (
        "compile: argument: D is a constant in the function and an argument in the spec",
        "compile: crash for sm_86: the compiler crashed",
        "compile: kind: x is of type '*fp17'",
        "compile: lacking: the arguments are ['x'] in the spec and ['x', 'y'] in the function",
        "compile: order: the arguments are ['y', 'x'] in the spec",
        "compile: plain: <function plain",
        "compile: pointer: x is said to be aligned and is no integer argument",
        "compile: surplus: the function has no constants ['E']",
        "compile: unknown for sm_86: CompilationError",
        "compile: vast for sm_86: needs 1",
        "compile: table.csv is left as it was",
    ):
        assert [line for line in said if line.startswith(start)], (start, said)
    assert len(said) == 11
    assert "nothing_of_the_kind" in done.stderr
    assert "of shared memory; a block has 101376 at most" in done.stderr
    assert files(tmp_path / "out").keys() == {"manifest.json", "sm_86/toy.cubin", "sm_86/sums.cubin"}
    assert not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ((), {"TRITON_INTERPRET": "1"}, "TRITON_INTERPRET is set"),
        (("--only", "gone"), {}, "there are no kernels ['gone']; there are: late, sums, toy"),
        (("--module", "toys"), {}, "both have a kernel toy: rename one"),
        (("--targets", "80,81"), {}, "81: there are 75, 80, 86"),
        (("--out", "."), {}, "is no folder of compiled kernels"),
    ],
)
def test_a_command_that_is_wrong_is_refused(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    done = toys(tmp_path, TOYS, *arguments, **environment)
    assert done.returncode == 2
    assert said in done.stderr
    assert {path.name for path in tmp_path.iterdir()} <= {"toys.py", "__pycache__"}


PTX = """.visible .entry f(
\t.param .u64 .ptr .global .align 1 f_param_0,
\t.param .u32 f_param_1,
\t.param .align 2 .b8 f_param_2[2],
\t.param .u64 .ptr .global .align 1 f_param_3,
\t.param .u64 .ptr .global .align 1 f_param_4
)
.reqntid 128
{
"""
SPEC = Kernel("f", print, {"x": "*fp32", "n": "i32", "half": "bf16"}, {})


def test_parameters_are_those_declared() -> None:
    agree(SPEC, "f", PTX)


@pytest.mark.parametrize(
    ("kernel", "ptx", "said"),
    [
        (replace(SPEC, arguments={"x": "*fp32", "n": "i64", "half": "bf16"}), PTX, "are not the declared arguments"),
        (replace(SPEC, arguments={"x": "i64", "n": "i32", "half": "bf16"}), PTX, "are not the declared arguments"),
        (replace(SPEC, arguments={"x": "*fp32", "half": "bf16"}), PTX, "are not the declared arguments"),
        (SPEC, PTX.replace("\t.param .u32 f_param_1,\n", ""), "are not the declared arguments"),
        (SPEC, PTX.replace("[2]", ""), "are not the declared arguments"),
        (SPEC, PTX.replace(".param .u32", ".parameter"), "in an unknown way"),
        (SPEC, PTX.replace(" f(", " g("), "no entry f"),
        (replace(SPEC, warps=8), PTX, "blocks are of 128 threads"),
    ],
)
def test_parameters_that_are_others_are_a_fault(kernel: Kernel, ptx: str, said: str) -> None:
    with pytest.raises(Fault, match=said):
        agree(kernel, "f", ptx)


def test_what_the_assembler_says_is_understood() -> None:
    log = (
        "    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 24 registers, used 0 barriers, 408 bytes cmem[0]\n"
    )
    assert usage(log) == (24, 16, 8)
    with pytest.raises(Fault, match="does not say"):
        usage("ptxas info    : something new")


def test_a_source_that_is_edited_meanwhile_is_not_taken_for_the_other(tmp_path: Path) -> None:
    # The processes that compile read something else than the one that decided what to compile.
    changing = "512 if multiprocessing.parent_process() is None else 256"
    text = "import multiprocessing\n" + TOYS.replace("512", changing)
    done = toys(tmp_path, text, "--only", "sums")
    assert done.returncode == 1
    assert done.stderr.count("the source was edited while it was compiled: run it again") == 2
    assert files(tmp_path / "out").keys() == {"manifest.json"}
