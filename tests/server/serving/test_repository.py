"""A folder of models: loading, replacing and taking away; nothing broken replaces what works."""

from __future__ import annotations

import os
import shutil
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed, InvalidInput, NotFound, Unavailable
from matchcut.server.feed import Caller
from matchcut.server.serving import IndexEntry, Model, ModelState, Repository
from matchcut.server.serving.repository import FolderRepository
from matchcut.server.serving.runner import Runner
from matchcut.server.serving.served import Limits
from matchcut.server.tensors import Tensors
from support import onnx_models
from support.onnx_models import identity, scale
from support.serving import STATES, Gate, ask, put, reasons, states, times, until

Open = Callable[..., FolderRepository]

READY, GONE = ModelState.READY, ModelState.UNAVAILABLE


def test_all_is_loaded_at_the_start(root: Path, open_: Open) -> None:
    put(root, "1", 2)
    put(root, "10", 20)
    put(root, "9", 18)
    put(root, "3", 7, name="a")
    repository: Repository = open_()
    assert repository.index() == [
        IndexEntry("a", "3", READY),
        IndexEntry("m", "1", READY),
        IndexEntry("m", "9", READY),
        IndexEntry("m", "10", READY),
    ]
    assert (ask(repository), ask(repository, version="9"), ask(repository, "a")) == (20, 18, 7)
    assert repository.versions("m") == ["1", "9", "10"]
    assert repository.model("m").version == "10"


def test_unknown_models(root: Path, open_: Open) -> None:
    put(root, "1")
    repository = open_()
    for name in ("n", "", "../m", "m/1"):
        for call in (repository.model, repository.versions, repository.load, repository.unload):
            with pytest.raises(NotFound, match="Request for unknown model: ") as caught:
                call(name)
            assert (caught.value.reason, caught.value.field) == ("MODEL_NOT_FOUND", "model_name")
    for version in ("2", "01", "x", "../1"):
        with pytest.raises(NotFound, match=f"'m' version '{version}' is not found"):
            repository.model("m", version)


def test_nothing_or_some_is_loaded_at_the_start(root: Path, open_: Open) -> None:
    put(root, "1", name="a")
    put(root, "1", name="b")
    assert set(states(open_(load="none")).values()) == {GONE}
    repository = open_(load=" b ,")
    assert states(repository) == {("a", "1"): GONE, ("b", "1"): READY}
    with pytest.raises(Unavailable, match="model 'a' is not ready: version 1: it is not loaded") as caught:
        repository.model("a")
    assert caught.value.reason == "MODEL_UNAVAILABLE"
    with pytest.raises(Unavailable, match="model 'a' version 1 is not ready: version 1: it is not loaded"):
        repository.model("a", "1")
    assert repository.versions("a") == []
    repository.load("a")
    assert ask(repository, "a") == 1
    with pytest.raises(InvalidInput, match=r"--models-load names 'c', but .* has a, b") as wrong:
        open_(load="a,c")
    assert wrong.value.field == "models_load"
    (root / "b" / "1" / "model.onnx").write_bytes(b"broken")
    with pytest.raises(EngineFailed, match="failed to load 'b'"):
        open_(load="b")


def test_a_root_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"--models .*/none cannot be read: No such file or directory") as caught:
        FolderRepository(tmp_path / "none")
    assert (caught.value.reason, caught.value.field) == ("INVALID_OPTION", "models")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="Not a directory"):
        FolderRepository(tmp_path / "file")


