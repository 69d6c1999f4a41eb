"""Where all places are taken, those who are gone and those who take all give way; nobody else does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.errors import InvalidInput, MatchcutError, Overloaded
from matchcut.server.feed import Caller
from matchcut.server.serving.contract import SequenceStep
from matchcut.server.serving.eviction import STALE
from matchcut.server.serving.sequences import Sequences
from matchcut.server.tensors import TensorSpec

IDLE = 1000.0


class Served:
    """Sequences on a clock that moves when it is told to."""

    def __init__(self, most: int) -> None:
        self.now = 0.0
        self.sequences = Sequences(
            {"h": TensorSpec("h", "FP32", (-1, 1))},
            model="m",
            most=most,
            idle=IDLE,
            rows=True,
            now=lambda: self.now,
        )

    def step(self, owner: str, number: int, *, start: bool = False, end: bool = False) -> float:
        """A step that adds 1; gives the state after it."""
        self.now += 0.001
        with self.sequences.turn(SequenceStep(number, owner, start, end), Caller()) as turn:
            turn.after = {"h": turn.state["h"] + np.float32(1)}
            return float(turn.after["h"][0, 0])

    def start(self, owner: str, *numbers: int) -> None:
        """Begins sequences of an owner."""
        for number in numbers:
            assert self.step(owner, number, start=True) == 1

    def held(self, owner: str) -> list[int]:
        """The numbers of an owner's sequences."""
        return [number for number in range(100) if self.sequences.knows(SequenceStep(number, owner))]

    def refused(self, owner: str, number: int) -> str:
        """The reason for which a sequence cannot begin."""
        with pytest.raises(Overloaded) as caught:
            self.step(owner, number, start=True)
        return caught.value.reason

    def evicted(self, owner: str, number: int) -> str:
        """The message to one who goes on with a sequence that had to give way."""
        with pytest.raises(InvalidInput) as caught:
            self.step(owner, number)
        assert (caught.value.reason, caught.value.field) == ("SEQUENCE_EVICTED", "sequence_id")
        return caught.value.message


def test_one_who_opens_all_places_gives_half_of_them_to_another() -> None:
    served = Served(6)
    served.start("flood", *range(6))
    assert served.refused("flood", 6) == "SEQUENCES_FULL"
    served.start("other", 0, 1, 2)
    assert served.held("other") == [0, 1, 2]
    assert served.held("flood") == [3, 4, 5], "the longest idle went first"
    assert served.refused("other", 3) == "SEQUENCES_FULL"
    assert served.refused("flood", 6) == "SEQUENCES_FULL"
    assert "begin it anew with the START flag" in served.evicted("flood", 0)
    assert served.step("flood", 3) == 2
    assert served.step("other", 0) == 2


def test_one_who_keeps_all_places_busy_locks_nobody_out() -> None:
    served = Served(6)
    served.start("flood", *range(6))
    for number in range(3):
        for each in served.held("flood"):
            served.step("flood", each)
        served.start(f"other {number}", 0)
    assert len(served.held("flood")) == 3
    assert [served.step(f"other {number}", 0) for number in range(3)] == [2, 2, 2]


def test_those_who_have_gone_lock_nobody_out() -> None:
    served = Served(5)
    for number in range(4):
        served.start(f"gone {number}", 0)
    served.start("here", 0)
    assert served.refused("new", 0) == "SEQUENCES_FULL", "each holds its share, and may be there still"
    served.now += STALE - 1
    served.step("here", 0)
    served.now += 1
    served.start("new", 0, 1)
    assert [served.held(f"gone {number}") for number in range(4)] == [[], [], [0], [0]], "the longest idle went first"
    assert served.refused("new", 2) == "SEQUENCES_FULL", "two are at it, so two of five are its share"
    served.start("here", 1)
    assert served.step("here", 0) == 3
    served.now += IDLE
    served.start("new", *range(5))
    assert len(served.sequences) == 5, "what was idle for too long is nobody's any more"


def test_a_newcomer_with_a_few_takes_of_those_who_have_gone_and_not_of_those_who_are_at_it() -> None:
    served = Served(8)
    for number in range(4):
        served.start(f"gone {number}", 0)
    served.now += STALE
    served.start("a", 0, 1)
    served.start("b", 0, 1)
    served.start("a", 2, 3)
    assert served.held("gone 0") == served.held("gone 1") == []
    assert served.held("gone 2") == served.held("gone 3") == [0]
    assert (served.held("a"), served.held("b")) == ([0, 1, 2, 3], [0, 1])
    assert served.refused("a", 4) == "SEQUENCES_FULL", "it has its share, and none of its own is done with"


