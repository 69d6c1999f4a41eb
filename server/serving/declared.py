"""What a model's config.pbtxt says, as far as it is honoured: plain records, whoever reads the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

__all__ = ["FILE", "INITIAL", "Control", "Declared", "DeclaredState", "DeclaredTensor", "Reader", "Signal"]

FILE = "config.pbtxt"
INITIAL = "initial_state"  # the folder of first states, as with Triton


class Signal(Enum):
    """What an input can be told of a sequence at each step; CORRID is the sequence's id."""

    START = 0
    READY = 1
    END = 2
    CORRID = 3


@dataclass(frozen=True, slots=True)
class DeclaredTensor:
    """An input or output.

    dtype: a name in tensors.DTYPES; "" where none is said. sizes: of one row, -1 where open; None where none are said.
    reshape: the same elements in the sizes that the graph has; None: it has those of callers, too.
    labels: of an output, the file of its class names beside config.pbtxt; "" where there is none.
    layout: of an input, what callers should know of its sizes: "NCHW", "NHWC" or "".
    """

    name: str
    dtype: str = ""
    sizes: tuple[int, ...] | None = None
    reshape: tuple[int, ...] | None = None
    labels: str = ""
    layout: str = ""

    @property
    def inner(self) -> tuple[int, ...] | None:
        """The sizes of one row in the graph; None where none are said."""
        return self.sizes if self.reshape is None else self.reshape


@dataclass(frozen=True, slots=True)
class DeclaredState:
    """An output that is an input of the sequence's next step; dtype and sizes as in DeclaredTensor.

    file: in the folder INITIAL beside config.pbtxt, the raw elements with which a sequence begins; "": zeros.
    """

    input: str
    output: str
    dtype: str = ""
    sizes: tuple[int, ...] | None = None
    file: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """An input that the server fills. off, on: the values of False and True; a CORRID has neither."""

    input: str
    signal: Signal
    dtype: str
    off: float = 0.0
    on: float = 1.0


@dataclass(frozen=True, slots=True)
class Declared:
    """What config.pbtxt says.

    name: of the model; "" where none is said. file: of the ONNX file; "" where none is said.
    max_batch: most rows of one run; 0: none are counted, or nothing is said.
    keep: how many of the latest versions are served; 0: all. only: the numbers of those that are; None: any.
    sequential: whether requests belong to sequences. idle_timeout: of those, in seconds; 0 where none is said.
    queue: requests that may wait; 0 where none is said.
    delayed: whether it asks to hold requests back for others. ignored: what else it says, by the names of the fields.
    """

    name: str = ""
    file: str = ""
    max_batch: int = 0
    inputs: tuple[DeclaredTensor, ...] = ()
    outputs: tuple[DeclaredTensor, ...] = ()
    keep: int = 1
    only: frozenset[str] | None = None
    sequential: bool = False
    states: tuple[DeclaredState, ...] = ()
    controls: tuple[Control, ...] = ()
    idle_timeout: float = 0.0
    queue: int = 0
    delayed: bool = False
    ignored: tuple[str, ...] = ()


# Reads the bytes of a config.pbtxt; EngineFailed where they are none, or ask for what this server cannot do.
Reader = Callable[[bytes], Declared]