def test_every_broken_model_has_its_reason_and_harms_no_other(root: Path, open_: Open, tmp_path: Path) -> None:
    put(root, "1", 3, name="good")
    put(root, "0", name="zero")
    put(root, "x", name="text")
    put(root, "1", name="toml", toml="max_batch = ")
    put(root, "1", name="key", toml="batch = 1")
    put(root, "1", name="fit", toml=STATES)
    (root / "empty" / "1").mkdir(parents=True)
    (root / "nothing").mkdir()
    put(root, "1", name="bad name")
    put(root, "1", name="bytes").write_bytes(b"\x00" * 100)
    put(root, "1", name="op").write_bytes(
        onnx_models.model(
            [onnx_models.node("NoSuchThing", ["x"], ["y"])], {"x": ("FP32", (1,))}, {"y": ("FP32", (1,))}
        ).SerializeToString()
    )
    put(root, "1", name="shared")
    (root / "shared" / "model.toml").write_text("[[[")
    (root / "out").symlink_to(tmp_path)
    put(root, "1", name="outside")
    external = scale()
    onnx_models.external_data(external, "../../good/1/model.onnx")
    onnx_models.write(root / "outside" / "1", external)
    repository = open_()
    assert ask(repository, "good") == 3
    found = {entry.name: entry.reason for entry in repository.index() if entry.state is not READY}
    expected = {
        "zero": "a version is a whole number from 1",
        "text": "a version is a whole number from 1",
        "toml": "model.toml is not valid TOML",
        "key": "batch is unknown",
        "fit": "names an input 'total_in', but the graph's are x",
        "empty": "there is no ONNX file in it",
        "nothing": "it has no versions",
        "bad name": "its name may have letters",
        "bytes": "cannot be read as ONNX",
        "op": "ONNX Runtime cannot load",
        "shared": "model.toml is not valid TOML",
        "out": "leads out of the repository",
        "outside": "keeps weights in another file",
    }
    assert set(found) == set(expected)
    for name, reason in expected.items():
        assert reason in found[name]
        with pytest.raises(Unavailable, match="is not ready"):
            repository.model(name)
        with pytest.raises(EngineFailed, match=f"failed to load '{name}'") as caught:
            repository.load(name)
        assert reason in caught.value.message
    assert ask(repository, "good") == 3


def test_a_new_version_takes_over_and_unload_takes_away(root: Path, open_: Open) -> None:
    put(root, "1", 1)
    repository = open_()
    first = repository.model("m")
    put(root, "2", 2)
    assert states(repository) == {("m", "1"): READY, ("m", "2"): GONE}
    assert ask(repository) == 1
    repository.load("m")
    assert (ask(repository), ask(repository, version="1")) == (2, 1)
    assert repository.model("m", "1") is first, "what did not change is not loaded again"
    repository.unload("m")
    until(lambda: states(repository) == {("m", "1"): ModelState.UNLOADING, ("m", "2"): GONE})
    assert times(first) == 1, "who holds a model can use it to the end"
    with pytest.raises(Unavailable):
        repository.model("m")
    repository.unload("m")
    repository.load("m")
    assert ask(repository) == 2


def test_a_version_that_changed_in_place_is_replaced(root: Path, open_: Open) -> None:
    put(root, "1", 1)
    repository = open_()
    old = repository.model("m")
    assert times(old) == 1
    put(root, "1", 2)
    repository.load("m")
    assert ask(repository) == 2
    assert repository.model("m").statistics().inferences == 1
    (root / "m" / "model.toml").write_text("max_batch = 3")
    repository.load("m")
    assert repository.model("m").max_batch == 3
    assert (old.max_batch, times(old)) == (8, 1)


