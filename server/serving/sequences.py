"""The states of a stateful model, one for each sequence: whose they are, whose turn it is, and when they end.

A sequence ends with the step that says so, with its owner, and when it was idle for too long; and where there are as
many as may be, it may have to give way to another one's (see eviction). Who goes on with one that had to is told so.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from matchcut.server.errors import Cancelled, InvalidInput, Overloaded, Unavailable
from matchcut.server.feed import Caller
from matchcut.server.serving.contract import SequenceStep
from matchcut.server.serving.eviction import Number, giving_way, idle_since
from matchcut.server.serving.states import States, first, own, zeros
from matchcut.server.tensors import TensorSpec

__all__ = ["Retired", "Sequences", "Turn"]


class Retired(Unavailable):
    """No sequence begins here any more."""


class Ticket:
    """A place in the line of one who has the turn already, and so is not to be woken."""

    def set(self) -> None:
        """There is nobody who waits."""


@dataclass(slots=True, eq=False)
class Sequence:
    """One sequence.

    state: by input; None before its first step and after its last. line: the steps that are not done, in the order in
    which they came; the first one has the turn. used: when the last of them ended. lost: it was taken away meanwhile.
    """

    state: States | None = None
    line: deque[threading.Event | Ticket] = field(default_factory=deque)
    used: float = 0.0
    lost: bool = False


@dataclass(slots=True)
class Turn:
    """A step of a sequence: `state` goes in, and what comes out is set as `after`; without it nothing changes."""

    state: States
    after: States | None = None


class Sequences:
    """The sequences of one model. Safe to be used by several threads at once.

    A step has the whole sequence for itself; those of one sequence take turns in the order in which they came.

    Args:
        states: of each input that carries a state; its first size counts sequences where `rows`.
        begins: with what a sequence begins, as raw elements, by input; zeros where nothing is said.
        model: the model's name, for messages.
        most: sequences at once; what happens beyond is told in eviction.
        idle: seconds after which a sequence without steps is forgotten.
        rows: whether states of several sequences run together.
        now: what time it is, in seconds.
    """

    def __init__(
        self,
        states: Mapping[str, TensorSpec],
        *,
        model: str,
        most: int,
        idle: float,
        rows: bool,
        begins: Mapping[str, bytes] | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._most = most
        self._idle = idle
        self._now = now
        given = begins or {}
        self._begins = {
            name: first(spec, rows, given[name]) if name in given else zeros(spec, rows)
            for name, spec in states.items()
        }
        self._lock = threading.Lock()
        # Of an owner those last of which a step came or ended last: see eviction.
        self._owners: dict[Hashable, OrderedDict[Number, Sequence]] = {}
        # Those that gave way lately, so that who goes on with one learns why it has ended; the oldest first.
        self._evicted: dict[tuple[Hashable, Number], None] = {}
        self._count = 0
        self._retired = self._ending = False

    def __len__(self) -> int:
        return self._count

    @property
    def over(self) -> bool:
        """Whether there is no sequence and will be none."""
        with self._lock:
            return self._retired and not self._count

    def knows(self, step: SequenceStep) -> bool:
        """Whether this sequence has begun here and not ended."""
        with self._lock:
            return self._find(step) is not None

    @contextmanager
    def turn(self, step: SequenceStep, caller: Caller) -> Iterator[Turn]:
        """Waits for the sequence, and has it until the block ends.

        Where the block raises, or sets no `after`, the state stays as it was and the sequence goes on: the same step
        may be sent again.

        Raises:
            InvalidInput: the sequence has not begun, or has ended; SEQUENCE_EVICTED: it gave way to another one.
            Overloaded: there are as many sequences as may be, and none has to give way.
            Retired: it would begin, but none does any more.
            Cancelled, DeadlineExceeded: nobody waits any longer, or the sequence was taken away.
        """
        sequence, ticket = self._join(step)
        try:
            wait(ticket, caller)
            turn = self._begun(step, sequence)
            yield turn
            self._done(step, sequence, turn)
        finally:
            self._leave_line(step, sequence, ticket)

    @contextmanager
    def turn_at_once(self, step: SequenceStep) -> Iterator[Turn | None]:
        """As turn(), for one who never waits: None where it would have to, and where the sequence begins.

        Raises:
            InvalidInput: the sequence has not begun, or has ended.
        """
        joined = None if step.start else self._join_at_once(step)
        if joined is None:
            yield None
            return
        sequence, ticket = joined
        try:
            turn = self._begun(step, sequence)
            yield turn
            self._done(step, sequence, turn)
        finally:
            self._leave_line(step, sequence, ticket)

    def forget(self, step: SequenceStep) -> None:
        """Ends this sequence, if there is one."""
        with self._lock:
            if self._find(step) is not None:
                self._drop(step.owner, step.sequence_id)

    def retire(self) -> None:
        """Lets no sequence begin any more; those that there are go on."""
        with self._lock:
            self._retired = True

    def end(self) -> None:
        """Lets no sequence begin any more, and ends all: those of which steps are under way with the last of them."""
        with self._lock:
            self._retired = self._ending = True
            self._drop_all(idle_since(self._owners, float("inf")))

    def leave(self, owner: Hashable) -> None:
        """Forgets all sequences of an owner; steps that wait for their turn are cancelled."""
        with self._lock:
            for sequence in self._owners.pop(owner, {}).values():
                self._lose(sequence)
            if self._evicted:
                self._evicted = {key: None for key in self._evicted if key[0] != owner}

    def sweep(self) -> int:
        """Forgets the sequences that were idle for too long; gives how many those were."""
        with self._lock:
            return self._drop_expired()

    def _join(self, step: SequenceStep) -> tuple[Sequence, threading.Event]:
        """Gets in line for a sequence, which is made where it begins."""
        ticket = threading.Event()
        with self._lock:
            sequence = self._find(step)
            if sequence is None:
                if not step.start:
                    raise self._unknown(step)
                if self._retired:
                    raise Retired(f"model {self._model!r} is being replaced or unloaded; ask for it again")
                if self._count >= self._most and not self._drop_expired():
                    self._evict_for(step.owner)
                self._evicted.pop((step.owner, step.sequence_id), None)
                sequence = Sequence()
                self._owners.setdefault(step.owner, OrderedDict())[step.sequence_id] = sequence
                self._count += 1
            self._queue(step, sequence, ticket)
            if len(sequence.line) == 1:
                ticket.set()
        return sequence, ticket

    def _join_at_once(self, step: SequenceStep) -> tuple[Sequence, Ticket] | None:
        """Has the turn of a sequence that has begun; None where that cannot be known or had without waiting."""
        if not self._lock.acquire(blocking=False):
            return None
        try:
            sequence = self._find(step)
            if sequence is None:
                raise self._unknown(step)
            if sequence.line:
                return None
            ticket = Ticket()
            self._queue(step, sequence, ticket)
            return sequence, ticket
        finally:
            self._lock.release()

    def _queue(self, step: SequenceStep, sequence: Sequence, ticket: threading.Event | Ticket) -> None:
        """Puts a step in line."""
        sequence.line.append(ticket)
        self._owners[step.owner].move_to_end(step.sequence_id)

    def _begun(self, step: SequenceStep, sequence: Sequence) -> Turn:
        """The turn that a step has come to."""
        with self._lock:
            if sequence.lost:
                raise Cancelled(f"sequence {step.sequence_id!r} of model {self._model!r} was ended by its owner")
            if not step.start and sequence.state is None:
                raise self._unknown(step)
            state = self._begins if step.start or sequence.state is None else sequence.state
        return Turn(dict(state))

    def _done(self, step: SequenceStep, sequence: Sequence, turn: Turn) -> None:
        """Keeps the state after a step."""
        if turn.after is not None:
            after = None if step.end else own(turn.after)
            with self._lock:
                sequence.state = None if sequence.lost else after

    def _evict_for(self, newcomer: Hashable) -> None:
        """Ends a sequence so that the newcomer can begin one; Overloaded where none has to give way."""
        found = giving_way(self._owners, newcomer, most=self._most, now=self._now())
        if found is None:
            raise Overloaded(
                f"model {self._model!r} has {self._most} sequences, as many as it may have; end one, or retry later",
                reason="SEQUENCES_FULL",
            )
        self._drop(*found)
        self._evicted[found] = None
        if len(self._evicted) > self._most:
            del self._evicted[next(iter(self._evicted))]

    def _leave_line(self, step: SequenceStep, sequence: Sequence, ticket: threading.Event | Ticket) -> None:
        """Gives the turn to the next in line; a sequence that has no state and no steps ends."""
        with self._lock:
            had_turn = sequence.line[0] is ticket
            sequence.line.remove(ticket)
            sequence.used = self._now()
            if not sequence.lost:
                self._owners[step.owner].move_to_end(step.sequence_id)
            if sequence.line:
                if had_turn:
                    sequence.line[0].set()
            elif not sequence.lost and (sequence.state is None or self._ending):
                self._drop(step.owner, step.sequence_id)

    def _find(self, step: SequenceStep) -> Sequence | None:
        """A sequence that is there and was not idle for too long."""
        of_owner = self._owners.get(step.owner)
        sequence = None if of_owner is None else of_owner.get(step.sequence_id)
        if sequence is not None and self._expired(sequence):
            self._drop(step.owner, step.sequence_id)
            return None
        return sequence

    def _drop_expired(self) -> int:
        return self._drop_all(idle_since(self._owners, self._now() - self._idle))

    def _drop_all(self, found: list[tuple[Hashable, Number]]) -> int:
        for owner, number in found:
            self._drop(owner, number)
        return len(found)

    def _expired(self, sequence: Sequence) -> bool:
        return not sequence.line and self._now() - sequence.used > self._idle

    def _drop(self, owner: Hashable, number: Number) -> None:
        """Takes a sequence out, and its owner with the last one."""
        of_owner = self._owners[owner]
        self._lose(of_owner.pop(number))
        if not of_owner:
            del self._owners[owner]

    def _lose(self, sequence: Sequence) -> None:
        """Frees a sequence's state; wakes the steps that wait, which find it lost."""
        sequence.lost, sequence.state = True, None
        self._count -= 1
        for ticket in sequence.line:
            ticket.set()

    def _unknown(self, step: SequenceStep) -> InvalidInput:
        if (step.owner, step.sequence_id) in self._evicted:
            return InvalidInput(
                f"sequence {step.sequence_id!r} of model {self._model!r} was ended while it was idle, as others needed "
                "its place: begin it anew with the START flag, and end sequences that are done; --models-sequences "
                "sets how many there may be",
                reason="SEQUENCE_EVICTED",
                field="sequence_id",
            )
        return InvalidInput(
            f"sequence {step.sequence_id!r} of model {self._model!r} has not begun or has ended: its first request "
            "must specify the START flag",
            reason="SEQUENCE_UNKNOWN",
            field="sequence_id",
        )


def wait(ticket: threading.Event, caller: Caller) -> None:
    """Waits for the turn as long as the caller does.

    Raises:
        Cancelled, DeadlineExceeded: nobody waits any longer.
    """
    caller.on_leave(ticket.set)
    try:
        while True:
            caller.check()
            left = float("inf") if caller.deadline is None else max(0.0, caller.deadline - time.monotonic()) + 0.001
            if ticket.wait(min(left, threading.TIMEOUT_MAX)):
                break
        caller.check()
    finally:
        caller.forget(ticket.set)
