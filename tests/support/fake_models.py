"""Models made of a line of NumPy each, and a repository of them, for the tests of what serves models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from matchcut.server.errors import EngineFailed, InvalidInput, NotFound, Unavailable
from matchcut.server.feed import Caller
from matchcut.server.serving import Answer, IndexEntry, Model, ModelState, SequenceStep, Statistics
from matchcut.server.serving.checks import check_inputs, check_step, check_wanted
from matchcut.server.serving.tally import Tally
from matchcut.server.tensors import DTYPES, Tensor, Tensors, TensorSpec

__all__ = ["FakeModel", "FakeRepository", "repository"]

Function = Callable[[Tensors], dict[str, Tensor]]


class FakeModel:
    """A model that calls a function. See Model.

    runs: how often it did. left: the owners that left. blocked: while it is cleared, requests wait in infer() until it
    is set or nobody waits for them any more. entered: how many requests came in.
    """

    def __init__(
        self,
        name: str,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        function: Function,
        *,
        version: str = "1",
        max_batch: int = 8,
        stateful: bool = False,
        labels: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.name, self.version = name, version
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.max_batch, self.stateful = max_batch, stateful
        self.platform, self.variant = "numpy_function", "numpy"
        self.labels: Mapping[str, Sequence[str]] = labels or {}
        self.runs, self.left = 0, list[object]()
        self.entered = threading.Semaphore(0)
        self.blocked = threading.Event()
        self.blocked.set()
        self.states: dict[tuple[object, int | str], Tensor] = {}
        self._function = function
        self._tally = Tally()
        self._lock = threading.Lock()

    def infer(
        self, inputs: Tensors, *, caller: Caller, wanted: Collection[str] = (), step: SequenceStep | None = None
    ) -> Answer:
        """See Model."""
        began = time.perf_counter_ns()
        try:
            rows = check_inputs(self.name, self.inputs, inputs, max_batch=self.max_batch)
            check_wanted(self.name, self.outputs, wanted)
            check_step(self.name, step, stateful=self.stateful, rows=rows)
            self.entered.release()
            while not self.blocked.wait(0.002):
                caller.check()
            caller.check()
            outputs = self._computed(inputs, step)
        except BaseException:
            self._tally.failed(time.perf_counter_ns() - began)
            raise
        taken = time.perf_counter_ns() - began
        answer = Answer({name: outputs[name] for name in wanted or outputs}, rows, 0, 0, taken, 0)
        self._tally.ran(rows, taken)
        self._tally.answered(answer, rows, taken)
        return answer

    brief = False  # see Model
    declared = None

    def at_once(
        self, inputs: Tensors, *, caller: Caller, wanted: Collection[str] = (), step: SequenceStep | None = None
    ) -> Answer | None:
        """See Model; as it is not brief, nobody asks."""
        raise AssertionError("it is not brief")

    def leave(self, owner: object) -> None:
        """See Model."""
        with self._lock:
            self.left.append(owner)
            for key in [key for key in self.states if key[0] == owner]:
                del self.states[key]

    def statistics(self) -> Statistics:
        """See Model."""
        return self._tally.copy()

    def _computed(self, inputs: Tensors, step: SequenceStep | None) -> dict[str, Tensor]:
        with self._lock:
            self.runs += 1
            if step is None:
                return self._function(inputs)
            key = (step.owner, step.sequence_id)
            if not step.start and key not in self.states:
                raise InvalidInput(f"sequence {step.sequence_id!r} must specify the START flag on its first request")
            state = np.zeros(1, np.float32) if step.start else self.states[key]
            outputs = self._function({**inputs, "state": state})
            self.states[key] = outputs.pop("state")
            if step.end:
                del self.states[key]
            return outputs


class FakeRepository:
    """A repository of such models, by name; `broken` cannot be loaded. See Repository."""

    def __init__(self, *models: FakeModel, broken: Collection[str] = ()) -> None:
        self._models = {(model.name, model.version): model for model in models}
        self._loaded = {model.name for model in models}
        self._broken = set(broken)

    def __getitem__(self, name: str) -> FakeModel:
        return next(model for (known, _), model in self._models.items() if known == name)

    def model(self, name: str, version: str = "") -> Model:
        """See Repository; the default is the highest version."""
        versions = sorted(known for model, known in self._models if model == name)
        if name in self._broken and not versions:
            raise Unavailable(f"model {name!r} is not loaded")
        if not versions or version not in ("", *versions):
            raise NotFound(f"no model {name!r} {version}")
        if name not in self._loaded:
            raise Unavailable(f"model {name!r} is not loaded; load it first")
        return self._models[name, version or versions[-1]]

    def at_hand(self, name: str, version: str = "") -> Model | None:
        """See Repository."""
        try:
            return self.model(name, version)
        except (NotFound, Unavailable):
            return None

    def index(self) -> list[IndexEntry]:
        """See Repository."""
        there = [
            IndexEntry(name, version, ModelState.READY)
            if name in self._loaded
            else IndexEntry(name, version, ModelState.UNAVAILABLE, "unloaded")
            for name, version in self._models
        ]
        return sorted(
            there + [IndexEntry(name, "1", ModelState.UNAVAILABLE, "it is broken") for name in self._broken],
            key=lambda entry: (entry.name, entry.version),
        )

    def versions(self, name: str) -> list[str]:
        """See Repository."""
        self.model(name)
        return sorted(version for known, version in self._models if known == name)

    def load(self, name: str) -> None:
        """See Repository."""
        if name in self._broken:
            raise EngineFailed(f"model {name!r} cannot be loaded: it is broken; put a whole file into its folder")
        if not any(known == name for known, _ in self._models):
            raise NotFound(f"there is no model {name!r}")
        self._loaded.add(name)

    def unload(self, name: str) -> None:
        """See Repository."""
        if not any(known == name for known, _ in self._models):
            raise NotFound(f"there is no model {name!r}")
        self._loaded.discard(name)


def repository() -> FakeRepository:
    """One model of each kind.

    echo_<type>: any two sizes, given back. double: rows of 4, doubled. add_sub: two inputs, two outputs. words: BYTES
    in capitals. scores: as echo, with labels. total: stateful, the sum of all since the start. broken: not loaded.
    """
    spec = TensorSpec
    echoes = [
        FakeModel(
            f"echo_{dtype}",
            [spec("in", dtype, (-1, -1))],
            [spec("out", dtype, (-1, -1))],
            lambda inputs: {"out": inputs["in"]},
            max_batch=0,
        )
        for dtype in DTYPES
    ]
    return FakeRepository(
        *echoes,
        FakeModel(
            "double",
            [spec("x", "FP32", (-1, 4))],
            [spec("y", "FP32", (-1, 4))],
            lambda inputs: {"y": inputs["x"] * 2},
        ),
        FakeModel(
            "add_sub",
            [spec("a", "INT32", (-1, 3)), spec("b", "INT32", (-1, 3))],
            [spec("sum", "INT32", (-1, 3)), spec("difference", "INT32", (-1, 3))],
            lambda inputs: {"sum": inputs["a"] + inputs["b"], "difference": inputs["a"] - inputs["b"]},
        ),
        FakeModel(
            "words",
            [spec("text", "BYTES", (-1, 1))],
            [spec("capitals", "BYTES", (-1, 1))],
            lambda inputs: {"capitals": np.asarray(np.frompyfunc(bytes.upper, 1, 1)(inputs["text"]), np.object_)},
        ),
        FakeModel(
            "scores",
            [spec("in", "FP32", (-1, 3))],
            [spec("out", "FP32", (-1, 3))],
            lambda inputs: {"out": inputs["in"]},
            labels={"out": ("cat", "dog", "")},
        ),
        FakeModel(
            "total",
            [spec("value", "FP32", (-1, 1))],
            [spec("total", "FP32", (-1, 1))],
            lambda inputs: {
                "total": (inputs["state"] + inputs["value"]).astype(np.float32),
                "state": (inputs["state"] + inputs["value"][:, 0]).astype(np.float32),
            },
            max_batch=1,
            stateful=True,
        ),
        broken=["broken"],
    )
