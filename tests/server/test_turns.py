"""Turns: who computes, who waits, and that no turn is lost whatever becomes of those who wait."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from matchcut.server.clock import Clock
from matchcut.server.errors import Cancelled, DeadlineExceeded, MatchcutError
from matchcut.server.feed import Caller
from matchcut.server.turns import Purpose, Turn, Turns, Waiter

LONG = 3600.0  # seconds that never pass here


def until(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.001)


def give_after(turns: Turns, waiter: Waiter) -> None:
    """Has the waiter's turn, and gives it away at once."""
    until(lambda: waiter.called)
    turns.give()


class Stage:
    """Requests in threads of their own, each of which holds its turn until it is told to go on."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.begun: list[str] = []
        self.failed: dict[str, BaseException] = {}
        self.callers: dict[str, Caller] = {}
        self.clocks: dict[str, Clock] = {}
        self._go: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def ask(self, name: str, client: str = "", purpose: Purpose = Purpose.ASK, deadline: float | None = None) -> None:
        """One more request; returns when it has its turn, or waits for it."""
        caller = self.callers[name] = Caller(deadline)
        clock = self.clocks[name] = Clock()
        self._go[name] = threading.Event()
        turn = Turn(self.turns, caller, clock, purpose=purpose, client=client or name)
        waiting = self.turns.waiting

        def work() -> None:
            try:
                with turn.taken():
                    self.begun.append(name)
                    self.work(turn, self._go[name])
            except MatchcutError as error:
                self.failed[name] = error

        thread = threading.Thread(target=work, name=name)
        thread.start()
        self._threads.append(thread)
        until(lambda: name in self.begun or name in self.failed or self.turns.waiting > waiting)

    def work(self, turn: Turn, go: threading.Event) -> None:
        """What is done in a turn."""
        while not go.wait(0.001):
            turn.pause()

    def end(self, name: str) -> None:
        """The request is done; returns when it has said so."""
        self._go[name].set()
        next(thread for thread in self._threads if thread.name == name).join(30)

    def close(self) -> None:
        """All are done."""
        for go in self._go.values():
            go.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


@contextmanager
def stage(at_once: int = 1, *, seconds: float = LONG, patience: float = LONG) -> Iterator[Stage]:
    opened = Stage(Turns(at_once, seconds=seconds, patience=patience))
    try:
        yield opened
    finally:
        opened.close()
    # Whatever happened, all turns are there again and nobody is remembered.
    assert opened.turns.waiting == 0
    assert [opened.turns.take("").called for _ in range(at_once + 1)] == [True] * at_once + [False]


def test_first_come_first_served_and_no_more_at_once_than_turns() -> None:
    with stage(2) as on:
        for name in "abcd":
            on.ask(name)
        assert on.begun == ["a", "b"]
        on.end("b")
        until(lambda: len(on.begun) == 3)
        on.end("a")
        until(lambda: len(on.begun) == 4)
        assert on.begun == ["a", "b", "c", "d"]


def test_waiting_counts_as_queue_and_having_a_turn_at_once_does_not() -> None:
    with stage() as on:
        on.ask("a")
        on.ask("b")
        time.sleep(0.01)
        on.end("a")
        on.end("b")
        stages = {name: {one.name: one for one in on.clocks[name].times().stages} for name in "ab"}
        assert "queue" not in stages["a"]
        assert stages["b"]["queue"].wall_us >= 10_000
        assert stages["b"]["queue"].cpu_us < stages["b"]["queue"].wall_us


def test_of_a_client_with_many_requests_the_others_await_one() -> None:
    with stage() as on:
        for number in range(5):
            on.ask(f"flood{number}", client="flood")
        on.ask("other", client="other")
        on.end("flood0")
        on.end("flood1")  # which had waited before the other came
        until(lambda: len(on.begun) == 3)
        assert on.begun == ["flood0", "flood1", "other"]


def test_a_turn_that_has_lasted_long_is_the_next_ones() -> None:
    with stage(seconds=0.0) as on:
        on.ask("film")
        on.ask("clip")
        until(lambda: "clip" in on.begun)  # though the film is not over
        on.end("clip")
        on.end("film")
        assert on.begun == ["film", "clip"]


def test_who_is_not_done_in_a_turn_goes_on_in_the_background() -> None:
    with stage(seconds=0.0) as on:
        on.ask("film")
        on.ask("first")
        until(lambda: "first" in on.begun)
        on.turns.seconds = LONG
        on.end("first")
        on.ask("second")  # finds the film at work again, or waiting for its next turn
        until(lambda: "second" in on.begun)  # though the film's new turn is not over
        on.ask("third")
        assert on.begun == ["film", "first", "second"]  # turns of those who are not in the background are whole
        on.end("second")
        until(lambda: "third" in on.begun)  # who goes before the film, though the film has waited for longer
        on.end("third")


def test_a_turn_lasts_as_long_as_nobody_waits() -> None:
    turns = Turns(1, seconds=0.0)
    turn = Turn(turns, Caller(), clock := Clock(), purpose=Purpose.ASK, client="")
    with turn.taken():
        turn.pause()
        turn.pause()
    assert clock.times().stages == ()


def test_what_is_put_in_gives_way_to_what_is_asked_and_keeps_its_place() -> None:
    with stage() as on:
        on.ask("put1", purpose=Purpose.PUT)
        on.ask("put2", purpose=Purpose.PUT)
        assert on.begun == ["put1"]  # those of a kind wait for each other
        on.ask("query")
        until(lambda: "query" in on.begun)
        on.end("query")
        time.sleep(0.01)
        assert on.begun == ["put1", "query"]  # put1 goes on
        on.end("put1")
        until(lambda: len(on.begun) == 3)
        assert on.begun[-1] == "put2"


def test_what_is_asked_goes_before_what_is_put_in_and_waits_longer() -> None:
    with stage() as on:
        on.ask("first")
        on.ask("put", purpose=Purpose.PUT)
        on.ask("query")
        on.end("first")
        until(lambda: len(on.begun) == 2)
        assert on.begun == ["first", "query"]


def test_what_is_put_in_is_patient_but_not_for_ever() -> None:
    with stage(patience=0.0) as on:
        on.ask("first")
        on.ask("put", purpose=Purpose.PUT)
        on.ask("query")
        time.sleep(0.001)
        on.end("first")
        until(lambda: len(on.begun) == 2)
        assert on.begun == ["first", "put"]


def test_of_many_that_are_put_in_one_goes_before_what_is_asked_and_the_next_not_before_long() -> None:
    turns = Turns(1, seconds=LONG, patience=LONG)
    turns.take("first")
    puts = [turns.take("flood", background=True) for _ in range(3)]
    questions = [turns.take(f"client{number}") for number in range(2)]
    for put in puts:
        put.since -= 2 * LONG
    turns.give()
    assert [put.called for put in puts] == [True, False, False]
    assert not any(question.called for question in questions)
    for question in questions:
        turns.give()
        assert question.called
    assert [put.spared for put in puts] == [True, False, False]
    turns.give()
    assert puts[1].called


@pytest.mark.parametrize("mercy", [0.0, LONG])
def test_one_that_has_waited_for_long_goes_on_for_a_while(mercy: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchcut.server.turns.MERCY", mercy)
    with stage(patience=0.0) as on:
        on.ask("first")
        on.ask("put", purpose=Purpose.PUT)
        on.ask("second")
        time.sleep(0.001)
        on.end("first")
        until(lambda: "put" in on.begun)
        on.turns._patience = LONG  # or it would be spared again and again
        if mercy:
            time.sleep(0.02)
            assert on.begun == ["first", "put"]
        else:
            until(lambda: "second" in on.begun)


def test_who_comes_back_from_aside_goes_before_those_who_came_meanwhile() -> None:
    turns = Turns(1, seconds=LONG)
    turn = Turn(turns, Caller(), Clock(), purpose=Purpose.ASK, client="upload")
    with turn.taken():
        with turn.aside():
            other, last = turns.take("other"), turns.take("last")
            assert other.called
            thread = threading.Timer(0.01, turns.give)
            thread.start()
        thread.join()
        assert not last.called
    assert last.called


@pytest.mark.parametrize("how", ["leaves", "deadline"])
def test_one_that_nobody_waits_for_leaves_the_line(how: str) -> None:
    with stage() as on:
        on.ask("first")
        on.ask("gone", deadline=time.monotonic() + 0.05 if how == "deadline" else None)
        on.ask("last")
        if how == "leaves":
            on.callers["gone"].leave()
        until(lambda: "gone" in on.failed)
        assert isinstance(on.failed["gone"], DeadlineExceeded if how == "deadline" else Cancelled)
        assert on.turns.waiting == 1
        on.end("first")
        until(lambda: "last" in on.begun)


def test_one_that_has_left_already_takes_no_turn_from_those_who_wait() -> None:
    with stage() as on:
        on.ask("first")
        caller = Caller()
        caller.leave()
        turn = Turn(on.turns, caller, Clock(), purpose=Purpose.ASK, client="x")
        with pytest.raises(Cancelled), turn.taken():
            pytest.fail("it has no turn")
        assert on.turns.waiting == 0


def test_a_turn_is_others_while_its_owner_waits_for_something_else() -> None:
    turns = Turns(1, seconds=LONG)
    slow = Turn(turns, Caller(), clock := Clock(), purpose=Purpose.ASK, client="slow")
    quick = Turn(turns, Caller(), Clock(), purpose=Purpose.ASK, client="quick")
    with slow.taken():
        with slow.aside(), quick.taken():  # would wait for ever otherwise
            assert not turns.waiting
        assert not turns.take("third").called  # slow has it again
    assert clock.times().stages == ()


def test_what_fails_aside_ends_the_turn_once() -> None:
    turns = Turns(1, seconds=LONG)
    turn = Turn(turns, Caller(), Clock(), purpose=Purpose.ASK, client="")
    with pytest.raises(Cancelled), turn.taken(), turn.aside():
        raise Cancelled("the upload broke")
    assert [turns.take("").called for _ in range(2)] == [True, False]


def test_an_ended_turn_stays_ended() -> None:
    turns = Turns(1, seconds=LONG)
    turn = Turn(turns, Caller(), Clock(), purpose=Purpose.PUT, client="")
    with turn.taken():
        turn.end()
        assert turns.take("other").called
        turn.pause()
        with turn.aside():
            pass
        turn.end()
        assert not turns.take("third").called
    assert turns.waiting == 1


def test_time_aside_does_not_count_but_time_before_does() -> None:
    turns = Turns(1, seconds=0.05)
    turn = Turn(turns, Caller(), Clock(), purpose=Purpose.ASK, client="")
    with turn.taken():
        with turn.aside():
            time.sleep(0.06)
        other = turns.take("other")
        turn.pause()
        assert not other.called  # it has worked for no time yet
        time.sleep(0.06)
        with turn.aside():
            until(lambda: other.called)
            turns.give()
        again = turns.take("other")
        thread = threading.Thread(target=give_after, args=(turns, again))
        thread.start()
        turn.pause()  # the time before it went aside is over its limit, and it waits
        thread.join()
        assert again.called


def test_a_storm_of_all_that_can_happen_loses_no_turn_and_lets_in_no_more_than_there_are() -> None:
    turns = Turns(2, seconds=0.0005, patience=0.002)
    lock, inside, most, done = threading.Lock(), 0, 0, 0

    def count(change: int) -> None:
        nonlocal inside, most
        with lock:
            inside += change
            most = max(most, inside)

    def client(seed: int) -> None:
        nonlocal done
        chance = random.Random(seed)
        for _ in range(60):
            caller = Caller(time.monotonic() + chance.choice((0.0, 0.001, 30.0, 30.0)))
            turn = Turn(turns, caller, Clock(), purpose=chance.choice(list(Purpose)), client=str(seed % 3))
            if chance.random() < 0.2:
                threading.Timer(chance.random() * 0.002, caller.leave).start()
            try:
                with turn.taken():
                    count(+1)
                    held = True
                    try:
                        for _ in range(chance.randrange(4)):
                            time.sleep(chance.random() * 0.0005)
                            count(-1)
                            held = False
                            if chance.random() < 0.5:
                                turn.pause()
                            else:
                                with turn.aside():
                                    time.sleep(0.0002)
                            count(+1)
                            held = True
                    finally:
                        if held:
                            count(-1)
                with lock:
                    done += 1
            except MatchcutError:
                pass

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a turn was lost"
    assert done > 100
    assert most == 2
    assert turns.waiting == 0
    assert [turns.take("").called for _ in range(3)] == [True, True, False]
