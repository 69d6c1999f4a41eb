"""A folder that is watched: what is new, changed or gone is noticed once it is complete."""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from matchcut.server.errors import EngineFailed, NotFound, Unavailable
from matchcut.server.serving import ModelState
from matchcut.server.serving.repository import FolderRepository
from support.serving import ask, put, reasons, states, until

Open = Callable[..., FolderRepository]

READY, GONE = ModelState.READY, ModelState.UNAVAILABLE


def settle(repository: FolderRepository) -> None:
    """Two looks, so that what is on disk counts as complete."""
    repository.poll()
    repository.poll()


def test_watching_loads_what_is_complete(root: Path, open_: Open) -> None:
    put(root, "1", 1)
    repository = open_()
    settle(repository)
    first = repository.model("m")
    put(root, "2", 2)
    put(root, "1", 8, name="n")
    repository.poll()
    assert repository.model("m") is first
    repository.poll()
    assert (ask(repository), ask(repository, "n")) == (2, 8)
    put(root, "2", 3)
    settle(repository)
    assert ask(repository) == 3
    shutil.rmtree(root / "m" / "2")
    settle(repository)
    assert ask(repository) == 1
    shutil.rmtree(root / "m")
    repository.poll()
    assert ask(repository) == 1
    repository.poll()
    with pytest.raises((NotFound, Unavailable)):
        repository.model("m")


def test_watching_tries_a_broken_version_once(root: Path, open_: Open, caplog: pytest.LogCaptureFixture) -> None:
    put(root, "1", 1)
    repository = open_()
    settle(repository)
    put(root, "2").write_bytes(b"broken")
    with caplog.at_level(logging.WARNING):
        for _ in range(5):
            repository.poll()
    assert caplog.text.count("version 2 cannot be loaded") == 1
    assert ask(repository) == 1
    assert "cannot be read as ONNX" in reasons(repository)["2"]
    put(root, "3", 3)
    put(root, "2", 2)
    settle(repository)
    assert (ask(repository), ask(repository, version="2")) == (3, 2)


def test_watching_leaves_alone_what_was_not_to_be_loaded(root: Path, open_: Open) -> None:
    put(root, "1", 1)
    put(root, "1", 1, name="n")
    repository = open_(load="n")
    repository.unload("n")
    settle(repository)
    settle(repository)
    until(lambda: states(repository) == {("m", "1"): GONE, ("n", "1"): GONE})
    put(root, "2", 2)
    settle(repository)
    assert states(repository) == {("m", "1"): GONE, ("m", "2"): READY, ("n", "1"): GONE}
    repository.load("n")
    settle(repository)
    assert ask(repository, "n") == 1


def test_watching_goes_on_when_the_folder_cannot_be_read(
    root: Path, open_: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(root, "1", 1)
    polled = threading.Semaphore(0)
    honest = FolderRepository.poll

    def poll(repository: FolderRepository) -> None:
        try:
            honest(repository)
        finally:
            polled.release()

    monkeypatch.setattr(FolderRepository, "poll", poll)
    repository = open_(poll=0.001)
    root.rename(root.with_name("away"))
    until(lambda: "cannot be watched at present" in caplog.text)
    assert ask(repository) == 1, "a folder that is away for a while takes no model along"
    assert len(repository.index()) == 1
    with pytest.raises(EngineFailed, match="the folder of models cannot be read"):
        repository.load("m")
    root.with_name("away").rename(root)
    put(root, "2", 2)
    until(lambda: "2" in repository.versions("m"))
    assert ask(repository) == 2
    assert polled.acquire(timeout=60)
