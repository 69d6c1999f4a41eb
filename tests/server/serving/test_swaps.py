"""Models are replaced while they are asked: no request fails, and no sequence loses its state."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matchcut.server.errors import InvalidInput, Unavailable
from matchcut.server.serving import ModelState, SequenceStep
from matchcut.server.serving.repository import FolderRepository
from support import onnx_models
from support.onnx_models import running_sum
from support.serving import STATES, add, ask, put, put_sum, states, until

Open = Callable[..., FolderRepository]

READY, GONE = ModelState.READY, ModelState.UNAVAILABLE


def step(number: int, *, start: bool = False, end: bool = False) -> SequenceStep:
    return SequenceStep(number, "owner", start, end)


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("keep", [0, 1])
def test_sequences_under_way_go_on_where_they_began(root: Path, open_: Open, version: str, keep: int) -> None:
    put_sum(root, "1", 1)
    (root / "m" / "model.toml").write_text(f"keep = {keep}")
    repository = open_()
    old = repository.model("m")
    closed = old.runner.closed
    assert add(old, step(1, start=True)) == 1
    assert add(old, step(2, start=True)) == 1
    put_sum(root, version, 10)
    repository.load("m")
    new = repository.model("m")
    assert new is not old
    assert add(new, step(1)) == 2
    assert add(new, step(3, start=True)) == 10
    assert add(new, step(3)) == 20
    assert add(new, step(2, start=True)) == 10, "it began anew"
    assert add(new, step(2, end=True)) == 20
    with pytest.raises(InvalidInput, match="has ended"):
        add(new, step(2))
    assert add(new, step(1)) == 3
    if keep or version == "1":  # the old one takes nothing new, also for those who still hold it
        assert add(old, step(4, start=True)) == 10
        assert add(old, step(4)) == add(new, step(4)) - 10 == 20
        old.leave("owner")
        with pytest.raises(InvalidInput):
            add(new, step(4))
    else:
        assert add(new, step(1, end=True)) == 4
    new.leave("owner")
    for number in (1, 3, 4):
        with pytest.raises(InvalidInput):
            add(new, step(number))
    del old
    new.sweep()
    assert closed.wait(60) if keep or version == "1" else not closed.is_set()


def test_unloading_ends_all_sequences(root: Path, open_: Open) -> None:
    put_sum(root, "1", 1)
    repository = open_()
    first = repository.model("m")
    add(first, step(1, start=True))
    put_sum(root, "1", 2)
    repository.load("m")
    second = repository.model("m")
    add(second, step(2, start=True))
    repository.unload("m")
    assert len(first.sequences) == len(second.sequences) == 0
    for number in (1, 2):
        with pytest.raises(InvalidInput, match="has ended"):
            add(second, step(number))
    with pytest.raises(Unavailable, match="being replaced or unloaded"):
        add(second, step(3, start=True))


def test_idle_sequences_are_swept_away(root: Path, open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matchcut.server.serving.repository.SWEEP", 0.001)
    onnx_models.write(root / "m" / "1", running_sum(), toml=STATES + "idle_timeout = 0.001\n")
    model = open_().model("m")
    add(model, step(1, start=True))
    until(lambda: len(model.sequences) == 0)


def test_swaps_under_load_fail_no_request(root: Path, open_: Open) -> None:
    put(root, "1", 1)
    (root / "m" / "model.toml").write_text("keep = 1")
    repository = open_()
    stop = threading.Event()
    served: list[set[float]] = [set() for _ in range(4)]

    def keep_asking(at: int) -> int:
        count = 0
        while not stop.is_set():
            served[at].add(ask(repository))
            count += 1
        return count

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(keep_asking, at) for at in range(4)]
        try:
            for version in range(2, 12):
                put(root, str(version), version)
                repository.load("m")
                until(lambda version=version: all(version in found for found in served))  # type: ignore[misc]
                put(root, str(version), -version)  # in place
                put(root, str(version + 1)).write_bytes(b"broken")
                repository.load("m")
                shutil.rmtree(root / "m" / str(version + 1))
                until(lambda version=version: all(-version in found for found in served))  # type: ignore[misc]
        finally:
            stop.set()
        counts = [each.result() for each in asking]
    assert all(count >= 20 for count in counts)
    wanted = {1.0, *(float(sign * version) for version in range(2, 12) for sign in (1, -1))}
    assert set.union(*served) == wanted
    assert all(found >= wanted - {1.0} for found in served)
    assert repository.versions("m") == ["11"]


def test_sequences_under_load_survive_swaps(root: Path, open_: Open) -> None:
    put_sum(root, "1", 1)
    (root / "m" / "model.toml").write_text("keep = 1")
    repository = open_()
    stop = threading.Event()

    def streams(owner: int) -> int:
        count = 0
        while not stop.is_set():
            steps = [SequenceStep(7, owner, start=not at, end=at == 5) for at in range(6)]
            found = [add(repository.model("m"), one) for one in steps]
            assert found == [found[0] * (at + 1) for at in range(6)], "one version from its start to its end"
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(streams, owner) for owner in range(3)]
        try:
            for version in range(2, 10):
                put_sum(root, str(version), version)
                repository.load("m")
        finally:
            stop.set()
        assert all(each.result() for each in running)
    assert len(repository.model("m").sequences) == 0


def test_storms_of_loading_and_unloading(root: Path, open_: Open) -> None:
    for name in ("a", "b"):
        put(root, "1", 3, name=name)
    repository = open_()
    begin = threading.Barrier(6)

    def storm(at: int) -> int:
        begin.wait()
        answered = 0
        for turn in range(25):
            name = "ab"[(at + turn) % 2]
            if at % 3 == 0:
                repository.load(name)
            elif at % 3 == 1:
                repository.unload(name)
            else:
                repository.index()
            try:
                assert ask(repository, name) == 3
                answered += 1
            except Unavailable:
                pass
        return answered

    with ThreadPoolExecutor(6) as pool:
        answered = sum(pool.map(storm, range(6)))
    assert answered
    for name in ("a", "b"):
        repository.load(name)
        assert ask(repository, name) == 3
    until(lambda: set(states(repository).values()) == {READY})
