"""What is said of a model beside its ONNX file: every mistake in it is named, and no file outside is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from onnx import helper

from matchcut.server.errors import EngineFailed
from matchcut.server.models import description
from matchcut.server.models.description import Description
from support import onnx_models

ENCODER = """\
name = "own"
version = "1"
dimensions = 3

[input]
width = 2
height = 2
layout = "NCHW"
mean = [1, 2, 3]
std = [4, 5, 6]
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with one model, without any TOML."""
    onnx_models.write(tmp_path / "root" / "m" / "1", onnx_models.identity())
    return tmp_path / "root"


def read(root: Path, version: str | None = None, model: str | None = None) -> Description:
    """What is said of version 1 of m after these TOML files were written."""
    folder = root / "m"
    if version is not None:
        (folder / "1" / "model.toml").write_text(version)
    if model is not None:
        (folder / "model.toml").write_text(model)
    return description.of_version(folder / "1" / "model.onnx", folder, root)


def test_nothing_is_said(root: Path) -> None:
    assert read(root) == description.of_model(root / "m", root) == Description()


def test_all_is_said(root: Path) -> None:
    (root / "m" / "1" / "names").write_text("cat\ndog\n")
    found = read(
        root,
        'max_batch = 16\ninstances = 2\nthreads = 3\n[labels]\ny = "names"\n'
        '[sequence]\nidle_timeout = 2.5\nstates = { h_in = "h_out", c_in = "c_out" }\n',
        "default_version = 3\nkeep = 2\n",
    )
    assert found == Description(
        default_version="3",
        keep=2,
        max_batch=16,
        instances=2,
        threads=3,
        labels={"y": ("cat", "dog")},
        states={"h_in": "h_out", "c_in": "c_out"},
        idle_timeout=2.5,
    )


def test_the_version_beats_the_model(root: Path) -> None:
    for folder, name in ((root / "m", "of the model"), (root / "m" / "1", "of the version")):
        (folder / "names").write_text(name)
    (root / "m" / "shared").write_text("one\n")
    model = 'max_batch = 2\nthreads = 2\n[labels]\nx = "shared"\n'
    assert read(root, "threads = 4", model) == Description(max_batch=2, threads=4, labels={"x": ("one",)})
    assert read(root, '[labels]\nx = "names"').labels == {"x": ("of the version",)}
    assert description.of_model(root / "m", root) == Description(max_batch=2, threads=2)


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("max_batch = ", "model.toml is not valid TOML"),
        ("max_batch = \xff", "model.toml is not valid TOML"),
        ("x = " + "[" * 5000, "model.toml is not valid TOML"),
        ("batch = 1", "batch is unknown; known are max_batch, instances, threads, labels, sequence"),
        ("max_batch = -1", "max_batch must be a whole number, 0 or more, not -1"),
        ("max_batch = true", "max_batch must be a whole number"),
        ('max_batch = "8"', "max_batch must be a whole number"),
        ("max_batch = 1.0", "max_batch must be a whole number"),
        ("instances = 0", "instances must be a whole number, 1 or more"),
        ("threads = -1", "threads must be"),
        ("keep = 1", "keep is unknown"),
        ("default_version = 1", "default_version is unknown"),
        ("labels = 1", "labels must be a table"),
        ("[labels]\ny = 1", "labels must be a table"),
        ("sequence = 1", "sequence must be a table"),
        ("[sequence]\nidle_timeout = 1", "sequence.states is missing"),
        ("[sequence]\nstates = {}", "sequence.states must be a table"),
        ('[sequence]\nstates = {a = ""}', "sequence.states must be a table"),
        ('[sequence]\nstates = {a = "b"}\nmore = 1', "sequence.more is unknown"),
        ('[sequence]\nstates = {a = "b"}\nidle_timeout = 0', "sequence.idle_timeout must be a number of seconds"),
        ('[sequence]\nstates = {a = "b"}\nidle_timeout = inf', "sequence.idle_timeout must be a number of seconds"),
        ('[sequence]\nstates = {a = "b"}\nidle_timeout = nan', "sequence.idle_timeout must be a number of seconds"),
        ('[labels]\ny = "names"', "labels.y: there is no file 'names' beside the model"),
        ('[labels]\ny = "../../secret"', "labels.y must be the plain name of a file"),
        ('[labels]\ny = "/etc/passwd"', "labels.y must be the plain name of a file"),
        ('[labels]\ny = ".."', "labels.y must be the plain name of a file"),
        ('[labels]\ny = "a\\u0000b"', "labels.y must be the plain name of a file"),
        ('[labels]\ny = "folder"', "labels.y: folder cannot be read: Is a directory"),
    ],
)
def test_mistakes_are_named(root: Path, toml: str, message: str) -> None:
    (root / "m" / "1" / "folder").mkdir()
    (root / "m" / "1" / "model.toml").write_bytes(toml.encode("latin-1"))
    with pytest.raises(EngineFailed, match=message) as caught:
        read(root)
    assert caught.value.reason == "MODEL_INVALID"


@pytest.mark.parametrize(
    ("toml", "message"),
    [("keep = -1", "keep must be"), ("default_version = 0", "default_version must be"), ("[", "not valid TOML")],
)
def test_mistakes_of_the_model(root: Path, toml: str, message: str) -> None:
    with pytest.raises(EngineFailed, match=message):
        read(root, model=toml)
    with pytest.raises(EngineFailed, match=message):
        description.of_model(root / "m", root)


def test_links_do_not_lead_out(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("threads = 7\n")
    beside = root / "m" / "1" / "model.toml"
    beside.symlink_to(tmp_path / "secret")
    with pytest.raises(EngineFailed, match="a link that leads out of the repository"):
        read(root)
    beside.unlink()
    (root / "shared.toml").write_text("threads = 7\n")
    beside.symlink_to(root / "shared.toml")
    assert read(root).threads == 7
    beside.unlink()
    beside.symlink_to(root / "m" / "nothing")
    with pytest.raises(EngineFailed, match="a link to nothing"):
        read(root)
    beside.unlink()
    beside.symlink_to(beside)
    with pytest.raises(EngineFailed, match="is a link"):
        read(root)
    beside.unlink()
    (root / "m" / "1" / "names").symlink_to(tmp_path / "secret")
    with pytest.raises(EngineFailed, match="names is a link that leads out"):
        read(root, '[labels]\ny = "names"')


def test_a_file_that_cannot_be_read(root: Path) -> None:
    (root / "m" / "1" / "model.toml").mkdir()
    with pytest.raises(EngineFailed, match="cannot be read: Is a directory"):
        read(root)


def test_an_encoder_is_a_model_too(root: Path) -> None:
    proto = onnx_models.model(
        [
            helper.make_node("ReduceMean", ["image"], ["embedding"], axes=[2, 3], keepdims=0),
            helper.make_node("Identity", ["embedding"], ["classes"]),
        ],
        {"image": ("FP32", ("n", 3, 2, 2))},
        {"embedding": ("FP32", ("n", 3)), "classes": ("FP32", ("n", 3))},
    )
    onnx_models.write(root / "m" / "1", proto)
    assert read(root, ENCODER, "max_batch = 4") == Description(max_batch=4)
    (root / "m" / "1" / "names.txt").write_text("a\nb\nc\n")
    labelled = ENCODER.replace("[input]", 'labels = "names.txt"\n[input]')
    assert read(root, labelled).labels == {"": ("a", "b", "c")}
    for wrong, message in [
        (ENCODER.replace("dimensions = 3", "dimensions = 4"), "has shape"),
        (ENCODER.replace("dimensions = 3\n", ""), "dimensions is missing"),
        (labelled.replace("names.txt", "../names.txt"), "model.toml: Invalid name"),
        (labelled.replace("names.txt", "other.txt"), "cannot read this part"),
    ]:
        with pytest.raises(EngineFailed, match=message):
            read(root, wrong)


def test_a_circle_of_links_is_not_inside(tmp_path: Path) -> None:
    os.symlink(tmp_path / "b", tmp_path / "a")
    os.symlink(tmp_path / "a", tmp_path / "b")
    assert not description.contained(tmp_path / "a", tmp_path)
    assert description.contained(tmp_path / "new", tmp_path)
