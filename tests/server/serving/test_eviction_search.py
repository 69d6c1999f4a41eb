"""Who gives way is found without a look at all sequences, and is whom a look at all of them would find."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.errors import MatchcutError
from matchcut.server.feed import Caller
from matchcut.server.serving.contract import SequenceStep
from matchcut.server.serving.eviction import STALE, Number, giving_way, idle_since
from matchcut.server.serving.sequences import Sequence, Sequences
from matchcut.server.tensors import TensorSpec

MOST, IDLE = 6, 40.0
Owners = dict[Hashable, OrderedDict[Number, Sequence]]


def all_looked_at(owners: Owners, newcomer: Hashable, now: float) -> set[tuple[Hashable, Number] | None]:
    """What the rules of eviction say, word for word; several where they were used at the same time."""
    busy = {owner for owner, held in owners.items() if any(one.line or now - one.used < STALE for one in held.values())}
    share = max(1, MOST // len(busy | {newcomer}))
    idle = [(owner, number) for owner, held in owners.items() for number, one in held.items() if not one.line]

    def stale(owner: Hashable, number: Number) -> bool:
        return owners[owner][number].used <= now - STALE

    if len(owners.get(newcomer, ())) >= share:
        found = [each for each in idle if each[0] == newcomer and stale(*each)]
    else:
        largest = max((len(owners[owner]) for owner, _ in idle if owner != newcomer), default=0)
        if largest > share:
            found = [each for each in idle if len(owners[each[0]]) == largest and each[0] != newcomer]
        else:
            found = [each for each in idle if stale(*each)]
    first = min((owners[owner][number].used for owner, number in found), default=None)
    return {(owner, number) for owner, number in found if owners[owner][number].used == first} or {None}


Step = tuple[str, int, bool, bool, float]
steps = st.lists(
    st.tuples(
        st.sampled_from("abcd"),
        st.integers(1, 4),
        st.booleans(),  # it starts
        st.booleans(),  # it is held until later
        st.sampled_from([0.0, 0.5, 3.0, STALE, 25.0]),  # seconds before it
    ),
    min_size=8,
    max_size=40,
)


@given(steps)
def test_the_search_finds_what_the_rules_say(taken: list[Step]) -> None:
    now = 0.0
    sequences = Sequences(
        {"h": TensorSpec("h", "FP32", (-1, 1))}, model="m", most=MOST, idle=IDLE, rows=True, now=lambda: now
    )
    owners: Owners = sequences._owners
    held: dict[tuple[str, int], ExitStack] = {}
    for owner, number, start, hold, pause in taken:
        now += pause
        if (owner, number) in held:
            held.pop((owner, number)).close()
        for newcomer in "abcde":
            assert giving_way(owners, newcomer, most=MOST, now=now) in all_looked_at(owners, newcomer, now)
        assert set(idle_since(owners, now - IDLE)) == {
            (owner, number)
            for owner, of_owner in owners.items()
            for number, one in of_owner.items()
            if not one.line and one.used < now - IDLE
        }
        with ExitStack() as opened, suppress(MatchcutError):
            turn = opened.enter_context(sequences.turn(SequenceStep(number, owner, start), Caller()))
            turn.after = {"h": turn.state["h"] + np.float32(1)}
            if hold:
                held[owner, number] = opened.pop_all()
    for each in held.values():
        each.close()


@dataclass
class Looked:
    """A sequence that counts how often it was looked at."""

    used: float
    looks: list[int]
    line_: list[int] = field(default_factory=list)

    @property
    def line(self) -> list[int]:
        self.looks[0] += 1
        return self.line_


def test_the_search_does_not_look_at_all_sequences() -> None:
    looks = [0]
    owners: dict[Hashable, OrderedDict[Number, Looked]] = {
        owner: OrderedDict((number, Looked(100 + number / 1000, looks)) for number in range(2000)) for owner in "abcde"
    }
    for newcomer, found in (("f", ("a", 0)), ("a", None)):
        looks[0] = 0
        assert giving_way(owners, newcomer, most=10_000, now=103.0) == found
        assert 1 <= looks[0] <= 50
    looks[0] = 0
    assert len(idle_since(owners, 100.01)) == 50
    assert looks[0] <= 60
