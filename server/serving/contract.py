"""What a served model and a repository of them are, for those who call them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from matchcut.server.batcher import Answer
from matchcut.server.feed import Caller
from matchcut.server.serving.declared import Declared
from matchcut.server.tensors import Tensors, TensorSpec

__all__ = ["Answer", "Durations", "IndexEntry", "Model", "ModelState", "Repository", "SequenceStep", "Statistics"]


class ModelState(Enum):
    """Of one version; the names are the open inference protocol's."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """Which sequence a request to a stateful model belongs to.

    sequence_id: a number that is not 0, or text that is not empty, chosen by the caller. owner: sequences of different
    owners never meet; a lost stream ends all of its own. start: a fresh state. end: the state is freed afterwards.
    """

    sequence_id: int | str
    owner: Hashable
    start: bool = False
    end: bool = False


@dataclass(slots=True)
class Durations:
    """How often something took place, and how long it took together."""

    count: int = 0
    total_ns: int = 0


@dataclass(slots=True)
class Statistics:
    """Of one version since it was loaded; a copy, which no longer changes.

    inferences: rows that were asked for and answered. executions: runs of the engine. batches: by batch size, how many
    runs and how long they took. success, queue, input, infer and output have equal counts: requests that were answered.
    """

    last_inference_ms: int = 0
    inferences: int = 0
    executions: int = 0
    success: Durations = field(default_factory=Durations)
    failure: Durations = field(default_factory=Durations)
    queue: Durations = field(default_factory=Durations)
    input: Durations = field(default_factory=Durations)
    infer: Durations = field(default_factory=Durations)
    output: Durations = field(default_factory=Durations)
    batches: dict[int, Durations] = field(default_factory=dict)


class Model(Protocol):
    """A loaded version of a model. Safe to be used by several threads at once.

    max_batch: most rows of one request, which is also what one run takes at most; 0: the first size counts no rows.
    platform: in the words of the open inference protocol, such as "onnxruntime_onnx". variant: what runs it.
    labels: by output, class names; those that have none are absent.
    declared: what its config.pbtxt says; None where it has none.
    brief: whether it is worth trying at_once() at present.
    """

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...
    @property
    def max_batch(self) -> int: ...
    @property
    def stateful(self) -> bool: ...
    @property
    def platform(self) -> str: ...
    @property
    def variant(self) -> str: ...
    @property
    def labels(self) -> Mapping[str, Sequence[str]]: ...
    @property
    def declared(self) -> Declared | None: ...
    @property
    def brief(self) -> bool: ...

    def infer(
        self, inputs: Tensors, *, caller: Caller, wanted: Collection[str] = (), step: SequenceStep | None = None
    ) -> Answer:
        """Runs the model; blocks the thread until the answer is there.

        Args:
            inputs: all of them, by name, of the types and shapes that `inputs` says.
            caller: who waits; asked before the work is done.
            wanted: names of outputs; all where empty.
            step: for a stateful model, which has to have one.

        Raises:
            InvalidInput: a name, type or shape is wrong, or the step; the field names the input.
            Overloaded: too much waits already, or the deadline cannot be met.
            Cancelled, DeadlineExceeded: nobody waits any longer; nothing was computed.
            EngineFailed: the run failed.
        """
        ...

    def at_once(
        self, inputs: Tensors, *, caller: Caller, wanted: Collection[str] = (), step: SequenceStep | None = None
    ) -> Answer | None:
        """As infer(), for an event loop: never waits, and makes no run that takes longer than to ask a thread for it.

        None, and nothing was done, where that cannot be: infer() is to be asked then, in a thread.

        Args:
            inputs, wanted, step: what infer() would find right; they are not checked again.

        Raises:
            InvalidInput: the sequence has not begun, or has ended.
            Cancelled, DeadlineExceeded, EngineFailed: as infer().
        """
        ...

    def leave(self, owner: Hashable) -> None:
        """Frees the state of all sequences of this owner at once. Unknown owners have none."""
        ...

    def statistics(self) -> Statistics:
        """What happened since it was loaded."""
        ...


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A version that the repository knows of.

    version: "" where a model has none. reason: why it is not READY, or why what should replace a READY one cannot.
    """

    name: str
    version: str
    state: ModelState
    reason: str = ""


class Repository(Protocol):
    """The models that are there, and those that are loaded. Safe to be used by several threads at once."""

    def at_hand(self, name: str, version: str = "") -> Model | None:
        """What model() would give, if it can be had without waiting for anything; None otherwise, whatever the reason.

        For an event loop.
        """
        ...

    def model(self, name: str, version: str = "") -> Model:
        """A version that is READY; the default one where none is named.

        Raises:
            NotFound: there is no such model or version.
            Unavailable: it is there, but not loaded.
        """
        ...

    def index(self) -> list[IndexEntry]:
        """Every version that is there, by name, then by number."""
        ...

    def versions(self, name: str) -> list[str]:
        """The versions of a model that are READY.

        Raises:
            NotFound: there is no such model.
        """
        ...

    def load(self, name: str) -> None:
        """Loads what is new in a model's folder, or loads it again where it changed; takes as long as that takes.

        A version that cannot be loaded replaces none that can: those that were READY stay so.

        Raises:
            NotFound: there is no such model.
            EngineFailed: no version could be loaded; the message says why.
        """
        ...

    def unload(self, name: str) -> None:
        """Takes a model out of service; requests under way are answered.

        Raises:
            NotFound: there is no such model.
        """
        ...
