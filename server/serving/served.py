"""A loaded version of a model: checks, its place in the batcher, its sequences, its statistics."""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass

from matchcut.server.batcher import Watcher
from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.feed import Caller
from matchcut.server.models.description import Description
from matchcut.server.serving.checks import check_inputs, check_step, check_wanted
from matchcut.server.serving.contract import Answer, SequenceStep, Statistics
from matchcut.server.serving.controls import filled
from matchcut.server.serving.declared import Declared
from matchcut.server.serving.fitting import resized
from matchcut.server.serving.plan import plan
from matchcut.server.serving.runner import Runner
from matchcut.server.serving.sequences import Retired, Sequences
from matchcut.server.tensors import Tensor, Tensors

__all__ = ["Limits", "Served"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What holds for every model of a server.

    threads: of one run, where the model does not say; 0 takes all cores. queue: rows that may wait for a model at most.
    sequences: that a stateful model keeps at most. watcher: is told what the batchers do.
    """

    threads: int = 0
    queue: int = 256
    sequences: int = 1024
    watcher: Watcher | None = None


class Served:
    """A contract.Model that runs a graph. Safe to be used by several threads at once.

    It serves for as long as anybody holds it, also when another version has taken its place in the repository; only
    then its `runner` is to be closed.

    Args:
        engine: becomes the model's own; closed where this raises.
        declared: what a config.pbtxt says besides.
        begins: with what sequences begin, as raw elements by input of a state; zeros where nothing is said.

    Raises:
        EngineFailed: what is said does not fit to the graph, or the first run failed.
    """

    def __init__(
        self,
        engine: GraphEngine,
        description: Description,
        *,
        name: str,
        version: str,
        limits: Limits,
        declared: Declared | None = None,
        begins: Mapping[str, bytes] | None = None,
    ) -> None:
        try:
            self._plan = plan(engine.inputs, engine.outputs, description, declared)
            self.declared = declared
            self.name, self.version = name, version
            self.platform, self.variant = engine.platform, engine.variant
            self.runner = Runner(
                engine,
                label=f"{name}/{version}",
                max_batch=self._plan.max_batch,
                specs=self._plan.whole,
                queue=(declared and declared.queue) or limits.queue,
                workers=description.instances,
                watcher=limits.watcher,
            )
            self.sequences = Sequences(
                self._plan.states,
                model=name,
                most=limits.sequences,
                idle=description.idle_timeout,
                rows=self._plan.max_batch > 0,
                begins=begins,
            )
            self.runner.warm_up()
        except BaseException:
            engine.close()
            raise
        self.inputs, self.outputs, self.labels = self._plan.inputs, self._plan.outputs, self._plan.labels
        self.max_batch, self.stateful = self._plan.max_batch, self._plan.sequential
        self._all = tuple(spec.name for spec in self.outputs)
        self._elders: tuple[Served, ...] = ()
        self._heir: Served | None = None

    def infer(
        self, inputs: Tensors, *, caller: Caller, wanted: Collection[str] = (), step: SequenceStep | None = None
    ) -> Answer:
        """See Model. A sequence that began on a model before or after this one goes on there."""
        place = self if step is None else self._place_of(step)
        if place is self:
            try:
                return self._infer(inputs, caller, wanted, step)
            except Retired:
                if self._heir is None:
                    raise
                place = self._heir
        return place.infer(inputs, caller=caller, wanted=wanted, step=step)

    @property
    def brief(self) -> bool:
        """See Model."""
        return self.runner.brief

    def at_once(
        self, inputs: Tensors, *, caller: Caller, wanted: Collection[str] = (), step: SequenceStep | None = None
    ) -> Answer | None:
        """See Model. Where sequences may be on another model, it is left to infer() to find them."""
        if not self.brief or self._elders or self._heir is not None:
            return None
        if self.max_batch and any(len(value) != 1 for value in inputs.values()):
            return None
        began = time.perf_counter_ns()
        try:
            caller.check()
            answer = self._at_once(self._shaped(inputs, 0), caller, step)
        except Exception:
            self.runner.tally.failed(time.perf_counter_ns() - began)
            raise
        return None if answer is None else self._told(answer, 1, wanted, began)

    def leave(self, owner: Hashable) -> None:
        """See Model."""
        for each in (self, *self._elders):
            each.sequences.leave(owner)
        if self._heir is not None:
            self._heir.leave(owner)

    def statistics(self) -> Statistics:
        """See Model."""
        return self.runner.tally.copy()

    def follow(self, elders: Collection[Served]) -> None:
        """Sequences that began on these go on there, for as long as they last.

        To be called before this model is asked in their stead.
        """
        known = {id(each): each for elder in elders for each in (*elder._elders, elder)}
        known |= {id(each): each for each in self._elders}
        self._elders = tuple(each for each in known.values() if each.stateful and each is not self)

    def retire(self, heir: Served | None) -> None:
        """Begins no sequence any more: the heir does. Without an heir those that there are end now, too."""
        self._heir = heir if heir is not None and heir.stateful else None
        self.sequences.retire()
        if self._heir is None:
            for each in (self, *self._elders):
                each.sequences.end()
            self._elders = ()

    def sweep(self) -> None:
        """Forgets idle sequences, and the models before this one that have none left."""
        self.sequences.sweep()
        for elder in self._elders:
            elder.sequences.sweep()
        if any(elder.sequences.over for elder in self._elders):
            self._elders = tuple(elder for elder in self._elders if not elder.sequences.over)

    def _infer(self, inputs: Tensors, caller: Caller, wanted: Collection[str], step: SequenceStep | None) -> Answer:
        began = time.perf_counter_ns()
        try:
            caller.check()
            rows = check_inputs(self.name, self.inputs, inputs, max_batch=self.max_batch)
            inputs = self._shaped(inputs, 0)
            check_wanted(self.name, self.outputs, wanted)
            check_step(self.name, step, stateful=self.stateful, rows=rows)
            answer = self.runner.submit(inputs, caller=caller) if step is None else self._step(inputs, caller, step)
        except Retired:
            raise
        except Exception:
            self.runner.tally.failed(time.perf_counter_ns() - began)
            raise
        return self._told(answer, rows, wanted, began)

    def _told(self, answer: Answer, rows: int, wanted: Collection[str], began: int) -> Answer:
        """Counts an answer; the same with what is wanted of it."""
        self.runner.tally.answered(answer, rows, time.perf_counter_ns() - began)
        chosen = [name for name in self._all if name in wanted] if wanted else self._all
        outputs = self._shaped({name: answer.outputs[name] for name in chosen}, 1)
        return Answer(outputs, answer.batch, answer.queue_ns, answer.input_ns, answer.infer_ns, answer.output_ns)

    def _shaped(self, tensors: Tensors, way: int) -> dict[str, Tensor]:
        """The same elements in the sizes of a run (way 0), or of callers (1)."""
        sizes = self._plan.reshaped[way]
        if not sizes:
            return dict(tensors)
        rows = 1 if self.max_batch else 0
        return {
            name: value.reshape((*value.shape[:rows], *resized(value.shape[rows:], *sizes[name])))
            if name in sizes
            else value
            for name, value in tensors.items()
        }

    def _step(self, inputs: Tensors, caller: Caller, step: SequenceStep) -> Answer:
        """One step of a sequence; the batcher gathers its state with those of other sequences, and gives it back."""
        told = filled(self._plan.controls, step)
        with self.sequences.turn(step, caller) as turn:
            answer = self.runner.submit({**inputs, **told, **turn.state}, caller=caller, client=step.owner)
            turn.after = {name: answer.outputs[source] for name, source in self._plan.fed_by.items()}
        if step.start:  # what an earlier model knows of this sequence is of another life of it
            for elder in self._elders:
                elder.sequences.forget(step)
        return answer

    def _at_once(self, inputs: Tensors, caller: Caller, step: SequenceStep | None) -> Answer | None:
        """The same without waiting; None where that cannot be."""
        if step is None:
            return self.runner.at_once(inputs, caller=caller)
        told = filled(self._plan.controls, step)
        with self.sequences.turn_at_once(step) as turn:
            answer = None if turn is None else self.runner.at_once({**inputs, **told, **turn.state}, caller=caller)
            if turn is not None and answer is not None:
                turn.after = {name: answer.outputs[source] for name, source in self._plan.fed_by.items()}
        return answer

    def _place_of(self, step: SequenceStep) -> Served:
        """The model on which the sequence is, or should be."""
        if step.start or not (self._elders or self._heir) or self.sequences.knows(step):
            return self
        elder = next((each for each in self._elders if each.sequences.knows(step)), None)
        return elder or self._heir or self
