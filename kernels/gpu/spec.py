"""What has to be said of a Triton kernel to compile it ahead of time, and to launch it where Triton is not.

The launch ABI of Triton 3.9: the arguments that are not constants, in order, then two pointers to scratch memory that
these kernels do not use (0); a block of 32 * warps threads; dynamic shared memory as the compiler says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Constant = int | float | bool | str | None


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """One compiled function: Triton source with its constants filled in.

    name: unique among all; what a launcher asks for. function: decorated by triton.jit. arguments: those that are not
    constants, in the order of the signature, with their types as Triton writes them ("*fp32", "*u8", "*i64", "i32",
    "i64", "fp32"). Pointers are always aligned to 16 bytes, which is what the launcher's buffers are. constants: the
    others (tl.constexpr). aligned: integer arguments that are always multiples of 16. warps, stages: as Triton has
    them. fusion: whether a product and a sum may be rounded once. oldest, newest: compute capabilities that it is
    compiled for, such as 80 for bfloat16; the latter for what one generation does better otherwise.
    """

    name: str
    function: Callable[..., Any]
    arguments: Mapping[str, str]
    constants: Mapping[str, Constant]
    aligned: frozenset[str] = field(default_factory=frozenset)
    warps: int = 4
    stages: int = 3
    fusion: bool = True
    oldest: int = 75
    newest: int = 999

    def fits(self, capability: int) -> bool:
        """Whether it is compiled for that compute capability."""
        return self.oldest <= capability <= self.newest
