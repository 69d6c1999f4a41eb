"""Runs rows of different callers together.

Whoever finds a place free runs at once, in its own thread and with nothing added to its time. What arrives while all
places are taken waits, and goes into the next run together: the thread of the first in line makes it, for itself and
for those who join. So the window in which callers meet is as long as a run takes, and there is none when idle.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable

import numpy as np

from matchcut.server.batcher.contract import Answer, Quiet, Run, Watcher
from matchcut.server.batcher.line import Joint, Line, Place, Request, overloaded
from matchcut.server.batcher.rows import joined, rows_of, run_alone, run_together, taken
from matchcut.server.batcher.timing import Measured, Timing, measured
from matchcut.server.errors import Cancelled, MatchcutError, Overloaded, Unavailable
from matchcut.server.feed import Caller
from matchcut.server.tensors import Tensors

__all__ = ["Batcher"]

GRACE = 0.001  # seconds after a deadline at which its passing is sure to be seen


class Batcher:
    """Shares runs of a model between callers. Safe to be used by several threads at once.

    Args:
        run: named arrays to named arrays, row by row, so that what else is in a run changes no row of the answer. Is
            called by up to `workers` threads at once.
        name: of the model, for messages and metrics.
        most: rows of one run at most.
        queue: rows that may wait at most, but no fewer than `most`; more are refused.
        workers: runs at once at most.
        watcher: is told what happens.
    """

    def __init__(
        self, run: Run, *, name: str, most: int, queue: int, workers: int = 1, watcher: Watcher | None = None
    ) -> None:
        self._run = run
        self._name = name
        self._most = self._size = most
        self._queue = max(queue, most)
        self._workers = self._free = workers
        self._watcher = watcher or Quiet()
        self._line = Line()
        self._timing = Timing()
        self._ends: dict[object, float] = {}  # of the runs under way, by who leads them: when they should end
        self._closed = False
        self._lock = threading.Condition(threading.Lock())
        self._watcher.queued(name, 0)

    @property
    def most(self) -> int:
        """Rows of one run at most."""
        return self._most

    @property
    def size(self) -> int:
        """Rows up to which requests are joined: what tune() found, `most` before."""
        return self._size

    def tune(self, example: Tensors, found: Measured | None = None) -> Measured:
        """Measures which number of rows is worth joining, and what runs take; to be called before there are callers.

        Args:
            example: inputs of any number of rows, at least one; they are repeated as needed.
            found: by an earlier call. Two runs that agree with it stand for a measurement, and it is returned.

        Returns what holds from now on.

        Raises:
            MatchcutError: what the run raises.
        """
        rows = rows_of(example)

        def run(count: int) -> None:
            at = np.arange(count) % rows
            self._run({name: array[at] for name, array in example.items()})

        found, timing = measured(run, self._most, found)
        with self._lock:
            self._timing, self._size = timing, found.size
        return found

    def submit(self, inputs: Tensors, *, caller: Caller, client: Hashable = None) -> Answer:
        """Runs the rows, together with others' where some wait; blocks the thread until the answer is there.

        More rows than one run takes are run in pieces. A caller that leaves is woken at once, unless its own thread
        makes the run.

        Args:
            inputs: by name; all with the same number of rows, at least one, as their first size. Must not be changed
                meanwhile.
            caller: who waits for it.
            client: whose turn it takes; turns are fair between clients. None: the caller is a client of its own.

        Raises:
            InvalidInput: the numbers of rows are none or differ.
            Overloaded: too many rows wait, and this client has no fewer of them than others.
            DeadlineExceeded: the deadline has passed, or will pass before the answer is there (DEADLINE_TOO_SHORT).
            Cancelled: the caller has left.
            Unavailable: it is closed.
            MatchcutError: what the run raised for these very rows.
        """
        rows = rows_of(inputs)
        if rows > self._most:
            starts = range(0, rows, self._most)
            pieces = [{name: array[at : at + self._most] for name, array in inputs.items()} for at in starts]
            return joined([self.submit(piece, caller=caller, client=client) for piece in pieces])
        if (answer := self._at_once(inputs, rows, caller)) is not None:
            return answer
        request = Request(
            inputs=dict(inputs),
            rows=rows,
            key=tuple(sorted((name, array.dtype.str, array.shape[1:]) for name, array in inputs.items())),
            caller=caller,
            client=caller if client is None else client,
            arrived_ns=time.perf_counter_ns(),
        )
        with self._lock:
            self._admit(request)
        caller.on_leave(request.woken.set)
        try:
            while True:
                if request.place is not Place.LEADING:
                    self._wait(request)
                if request.place is Place.LEADING:
                    self._lead(request)
                if request.place is Place.DONE:
                    return taken(request)
        finally:
            caller.forget(request.woken.set)

    def at_once(self, inputs: Tensors, *, caller: Caller) -> Answer | None:
        """As submit(), of one run at most, for one who never waits: None, and nothing is done, where it had to."""
        return self._at_once(inputs, rows_of(inputs), caller, waits=False)

    def seconds(self, rows: int) -> float:
        """What a run of so many rows takes at present; 0 while nothing is known."""
        return self._timing.seconds(rows)

    def close(self) -> None:
        """Lets nobody in any more; returns when all who are in have their answers. May be called twice."""
        with self._lock:
            self._closed = True
            self._lock.wait_for(lambda: self._free == self._workers)

    def _at_once(self, inputs: Tensors, rows: int, caller: Caller, *, waits: bool = True) -> Answer | None:
        """The answer to one who finds a place free, nobody in the line, and time enough; None for all others.

        What _admit and _lead would do for it, without what only others need. waits: whether for the lock, too.
        """
        arrived = time.perf_counter_ns()
        if not self._lock.acquire(blocking=waits):
            return None
        try:
            ends = time.monotonic() + self._timing.seconds(rows)
            idle = self._free and not self._line.rows and not self._closed
            if not idle or ends > (caller.deadline or ends) or caller.fault() is not None:
                return None
            self._free -= 1
            self._ends[caller, arrived] = ends
        finally:
            self._lock.release()
        joint, began, began_ns = None, time.monotonic(), time.perf_counter_ns()
        try:
            joint = run_alone(self._run, dict(inputs), rows, self._name)
        finally:
            seconds = time.monotonic() - began
            with self._lock:
                del self._ends[caller, arrived]
                self._watcher.waited(self._name, (began_ns - arrived) / 1e9)
                self._watcher.ran(self._name, rows, seconds, wasted=caller.fault() is not None)
                if joint is not None:
                    self._timing.learn(rows, seconds)
                self._pass_on()
        return Answer(joint.outputs, rows, began_ns - arrived, joint.input_ns, joint.infer_ns, 0)

    def _admit(self, request: Request) -> None:
        """Lets a request in: it leads a run at once where a place is free, else it waits."""
        if self._closed:
            raise Unavailable(f"{self._name} has been closed; ask again for what replaces it", reason="MODEL_CLOSED")
        self._line.stamp(request)
        expected = self._expected(request)
        # Only a run can correct an estimate; where nobody has made one for long and nobody has to wait, this one does.
        request.trial = bool(self._free) and not self._timing.fresh
        fault = request.fault(time.monotonic() + expected)
        if fault is not None:
            raise self._dropped(fault)
        if self._free:
            self._free -= 1
            request.place = Place.LEADING
        else:
            self._make_room(request)
        self._line.add(request)
        self._watcher.queued(self._name, self._line.rows)

    def _expected(self, request: Request) -> float:
        """Seconds until a request that arrives now would have its answer; 0 while nothing is known."""
        alone = self._timing.seconds(request.rows)
        if self._free:
            return alone
        ahead = self._line.ahead(request)
        ahead[request.key] += request.rows
        work = sum(self._timing.work(rows, self._size) for rows in ahead.values())
        begins = min(self._ends.values(), default=0.0) - time.monotonic()
        return max(begins, 0.0) + max(work / self._workers, alone)

    def _make_room(self, request: Request) -> None:
        """Refuses the last requests of whoever has most waiting; raises Overloaded where that is the newcomer."""
        evicted = self._line.to_evict(request, self._line.rows + request.rows - self._queue)
        if evicted is None:
            raise self._dropped(self._overloaded())
        for one in evicted:
            self._refuse(one, self._overloaded())

    def _overloaded(self) -> Overloaded:
        seconds = self._timing.work(self._line.rows, self._size) / self._workers or 1.0
        return overloaded(self._name, self._line.rows, seconds)

    def _wait(self, request: Request) -> None:
        """Until the request is done or is to lead.

        Raises:
            MatchcutError: it was refused, or the caller is gone.
        """
        try:
            while request.place in (Place.WAITING, Place.RUNNING):
                left = request.deadline - time.monotonic() + GRACE
                request.woken.wait(min(max(left, 0.0), threading.TIMEOUT_MAX))
                request.woken.clear()
                fault = request.caller.fault()
                if fault is not None and request.place in (Place.WAITING, Place.RUNNING):
                    raise fault
            if request.error is not None:
                raise request.error
        except BaseException as error:
            with self._lock:
                self._withdraw(request, error)
            raise

    def _withdraw(self, request: Request, error: BaseException) -> None:
        """The request's thread waits no longer, for whatever reason."""
        if request.place is Place.RUNNING:
            request.place = Place.REFUSED  # the run goes on for the others
        elif request.place in (Place.WAITING, Place.LEADING):
            led = request.place is Place.LEADING
            self._refuse(
                request, error if isinstance(error, MatchcutError) else Cancelled("its thread was interrupted")
            )
            if led:
                self._pass_on()

    def _refuse(self, request: Request, error: MatchcutError) -> None:
        """Takes a request out of the line before it is computed."""
        self._line.remove(request)
        self._watcher.queued(self._name, self._line.rows)
        request.wake(Place.REFUSED, self._dropped(error))

    def _dropped(self, error: MatchcutError) -> MatchcutError:
        self._watcher.dropped(self._name, error.reason)
        return error

    def _lead(self, leader: Request) -> None:
        """Makes a run for this request and those who join it. In a failed joint run nobody is told: all run alone then.

        Raises:
            MatchcutError: the request is not worth running any more; or what its run alone raised.
        """
        with self._lock:
            fault = leader.fault(time.monotonic() + self._timing.seconds(leader.rows))
            if fault is not None:
                self._withdraw(leader, fault)
                raise fault
            members = self._form(leader)
        began, failure, joint = time.monotonic(), None, None
        try:
            joint = run_together(self._run, members, self._name)
        except BaseException as error:
            failure = error
        seconds = time.monotonic() - began
        with self._lock:
            if failure is not None and not isinstance(failure, Exception):
                leader.place = Place.REFUSED  # it is the thread that is to end
            self._end(leader, members, joint, seconds)
        try:
            if failure is not None and (len(members) == 1 or not isinstance(failure, Exception)):
                raise failure
        finally:
            del failure  # its traceback holds this frame, which holds everybody's rows

    def _form(self, leader: Request) -> list[Request]:
        """Who runs with the leader: who fits, in the order of the line, as long as nobody's answer comes too late."""
        now, now_ns = time.monotonic(), time.perf_counter_ns()
        members, late = self._line.joining(leader, self._size, self._timing.seconds)
        for other, fault in late:
            self._refuse(other, fault)
        rows = sum(member.rows for member in members)
        for member in members:
            self._line.remove(member)
            self._line.reach(member)
            member.place, member.began_ns = Place.RUNNING, now_ns
            self._watcher.waited(self._name, (now_ns - member.arrived_ns) / 1e9)
        self._watcher.queued(self._name, self._line.rows)
        self._ends[leader] = now + self._timing.seconds(rows)
        return members

    def _end(self, leader: Request, members: list[Request], joint: Joint | None, seconds: float) -> None:
        """The run has ended; without a result those who ran together wait again, each to run alone."""
        del self._ends[leader]
        rows = sum(member.rows for member in members)
        wasted = all(member.caller.fault() is not None for member in members)
        self._watcher.ran(self._name, rows, seconds, wasted=wasted)
        if joint is not None:
            self._timing.learn(rows, seconds)
        for member in members:
            if member.place is not Place.RUNNING:
                continue
            if joint is not None:
                member.joint = joint
                member.wake(Place.DONE)
            elif len(members) > 1:
                member.alone, member.place = True, Place.WAITING
                self._line.add(member)
        self._pass_on()

    def _pass_on(self) -> None:
        """Gives a place back, and free places to the first in line; those for whom it is too late are told so."""
        self._free += 1
        for request in self._line:
            if not self._free:
                break
            if request.place is not Place.WAITING:
                continue
            fault = request.fault(time.monotonic() + self._timing.seconds(request.rows))
            if fault is None:
                self._free -= 1
                request.wake(Place.LEADING)
            else:
                self._refuse(request, fault)
        if self._free:
            self._lock.notify_all()