def test_a_broken_version_replaces_nothing(root: Path, open_: Open) -> None:
    good = put(root, "1", 5)
    repository = open_()
    model = repository.model("m")
    put(root, "2").write_bytes(b"broken")
    with pytest.raises(EngineFailed, match=r"failed to load 'm': version 2: model\.onnx cannot be read as ONNX"):
        repository.load("m")
    assert states(repository) == {("m", "1"): READY, ("m", "2"): GONE}
    assert "cannot be read as ONNX" in reasons(repository)["2"]
    with pytest.raises(Unavailable, match=r"version 2 is not ready: version 2: model\.onnx cannot be read"):
        repository.model("m", "2")
    good.write_bytes(b"broken too")
    with pytest.raises(EngineFailed, match="version 1: "):
        repository.load("m")
    assert repository.model("m") is model
    assert ask(repository) == 5
    assert states(repository)["m", "1"] is READY
    assert "cannot be read as ONNX" in reasons(repository)["1"]
    (root / "m" / "model.toml").write_text("[")
    with pytest.raises(EngineFailed, match=r"model\.toml is not valid TOML"):
        repository.load("m")
    assert ask(repository) == 5
    (root / "m" / "model.toml").unlink()
    put(root, "1", 6)
    put(root, "2", 7)
    repository.load("m")
    assert (ask(repository), ask(repository, version="1")) == (7, 6)
    assert reasons(repository) == {"1": "", "2": ""}


def test_some_versions_work_and_some_do_not(root: Path, open_: Open) -> None:
    put(root, "1", 1)
    put(root, "2").write_bytes(b"broken")
    put(root, "3", 3)
    repository = open_()
    assert repository.versions("m") == ["1", "3"]
    put(root, "4", 4)
    repository.load("m")  # one of the two that are new is ready
    assert ask(repository) == 4


def test_versions_that_have_gone_are_taken_away_but_never_the_last(root: Path, open_: Open) -> None:
    for version in ("1", "2"):
        put(root, version, int(version))
    repository = open_()
    shutil.rmtree(root / "m" / "2")
    assert ask(repository) == 2
    repository.load("m")
    assert ask(repository) == 1
    shutil.rmtree(root / "m" / "1")
    with pytest.raises(EngineFailed, match="it has no versions"):
        repository.load("m")
    assert ask(repository) == 1
    shutil.rmtree(root / "m")
    with pytest.raises(NotFound):
        repository.load("m")
    assert repository.index() == [IndexEntry("m", "1", READY, "its folder has gone")]
    repository.unload("m")
    until(lambda: repository.index() == [])
    with pytest.raises(NotFound):
        repository.model("m")


def test_a_pinned_default(root: Path, open_: Open) -> None:
    for version in ("1", "2", "3"):
        put(root, version, int(version))
    pin = root / "m" / "model.toml"
    pin.write_text("default_version = 2")
    repository = open_()
    assert (ask(repository), ask(repository, version="3")) == (2, 3)
    pin.write_text("default_version = 7")
    repository.load("m")
    assert ask(repository) == 2, "the one that is pinned is not there"
    pin.unlink()
    repository.load("m")
    assert ask(repository) == 3
    pin.write_text("default_version = 7")
    other = open_()
    with pytest.raises(Unavailable, match="lets version 7 answer, which is not ready"):
        other.model("m")
    assert ask(other, version="1") == 1


def test_only_the_latest_are_kept(root: Path, open_: Open) -> None:
    for version in ("1", "2", "3", "4"):
        put(root, version, int(version))
    (root / "m" / "model.toml").write_text("keep = 2\ndefault_version = 1")
    repository = open_()
    assert repository.versions("m") == ["1", "3", "4"]
    assert reasons(repository)["2"] == "only the latest 2 are kept, as model.toml says"
    put(root, "5").write_bytes(b"broken")
    with pytest.raises(EngineFailed):
        repository.load("m")
    assert repository.versions("m") == ["1", "3", "4"], "a broken one takes no place"
    put(root, "5", 5)
    repository.load("m")
    assert repository.versions("m") == ["1", "4", "5"]
    shutil.rmtree(root / "m" / "5")
    repository.load("m")
    assert repository.versions("m") == ["1", "3", "4"]


def test_what_nobody_holds_is_freed(root: Path, open_: Open) -> None:
    put(root, "1")
    repository = open_()
    held = repository.model("m")
    session, runner = weakref.ref(held.runner._engine._session), held.runner
    put(root, "1", 2)
    repository.load("m")
    assert not runner.closed.is_set()
    assert times(held) == 1
    del held  # with no help of the garbage collector
    assert runner.closed.wait(60)
    assert session() is None, "the weights are freed"
    assert states(repository) == {("m", "1"): READY}