def test_an_owner_with_its_share_replaces_what_it_left_behind_itself() -> None:
    served = Served(3)
    served.start("proxy", 0, 1, 2)
    served.now += STALE
    served.step("proxy", 0)
    served.start("proxy", 3)
    assert served.held("proxy") == [0, 2, 3]
    served.start("proxy", 1)
    assert served.held("proxy") == [0, 1, 3]
    assert served.refused("proxy", 4) == "SEQUENCES_FULL"


def test_where_all_are_at_it_the_newcomer_is_refused() -> None:
    served = Served(3)
    for number in range(3):
        served.start(f"owner {number}", 0)
    for _ in range(5):
        served.now += STALE / 2
        for number in range(3):
            served.step(f"owner {number}", 0)
        assert served.refused("new", 0) == "SEQUENCES_FULL"


def test_a_sequence_with_a_step_under_way_never_gives_way() -> None:
    served = Served(2)
    served.start("flood", 0, 1)
    with served.sequences.turn(SequenceStep(0, "flood"), Caller()) as turn:
        served.now += 2 * STALE
        served.start("other", 0)
        assert served.held("flood") == [0]
        turn.after = turn.state
    assert served.step("flood", 0) == 2
    with ExitStack() as under_way:
        for owner in ("flood", "other"):
            under_way.enter_context(served.sequences.turn(SequenceStep(0, owner), Caller()))
        served.now += 2 * STALE
        assert served.refused("new", 0) == "SEQUENCES_FULL"


def test_what_is_remembered_of_those_that_gave_way_is_bounded_and_ends() -> None:
    served = Served(4)
    for number in range(50):
        served.start("one", number)
        served.now += STALE
    assert len(served.sequences._evicted) == 4
    assert "--models-sequences" in served.evicted("one", 45)
    with pytest.raises(InvalidInput) as caught:
        served.step("one", 3)
    assert caught.value.reason == "SEQUENCE_UNKNOWN"
    served.start("one", 45)
    served.step("one", 45, end=True)
    with pytest.raises(InvalidInput) as caught:
        served.step("one", 45)
    assert caught.value.reason == "SEQUENCE_UNKNOWN", "it ended by itself since"
    served.sequences.leave("one")
    assert not served.sequences._evicted
    assert len(served.sequences) == 0


def taken(served: Served, owners: range) -> Iterator[tuple[str, list[int]]]:
    """Each owner's numbers."""
    return ((f"{owner}", served.held(f"{owner}")) for owner in owners)


@given(
    st.integers(1, 6),
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 7), st.sampled_from(["start", "step", "end", "wait", "leave"])),
        max_size=60,
    ),
)
def test_whatever_comes_places_are_kept_and_only_who_may_loses_one(
    most: int, actions: list[tuple[int, int, str]]
) -> None:
    served, owners = Served(most), range(4)
    used: dict[tuple[str, int], float] = {}
    for owner, number, action in actions:
        if action == "wait":
            served.now += STALE * number / 4
            continue
        if action == "leave":
            served.sequences.leave(f"{owner}")
            continue
        before, began = dict(taken(served, owners)), served.now
        reason = ""
        try:
            served.step(f"{owner}", number, start=action == "start", end=action == "end")
            used[f"{owner}", number] = served.now
        except MatchcutError as error:
            reason = error.reason
        after = dict(taken(served, owners))
        assert len(served.sequences) == sum(map(len, after.values())) <= most
        lost = {(one, each) for one in before for each in before[one] if each not in after[one]} - {
            (f"{owner}", number)
        }
        fresh = {one for one in before if any(began - used[one, each] < STALE for each in before[one])}
        share = max(1, most // len(fresh | {f"{owner}"}))
        own = len(before[f"{owner}"])
        assert len(lost) <= 1
        for one, each in lost:
            assert action == "start"
            assert sum(map(len, before.values())) == most
            stale = began + 0.001 - used[one, each] >= STALE
            assert stale if own >= share or len(before[one]) <= share else one != f"{owner}"
            assert min(used[one, every] for every in before[one]) == used[one, each], "its owner's longest idle"
        if reason == "SEQUENCES_FULL" and own < share:
            assert max(map(len, before.values())) <= share, "who holds too much would have had to give way"
