"""One kernel for one GPU: Triton's source to machine code, checked against what its spec says.

The only module outside of kernels/gpu that knows Triton.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import io
import json
import os
import pkgutil
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

import matchcut.kernels.gpu
from matchcut.kernels.compile.targets import FALLBACK, GPUS, Gpu
from matchcut.kernels.gpu.spec import Kernel

TRITON: str = triton.__version__
PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
SCRATCH = 2  # pointers to scratch memory that Triton adds to the arguments
BYTES = {
    **dict.fromkeys(("i1", "i8", "u8"), 1),
    **dict.fromkeys(("i16", "u16", "fp16", "bf16"), 2),
    **dict.fromkeys(("i32", "u32", "fp32"), 4),
    **dict.fromkeys(("i64", "u64", "fp64"), 8),
}


class Fault(Exception):
    """A kernel that does not compile, or not to what its spec says."""


@dataclass(frozen=True, slots=True)
class Made:
    """What came of one kernel for one target. spills: bytes written and read for want of registers."""

    code: bytes
    entry: str
    shared: int
    registers: int
    spills: int
    stack: int
    columns: int


def find(modules: Iterable[str] = ()) -> dict[str, tuple[str, Kernel]]:
    """All kernels by name, each with its module: of these modules, or of kernels/gpu.

    Raises:
        Fault: two have one name, a name is no file name, or Triton is set to interpret.
    """
    if knobs.runtime.interpret:
        raise Fault("TRITON_INTERPRET is set, and what Triton interprets it does not compile: unset it")
    package = matchcut.kernels.gpu
    names = modules or [f"{package.__name__}.{found.name}" for found in pkgutil.iter_modules(package.__path__)]
    kernels: dict[str, tuple[str, Kernel]] = {}
    for module in names:
        for kernel in getattr(importlib.import_module(module), "KERNELS", ()):
            if kernel.name in kernels:
                raise Fault(f"{module} and {kernels[kernel.name][0]} both have a kernel {kernel.name}: rename one")
            if not re.fullmatch(r"[a-z][a-z0-9_]*", kernel.name):
                raise Fault(f"{module}: the kernel's name {kernel.name!r} is not in lower case, digits and _")
            kernels[kernel.name] = module, kernel
    return dict(sorted(kernels.items()))


def ptxas_version() -> str:
    """Such as "12.9.86"."""
    said = subprocess.run([str(PTXAS), "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\bV(\d+\.\d+\.\d+)", said)
    return found[1] if found else said.strip()


def key(kernel: Kernel) -> str:
    """Equal for equal code: of the function and those that it calls, the spec, and what compiles it.

    Raises:
        Fault: see `check`; or it refers to something that Triton does not know.
    """
    check(kernel)
    try:
        source = kernel.function.cache_key  # type: ignore[attr-defined]
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}") from error
    spec = [list(kernel.arguments.items()), sorted(kernel.constants.items()), sorted(kernel.aligned)]
    options = [kernel.warps, kernel.stages, kernel.fusion, kernel.oldest, kernel.newest]
    how = [hashlib.sha256(Path(__file__).read_bytes()).hexdigest(), [(gpu.arch, gpu.ptx) for gpu in GPUS.values()]]
    text = json.dumps([TRITON, ptxas_version(), how, source, spec, options])
    return hashlib.sha256(text.encode()).hexdigest()


def check(kernel: Kernel) -> None:
    """Whether the spec fits the function.

    Raises:
        Fault: it does not; the message says where.
    """
    function = kernel.function
    if not isinstance(function, JITFunction):
        raise Fault(f"{function!r} is not decorated by triton.jit")
    wanted = [name for name in function.arg_names if name not in kernel.constants]
    if list(kernel.arguments) != wanted:
        raise Fault(f"the arguments are {list(kernel.arguments)} in the spec and {wanted} in the function")
    if unknown := sorted(set(kernel.constants) - set(function.arg_names)):
        raise Fault(f"the function has no constants {unknown}")
    for parameter in function.params:
        if parameter.is_constexpr and parameter.name not in kernel.constants:
            raise Fault(f"{parameter.name} is a constant in the function and an argument in the spec")
    for name, kind in kernel.arguments.items():
        if kind.removeprefix("*") not in BYTES:
            raise Fault(f"{name} is of type {kind!r}, which is none of {', '.join(BYTES)}, or a pointer to one")
    for name in sorted(kernel.aligned):
        if not kernel.arguments.get(name, "").startswith(("i", "u")):
            raise Fault(f"{name} is said to be aligned and is no integer argument")


def make(module: str, name: str, expected: str, gpu: Gpu, cache: str) -> tuple[dict[str, Made], float]:
    """Compiles one kernel, in a process of its own as far as the caller is concerned: it sets Triton's options.

    Args:
        module: where the kernel's spec is.
        expected: the kernel's key.
        gpu: to compile for; of sm_80 there is the portable code, too.
        cache: a folder for what Triton writes.

    Returns:
        {target: what came of it}, and the seconds that it took.

    Raises:
        Fault: with what the compiler says.
    """
    began = time.monotonic()
    _settle(cache)
    _, kernel = find([module])[name]
    if key(kernel) != expected:
        raise Fault("the source was edited while it was compiled: run it again")
    log, said = io.StringIO(), what_it_said(cache, name, gpu)
    try:
        with contextlib.redirect_stdout(log), _errors_to(said):
            compiled = triton.compile(_source(kernel), target=GPUTarget("cuda", gpu.capability, 32), options={
                "num_warps": kernel.warps,
                "num_stages": kernel.stages,
                "enable_fp_fusion": kernel.fusion,
                "ptx_version": gpu.ptx,
                "ptx_options": "",  # the default is that of the environment
                "debug": False,
            })  # fmt: skip
    except Exception as error:
        raise Fault(f"{type(error).__name__}: {error}{complaint(said)}") from error
    about, ptx = compiled.metadata, compiled.asm["ptx"]
    _launchable(kernel, gpu, about)
    agree(kernel, about.name, ptx)
    made = Made(compiled.asm["cubin"], about.name, about.shared, *usage(log.getvalue()), about.tmem_size)
    if made.shared > gpu.shared - gpu.reserved:
        raise Fault(f"needs {made.shared} bytes of shared memory; a block has {gpu.shared - gpu.reserved} at most")
    both = {str(gpu.capability): made}
    if gpu.capability == 80:
        both[FALLBACK] = Made(ptx.encode(), made.entry, made.shared, made.registers, made.spills, made.stack, 0)
    return both, time.monotonic() - began


def what_it_said(cache: str, name: str, gpu: Gpu) -> Path:
    """The file of what the compiler writes to its standard error while it compiles that kernel."""
    return Path(cache) / f"{name}-{gpu.capability}.txt"


def complaint(said: Path) -> str:
    """The lines that matter of what the compiler said, which can be the whole kernel in several languages."""
    if not said.is_file():
        return ""
    lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
    telling = [line for line in lines if re.search(r"error:|ERROR|Assertion|fatal", line)] or lines[-5:]
    return "".join(f"\n  {line[:500]}" for line in telling[:5])


@contextlib.contextmanager
def _errors_to(path: Path) -> Iterator[None]:
    """What is written to standard error, by LLVM too, goes to that file."""
    sys.stderr.flush()
    before = os.dup(2)
    with path.open("wb") as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)


def _settle(cache: str) -> None:
    """Sets all that would otherwise come from the environment and change the code."""
    knobs.cache.dir = cache
    for name in ("disable_line_info", "always_compile"):  # the lines would bring the folder's path into the code
        setattr(knobs.compilation, name, True)
    for name in ("override", "dump_ir", "dump_ir_extract_di_local_variables", "store_binary_only", "enable_asan"):
        setattr(knobs.compilation, name, False)
    knobs.nvidia.dump_ptxas_log = True
    knobs.nvidia.disable_ptxas_opt = False
    knobs.nvidia.ptxas = str(PTXAS)
    knobs.nvidia.ptxas_blackwell = str(PTXAS)  # Triton's own choice from sm_90 on is of CUDA 13.4; see targets.GPUS
    knobs.language.force_disable_fp_fusion = False
    for group, name in ((knobs.compilation, "use_ir_loc"), (knobs.nvidia, "mock_ptx_version"),
                        (knobs.nvidia, "libdevice_path"), (knobs.runtime, "override_arch"),
                        (knobs.language, "fp32_default")):  # fmt: skip
        setattr(group, name, None)


def _source(kernel: Kernel) -> ASTSource:
    """With the types as declared: no argument becomes a constant because it happens to be 1."""
    names = kernel.function.arg_names  # type: ignore[attr-defined]
    signature = {name: kernel.arguments.get(name, "constexpr") for name in names}
    aligned = [place for place, name in enumerate(names) if signature[name].startswith("*") or name in kernel.aligned]
    attributes = {(place,): [["tt.divisibility", 16]] for place in aligned}
    return ASTSource(kernel.function, signature, constexprs=dict(kernel.constants), attrs=attributes)


def _launchable(kernel: Kernel, gpu: Gpu, about: object) -> None:
    """The launcher gives no scratch memory, and starts blocks one by one in the plain way."""
    wanted = {"num_warps": kernel.warps, "num_ctas": 1, "global_scratch_size": 0, "profile_scratch_size": 0,
              "launch_cooperative_grid": False, "launch_pdl": False, "tensordesc_meta": []}  # fmt: skip
    for name, value in wanted.items():
        if getattr(about, name) != value:
            raise Fault(f"{name} is {getattr(about, name)}, and the launcher can only do {value}")


def agree(kernel: Kernel, entry: str, ptx: str) -> None:
    """Whether the compiled parameters are the declared arguments and the scratch pointers, and nothing else.

    Raises:
        Fault: they are not.
    """
    found = re.search(rf"\.visible \.entry {re.escape(entry)}\((.*?)\)\s*\.reqntid (\d+)", ptx, re.DOTALL)
    if not found:
        raise Fault(f"the code has no entry {entry} with a fixed size of block")
    if int(found[2]) != 32 * kernel.warps:
        raise Fault(f"blocks are of {found[2]} threads and not of {kernel.warps} warps")
    there = [_parameter(line) for line in found[1].split(",")]
    pointer = True, 8
    declared = [pointer if kind.startswith("*") else (False, BYTES[kind]) for kind in kernel.arguments.values()]
    if there != declared + [pointer] * SCRATCH:
        said = ", ".join(f"{'pointer' if points else 'value'} of {size}" for points, size in there)
        raise Fault(f"the code takes ({said}), which are not the declared arguments {dict(kernel.arguments)}")


def _parameter(line: str) -> tuple[bool, int]:
    """Whether it is a pointer, and its bytes: `.param .u64 .ptr .global .align 1 f_param_0`."""
    found = re.match(r"\s*\.param (?:\.align \d+ )?\.[a-z](\d+)( \.ptr)?.*?(?:\[(\d+)\])?\s*$", line)
    if not found:
        raise Fault(f"the parameter {line.strip()!r} is written in an unknown way")
    return bool(found[2]), int(found[1]) // 8 * int(found[3] or 1)


def usage(log: str) -> tuple[int, int, int]:
    """Registers a thread, bytes spilled and bytes of stack, as ptxas says them.

    Raises:
        Fault: it says something else.
    """
    registers = re.search(r"Used (\d+) registers", log)
    memory = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    if not registers or not memory:
        raise Fault(f"ptxas does not say what the kernel takes:\n{log}")
    return int(registers[1]), int(memory[2]) + int(memory[3]), int(memory[1])
