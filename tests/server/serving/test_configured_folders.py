"""Which versions and files of a model config.pbtxt chooses, what wins over it, and what happens when it changes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from matchcut.server.errors import EngineFailed, Overloaded
from matchcut.server.models.description import IDLE_TIMEOUT, Description
from matchcut.server.serving import Declared, DeclaredState, ModelState
from matchcut.server.serving.configured import setup
from matchcut.server.serving.folder import scan
from matchcut.server.serving.repository import FolderRepository
from matchcut.server.serving.served import Limits
from support import onnx_models
from support.serving import Gate, Waiting, ask, put, reasons, say, states

READY = ModelState.READY
Open = Callable[..., FolderRepository]


def test_other_folders_are_no_versions(root: Path, triton: Open) -> None:
    put(root, "1", 1)
    say(root, "version_policy { all { } }")
    for name in ("warmup", "initial_state", "02", "0"):  # as Triton's documentation has it
        put(root, name, 2)
    assert states(triton()) == {("m", "1"): READY}


def test_a_file_is_chosen_among_several(root: Path, triton: Open) -> None:
    for name, file, factor in (("m", "net.onnx", 2), ("m", "other.onnx", 3), ("odd", "net.bin", 5)):
        onnx_models.write(root / name / "1", onnx_models.scale(factor), file=file)
    for file, factor in (("model.onnx", 7), ("old.onnx", 8)):
        onnx_models.write(root / "usual" / "1", onnx_models.scale(factor), file=file)
    say(root, 'default_model_filename: "other.onnx"')
    say(root, 'default_model_filename: "net.bin"', "odd")
    say(root, "", "usual")
    repository = triton()
    assert (ask(repository), ask(repository, "odd"), ask(repository, "usual")) == (3, 5, 7)
    assert set(reasons(repository).values()) == {""}, "what is ready has no fault"
    say(root, "")
    with pytest.raises(EngineFailed, match=r"there are 2 ONNX files in it, net\.onnx and others: leave one"):
        repository.load("m")
    assert ask(repository) == 3
    onnx_models.write(root / "m" / "1", onnx_models.scale(9), file="other.onnx")
    say(root, 'default_model_filename: "other.onnx"')
    repository.load("m")
    assert ask(repository) == 9


def test_policies_choose_versions(root: Path, triton: Open) -> None:
    for number in range(1, 5):
        put(root, str(number), number)
    say(root, "")
    repository = triton()
    assert repository.versions("m") == ["4"], "the latest one, as with Triton"
    assert reasons(repository)["3"] == "only the latest 1 are kept, as config.pbtxt says"
    for policy, versions, reason in (
        ("latest { num_versions: 2 }", ["3", "4"], "only the latest 2 are kept, as config.pbtxt says"),
        ("all { }", ["1", "2", "3", "4"], ""),
        ("specific { versions: [ 3, 1, 20 ] }", ["1", "3"], "only versions 1, 3, 20 are served, as config.pbtxt says"),
    ):
        say(root, f"version_policy: {{ {policy} }}")
        repository.load("m")
        assert repository.versions("m") == versions
        assert ask(repository) == int(versions[-1])
        assert {each for each in reasons(repository).values() if each} == ({reason} if reason else set())
    say(root, "version_policy: { specific { versions: [ 20 ] } }")
    repository.load("m")
    assert repository.versions("m") == ["1", "3"], "what is not there replaces nothing"
    put(root, "20", 20)
    repository.load("m")
    assert repository.versions("m") == ["20"]


def test_the_latest_that_can_be_loaded_counts(root: Path, triton: Open) -> None:
    put(root, "1", 1)
    put(root, "2", 2)
    put(root, "3").write_bytes(b"broken")
    say(root, "version_policy: { latest { num_versions: 1 } }")
    repository = triton()
    assert repository.versions("m") == ["2"]
    assert "cannot be read as ONNX" in reasons(repository)["3"]


def test_a_toml_wins(root: Path, triton: Open, caplog: pytest.LogCaptureFixture) -> None:
    put(root, "1", 1)
    put(root, "2", 2)
    (root / "m" / "model.toml").write_text("max_batch = 3\n")
    say(root, 'backend: "python" max_batch_size: 5')
    put(root, "1", 1, name="n", toml="max_batch = 3\n")
    put(root, "2", 2, name="n")
    say(root, "max_batch_size: 5 version_policy { all { } }", "n")
    with caplog.at_level(logging.INFO, "matchcut"):
        repository = triton()
    assert (repository.versions("m"), repository.model("m").max_batch) == (["1", "2"], 3)
    assert [repository.model("n", version).max_batch for version in "12"] == [3, 5]
    assert caplog.messages.count("model m: model.toml is there, so config.pbtxt is not read") == 1
    assert caplog.messages.count("model n: model.toml beside version 1 wins over config.pbtxt") == 1


def test_what_is_said_in_vain_is_told_in_one_line(root: Path, triton: Open, caplog: pytest.LogCaptureFixture) -> None:
    put(root, "1", 1)
    say(
        root,
        "instance_group [ { count: 2 kind: KIND_GPU } ] optimization { graph { level: 1 } } model_warmup [ { } ]"
        " dynamic_batching { max_queue_delay_microseconds: 100 }",
    )
    with caplog.at_level(logging.DEBUG, "matchcut"):
        repository = triton()
    assert ask(repository) == 1
    (told,) = [record for record in caplog.records if "says more" in record.message]
    assert told.levelno == logging.INFO
    assert told.message == (
        "model m: config.pbtxt says more than this server needs: instance_group, optimization, model_warmup"
    )
    (delay,) = [record for record in caplog.records if "held back" in record.message]
    assert delay.levelno == logging.DEBUG
    caplog.clear()
    say(root, "".join(f"odd{number}: 1\n" for number in range(1000)))
    with caplog.at_level(logging.INFO, "matchcut"):
        repository.load("m")
    (told,) = [record for record in caplog.records if "says more" in record.message]
    assert told.message.endswith("odd18, odd19, ...")


def test_a_broken_config_replaces_nothing_and_is_tried_once(
    root: Path, triton: Open, caplog: pytest.LogCaptureFixture
) -> None:
    put(root, "1", 1)
    say(root, "max_batch_size: 2")
    repository = triton()
    for _ in range(2):
        repository.poll()
    say(root, "max_batch_size: 4 max_batch_size: 8")
    with caplog.at_level(logging.WARNING, "matchcut"):
        for _ in range(5):
            repository.poll()
    assert (ask(repository), repository.model("m").max_batch) == (1, 2)
    why = "config.pbtxt: line 1, column 35: Message type"
    assert reasons(repository)["1"].startswith(why)
    assert states(repository) == {("m", "1"): READY}
    assert caplog.text.count("model m cannot be loaded: " + why) == 1
    say(root, "max_batch_size: 4")
    repository.poll()
    assert repository.model("m").max_batch == 2, "it may still be written"
    repository.poll()
    assert repository.model("m").max_batch == 4
    assert reasons(repository) == {"1": ""}
    (root / "m" / "config.pbtxt").unlink()
    for _ in range(2):
        repository.poll()
    assert repository.model("m").max_batch == 8, "as the graph alone has it"


def test_without_a_reader_it_is_a_file_like_any_other(root: Path, open_: Open) -> None:
    put(root, "1", 1)
    say(root, "{{{")
    assert ask(open_()) == 1


def test_class_names_are_read_anew_where_their_file_changes(root: Path, triton: Open) -> None:
    put(root, "1", 1)
    (root / "m" / "names").write_text("a\nb\nc\n")
    say(root, 'output { name: "y" label_filename: "names" }')
    repository = triton()
    repository.poll()
    (root / "m" / "names").write_text("d\ne\nf and more\n")
    for _ in range(2):
        repository.poll()
    assert repository.model("m").labels == {"y": ("d", "e", "f and more")}


def test_a_reader_that_breaks_takes_no_other_model_along(root: Path, open_: Open) -> None:
    put(root, "1", 1)
    put(root, "1", 2, name="n")
    say(root, "")

    def read(content: bytes) -> Declared:
        raise MemoryError("too much")

    repository = open_(read=read)
    assert ask(repository, "n") == 2
    assert reasons(repository) == {"1": "it cannot be loaded: too much"}


def test_a_full_queue_is_as_long_as_it_says(root: Path, triton: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    put(root, "1", 1)
    say(root, "max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 2 } }")
    waiting = Waiting(2)
    repository = triton(limits=Limits(threads=1, watcher=waiting))
    gate = Gate(monkeypatch)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(ask, repository) for _ in range(3)]
        reached = waiting.reached.wait(60)
        try:
            with pytest.raises(Overloaded):
                ask(repository)
        finally:
            gate.opened.set()
        assert [each.result() for each in asked] == [1, 1, 1]
    assert reached


@pytest.mark.parametrize(("idle", "seconds"), [(0.0, IDLE_TIMEOUT), (2.5, 2.5)])
def test_what_a_version_is_set_up_with(root: Path, idle: float, seconds: float) -> None:
    put(root, "1", 1)
    say(root, "")
    folder = scan(root)["m"]
    (version,) = folder.versions
    said = Declared(sequential=True, states=(DeclaredState("h", "h_next"),), idle_timeout=idle)

    def read(content: bytes) -> Declared:
        return said

    found = setup(folder, version, root, read)
    assert found.onnx == root / "m" / "1" / "model.onnx"
    assert found.declared is said
    assert found.description == Description(states={"h": "h_next"}, idle_timeout=seconds)