def test_one_that_cannot_be_closed_holds_up_no_other(
    root: Path, open_: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(root, "1")
    repository = open_()
    broken, held = repository.model("m").runner, []
    honest = Runner.close

    def close(runner: Runner) -> None:
        held.append(runner)
        if runner is broken and len(held) == 1:
            raise RuntimeError("no")
        honest(runner)

    monkeypatch.setattr(Runner, "close", close)
    for factor in (2, 3):
        put(root, "1", factor)
        repository.load("m")
    until(lambda: len(held) == 2)
    assert held[0] is broken
    assert held[1].closed.wait(60)
    assert "could not be closed" in caplog.text
    assert ask(repository) == 3


def test_an_unloaded_model_is_told_to_be_unloading_while_it_answers(
    root: Path, open_: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root, "1", 4)
    repository = open_()
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, repository)
        assert gate.held.wait(60)
        repository.unload("m")
        assert repository.index() == [
            IndexEntry("m", "1", ModelState.UNLOADING, "requests under way are answered"),
        ]
        with pytest.raises(Unavailable):
            repository.model("m")
        gate.opened.set()
        assert answer.result() == 4
    until(lambda: states(repository) == {("m", "1"): GONE})


def test_a_model_is_told_to_be_loading(root: Path, open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "1", 4)
    repository = open_(load="none")
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(1) as pool:
        loading = pool.submit(repository.load, "m")
        assert gate.held.wait(60), "nothing is served that did not run once"
        assert repository.index() == [IndexEntry("m", "1", ModelState.LOADING, "it is being loaded")]
        with pytest.raises(Unavailable, match="it is being loaded"):
            repository.model("m")
        gate.opened.set()
        loading.result()
    assert ask(repository) == 4


def test_files_that_change_while_they_are_read(root: Path, open_: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(root, "1", 4)
    repository = open_(load="none")
    honest = GraphEngine.run

    def run(engine: GraphEngine, inputs: Tensors) -> Any:
        os.utime(path, ns=(1, 1))
        return honest(engine, inputs)

    with monkeypatch.context() as patched:
        patched.setattr(GraphEngine, "run", run)
        with pytest.raises(EngineFailed, match="its files changed while they were read: load it again"):
            repository.load("m")
    repository.load("m")
    assert ask(repository) == 4


def test_close_ends_everything(root: Path) -> None:
    put(root, "1")
    repository = FolderRepository(root, limits=Limits(threads=1), poll=3600)
    model = repository.model("m")
    threads = list(repository._threads)
    assert all(thread.is_alive() for thread in threads)
    repository.close()
    repository.close()
    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(Unavailable):
        times(model)
    with pytest.raises(Unavailable):
        repository.model("m")
    put(root, "1", name="new")
    for name in ("m", "new"):
        with pytest.raises(Unavailable, match="the server is stopping"):
            repository.load(name)
    assert states(repository) == {("m", "1"): GONE}


def test_an_encoder_folder_is_a_model(root: Path, open_: Open, small_encoder: Path) -> None:
    folder = root / "layout" / "1"
    folder.mkdir(parents=True)
    for path in (small_encoder, small_encoder.with_suffix(".toml")):
        shutil.copy(path, folder)
    model = open_().model("layout")
    found = model.infer({"pixels": np.zeros((2, 3, 32, 32), np.float32)}, caller=Caller()).outputs["embedding"]
    np.testing.assert_allclose(found, np.full((2, 48), 0.05), rtol=1e-6)


def test_the_contract_is_kept(root: Path, open_: Open) -> None:
    onnx_models.write(root / "m" / "1", identity("BYTES"))
    repository: Repository = open_()
    model: Model = repository.model("m")
    assert model.inputs[0].dtype == "BYTES"
