"""Where the ops run: one interface, one home for each kind of processor."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from matchcut.kernels.codes import CodedRows, Codes
from matchcut.kernels.cpu import Cpu, cores
from matchcut.kernels.pixels import Yuv420
from matchcut.kernels.pooling import Attention, Mean, Pooling
from matchcut.kernels.preprocess import Layout
from matchcut.kernels.topk import Ranked

if TYPE_CHECKING:
    from matchcut.kernels.cuda.launcher import Context

__all__ = ["GPU_SCANS", "Choice", "Cpu", "Device", "Failure", "NoDevice", "cores", "open_device", "pick"]

GPU_SCANS = ("int8", "bf16", "fp32")  # how a GPU may read rows; all other names are of the CPU
Failure = Literal["lost", "full", "failed"]

_NAME = re.compile(r"auto|cpu|cuda(?::(\d+))?", re.ASCII)
_MEAN = Mean()

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Device(Protocol):
    """A processor that runs the ops; each is documented in its module. Safe to be used by several threads at once.

    name: what `open_device` takes. title: what people call it. variant: which implementation of `preprocess`, `pool`
    and `attend` runs, for the stage times. scan: which one searches rows that are coded. context: the open GPU, for
    whoever else computes on it; None where it is none.

    Arrays come and go in the memory of the host. Where the processor itself fails, a method raises an exception of the
    device's own, and `failure` says what it means; nothing is done elsewhere in its stead.
    """

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    @property
    def variant(self) -> str: ...

    @property
    def scan(self) -> str: ...

    @property
    def context(self) -> Context | None: ...

    def preprocess(
        self,
        frames: NDArray[np.uint8] | Yuv420,
        mean: Sequence[float],
        std: Sequence[float],
        layout: Layout,
        *,
        size: tuple[int, int] | None = None,
        dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    ) -> NDArray[Any]:
        """See preprocess.preprocess.

        A GPU rounds to float32 at each step. What is neither resized nor converted is the reference's to the bit; else
        a number is within 40 * 2**-24 * 255 * 4.1 / std of the true one, and that rounded to `dtype`.
        """
        ...

    def pool(
        self,
        vectors: NDArray[np.float32],
        offsets: Ints,
        *,
        weights: NDArray[np.float32] | None = None,
        mask: Flags | None = None,
        normalise: bool = True,
        kind: Pooling = _MEAN,
    ) -> NDArray[np.float32]:
        """See pool.pool.

        A GPU sums in float32: a number of unit length's vector is within 3e-6 of the reference's. What is smaller than
        2**-126 may count as zero there, and a score, or a difference for MeanStd, beyond float32 is told as infinity.
        """
        ...

    def attend(
        self,
        vectors: NDArray[np.float32],
        offsets: Ints,
        kind: Attention,
        *,
        weights: NDArray[np.float32] | None = None,
        mask: Flags | None = None,
        normalise: bool = True,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """See pool.attend; on a GPU as `pool`, and each share within 1e-5 of itself."""
        ...

    def search(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.float32],
        *,
        groups: Ints,
        k: int,
        eligible: Flags | None = None,
        minimum: float | None = None,
        radius: float | None = None,
        coded: CodedRows | None = None,
        check: Callable[[], None] | None = None,
    ) -> Ranked:
        """See topk.search, which gives the same answer; `variant` of the result says which implementation ranked.

        Args:
            coded: the codes of these very rows, which make it faster.
        """
        ...

    def search_each(
        self,
        queries: NDArray[np.float32],
        rows: NDArray[np.float32],
        *,
        groups: Ints,
        k: int,
        eligible: Flags | None = None,
        excluded: Sequence[Ints] | None = None,
        minimum: float | None = None,
        coded: CodedRows | None = None,
        check: Callable[[], None] | None = None,
    ) -> list[Ranked]:
        """A ranking of its own for each query, which share what is read where that can be; see `search`.

        Args:
            excluded: for each query the groups that it does not want; None: all want all.

        Raises:
            ValueError: as topk.search; not as many lists as queries; on a GPU with coded rows also k above 4096, and
                norms of queries or rows that codes do not bound.
        """
        ...

    def coding(self, rows: NDArray[np.float32], *, check: Callable[[], None] | None = None) -> Codes | None:
        """Codes for rows like these, still empty; None where this device ranks rows as they are.

        Takes seconds where there are many.

        Args:
            rows: (n, dimensions) float32, finite.
            check: called every few hundred milliseconds; what it raises comes through.
        """
        ...

    def copied(self, coded: CodedRows, rows: Ints) -> Codes:
        """The codes of some of the rows, in that order, to be extended apart; see Codes.of."""
        ...

    def prepare(self, rows: NDArray[np.float32], coded: CodedRows) -> None:
        """Brings what a search of these rows needs to where it runs, so that no search has to; may be left out.

        Args:
            rows: (n, dimensions) float32. coded: their codes. Those that were prepared before cost nothing again.
        """
        ...

    def failure(self, error: BaseException) -> Failure | None:
        """What an exception that a method raised says of the processor; None: nothing.

        "lost": nothing works on it any more. "full": this did not fit into its memory, or into that which it shares
        with the host; other work goes on. "failed": it refused something for another reason.
        """
        ...

    def close(self) -> None:
        """Ends threads and gives the processor back; what runs finishes. Closing again does nothing."""
        ...


class NoDevice(ValueError):
    """There is no such device, or it cannot be used here; the message says why, or what there is."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A device, and why it is no GPU.

    why: empty where it is one, or where the CPU was asked for. odd: there is a GPU's driver, so that whoever runs the
    machine may want to know why the GPU is not used.
    """

    device: Device
    why: str = ""
    odd: bool = False


def open_device(name: str = "auto", *, scan: str = "auto", threads: int = 0) -> Device:
    """The device of that name; see `pick`."""
    return pick(name, scan=scan, threads=threads).device


def pick(name: str = "auto", *, scan: str = "auto", threads: int = 0) -> Choice:
    """The device of that name.

    Args:
        name: "cpu"; "cuda" or "cuda:N", a GPU as its driver counts them, from 0; "auto", the first GPU where it and its
            kernels can be used and the scan is not one of the CPU, else the CPU.
        scan: see Cpu; on a GPU one of GPU_SCANS, or "auto", the fastest that it can.
        threads: see Cpu; a GPU takes none.

    Raises:
        NoDevice: there is no such device, or it cannot be used; also where the scan is one of a GPU.
        ValueError: there is no such scan on it; the message says what there is.
    """
    matched = _NAME.fullmatch(name)
    if matched is None:
        raise NoDevice(f"there is no device {name!r}; choose one of 'auto', 'cpu', 'cuda', 'cuda:N'")
    if name == "cpu":
        if scan in GPU_SCANS:
            raise ValueError(f"there is no scan {scan!r} on the CPU; it is one of a GPU")
        return Choice(Cpu(scan=scan, threads=threads))
    if name == "auto" and scan != "auto" and scan not in GPU_SCANS:
        return Choice(Cpu(scan=scan, threads=threads), f"the scan {scan!r} is one of the CPU")
    from matchcut.kernels.cuda.opening import Refused, open_cuda  # only here: most machines have no use for it

    opened = open_cuda(int(matched[1] or 0), scan)
    if not isinstance(opened, Refused):
        return Choice(opened)
    if name != "auto" or scan in GPU_SCANS:
        raise NoDevice(f"no GPU can be used here: {opened.why}")
    return Choice(Cpu(scan=scan, threads=threads), opened.why, opened.odd)
