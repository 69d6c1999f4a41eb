"""Folders of models as Triton has them: what config.pbtxt says is followed, or the model is refused with the reason."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.feed import Caller
from matchcut.server.serving import ModelState
from matchcut.server.serving.repository import FolderRepository
from matchcut.server.serving.runner import Runner
from support import onnx_models
from support.onnx_models import node
from support.serving import ask, put, say, states

READY, GONE = ModelState.READY, ModelState.UNAVAILABLE
Open = Callable[..., FolderRepository]


def images(first: int | str = "n", width: int | str = "w") -> Any:
    """y has the means of x's 3 channels; all but the channels is open."""
    shape = (first, 3, "h", width)
    nodes = [node("ReduceMean", ["x"], ["y"], axes=[2, 3], keepdims=0)]
    return onnx_models.model(nodes, {"x": ("FP32", shape)}, {"y": ("FP32", (first, 3))})


def refusal(root: Path, triton: Open, config: str | bytes, name: str = "m") -> str:
    """Why the model cannot be loaded."""
    say(root, config, name)
    repository = triton()
    (entry,) = [entry for entry in repository.index() if entry.name == name]
    assert entry.state is GONE
    with pytest.raises(EngineFailed) as caught:
        repository.load(name)
    assert entry.reason in caught.value.message
    return entry.reason


def test_a_repository_of_triton_s_is_served(root: Path, triton: Open) -> None:
    onnx_models.write(root / "m" / "1", images())
    (root / "m" / "names.txt").write_text("red\ngreen\nblue\n")
    say(
        root,
        """
        name: "m" platform: "onnxruntime_onnx" max_batch_size: 4
        input [ { name: "x" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 2, -1 ] } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "names.txt" } ]
        dynamic_batching { default_queue_policy { max_queue_size: 7 } }
        """,
    )
    model = triton().model("m")
    assert model.max_batch == 4
    assert [(spec.name, spec.shape) for spec in model.inputs] == [("x", (-1, 3, 2, -1))]
    assert model.labels == {"y": ("red", "green", "blue")}
    pixels = np.arange(2 * 3 * 2 * 5, dtype=np.float32).reshape(2, 3, 2, 5)
    found = model.infer({"x": pixels}, caller=Caller()).outputs["y"]
    np.testing.assert_allclose(found, pixels.mean(axis=(2, 3)))
    with pytest.raises(InvalidInput, match=r"Expected \[-1,3,2,-1\], got \[1,3,4,5\]"):
        model.infer({"x": np.zeros((1, 3, 4, 5), np.float32)}, caller=Caller())
    with pytest.raises(InvalidInput, match="batch-size must be <= 4"):
        model.infer({"x": np.zeros((5, 3, 2, 5), np.float32)}, caller=Caller())


def test_what_is_not_said_comes_from_the_graph(root: Path, triton: Open) -> None:
    for name, config in {
        "none": None,
        "empty": "",
        "only_backend": 'backend: "onnxruntime"',
        "names": 'input { name: "x" } output { name: "y" }',
        "types": 'input { name: "x" data_type: TYPE_FP32 }',
        "rows": 'output { name: "y" dims: [ 3 ] }',
    }.items():
        onnx_models.write(root / name / "1", images())
        if config is not None:
            say(root, config, name)
    repository = triton()
    for name, _ in states(repository):
        model = repository.model(name)
        assert (model.max_batch, model.inputs[0].shape) == (8, (-1, 3, -1, -1)), name


@pytest.mark.parametrize(
    "config",
    [
        'input { name: "x" dims: [ -1, 3, -1, -1 ] } output { name: "y" dims: [ -1, 3 ] }',
        'output { name: "y" dims: [ 2, 3 ] }',
        'input { name: "x" dims: [ 1, 3, -1, -1 ] }',
    ],
)
def test_no_rows_are_counted_where_all_sizes_are_said(root: Path, triton: Open, config: str) -> None:
    onnx_models.write(root / "m" / "1", images())
    say(root, config)
    assert triton().model("m").max_batch == 0


def test_elements_are_reshaped_for_the_graph_and_back(
    root: Path, triton: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Triton's quick start does it for an image classifier that takes one picture."""
    onnx_models.write(root / "one" / "1", onnx_models.scale(2.0, (1, 3, 2, 2)))
    say(
        root,
        """
        input { name: "x" data_type: TYPE_FP32 dims: [ 3, 4 ] reshape { shape: [ 1, 3, 2, 2 ] } }
        output { name: "y" data_type: TYPE_FP32 dims: [ 12 ] reshape { shape: [ 1, 3, 2, 2 ] } }
        """,
        "one",
    )
    onnx_models.write(root / "rows" / "1", onnx_models.scale(2.0, ("n",)))
    say(
        root,
        'max_batch_size: 4 input { name: "x" dims: 1 reshape { } } output { name: "y" dims: [ 1, 1 ] reshape { } }',
        "rows",
    )
    repository = triton()
    x = np.arange(12, dtype=np.float32)
    one, rows = repository.model("one"), repository.model("rows")
    assert (one.inputs[0].shape, one.outputs[0].shape, one.max_batch) == ((3, 4), (12,), 0)
    np.testing.assert_array_equal(one.infer({"x": x.reshape(3, 4)}, caller=Caller()).outputs["y"], 2 * x)
    assert (rows.inputs[0].shape, rows.outputs[0].shape) == ((-1, 1), (-1, 1, 1))
    found = rows.infer({"x": x[:3].reshape(3, 1)}, caller=Caller()).outputs["y"]
    np.testing.assert_array_equal(found, 2 * x[:3].reshape(3, 1, 1))
    monkeypatch.setattr(Runner, "brief", True)
    answer = rows.at_once({"x": x[3:4].reshape(1, 1)}, caller=Caller())
    assert answer is not None
    assert answer.outputs["y"].tolist() == [[[6]]]


def test_sizes_that_are_open_stay_in_a_reshape(root: Path, triton: Open) -> None:
    """Compared with Triton 2.51, which has the same answers to the same file."""
    onnx_models.write(root / "m" / "1", onnx_models.scale(2.0, ("n", 4, 3, "a", "b")))
    say(
        root,
        """
        max_batch_size: 4
        input { name: "x" data_type: TYPE_FP32 dims: [ 12, -1, -1, 1 ] reshape { shape: [ 4, 3, -1, -1 ] } }
        output { name: "y" data_type: TYPE_FP32 dims: [ 2, 6, -1, 1, -1 ] reshape { shape: [ 4, 3, -1, -1 ] } }
        """,
    )
    model = triton().model("m")
    assert (model.inputs[0].shape, model.outputs[0].shape) == ((-1, 12, -1, -1, 1), (-1, 2, 6, -1, 1, -1))
    for wide in (5, 0):
        x = np.arange(2 * 12 * 3 * wide, dtype=np.float32).reshape(2, 12, 3, wide, 1)
        found = model.infer({"x": x}, caller=Caller()).outputs["y"]
        np.testing.assert_array_equal(found, 2 * x.reshape(2, 2, 6, 3, 1, wide))
    with pytest.raises(InvalidInput, match=r"Expected \[-1,12,-1,-1,1\], got \[1,12,3,1,5\]"):
        model.infer({"x": np.zeros((1, 12, 3, 1, 5), np.float32)}, caller=Caller())


@pytest.mark.parametrize(
    ("lines", "labels"),
    [
        ("a\nb\n", ("a", "b")),
        ("a\nb\nc\nd", ("a", "b", "c", "d")),
        ("\ufeffa\r\nb\r\n\r\n", ("a", "b", "")),
        ("a\u2028b\nc\x0bd\ne\x85f\n", ("a\u2028b", "c\x0bd", "e\x85f")),
        ("", ("",)),
    ],
)
def test_any_number_of_labels_is_taken_one_a_line(
    root: Path, triton: Open, lines: str, labels: tuple[str, ...]
) -> None:
    onnx_models.write(root / "m" / "1", images())
    (root / "m" / "names").write_bytes(lines.encode())
    say(root, 'output { name: "y" dims: 3 label_filename: "names" }')
    assert triton().model("m").labels == {"y": labels}


def test_what_config_pbtxt_asks_for_is_told_before_what_is_missing(root: Path, triton: Open) -> None:
    (root / "m" / "1").mkdir(parents=True)
    reason = refusal(root, triton, 'default_model_filename: "net.onnx"')
    assert reason == "config.pbtxt: default_model_filename is 'net.onnx', which is not in version 1"


def test_the_first_run_has_the_sizes_that_are_said(root: Path, triton: Open, caplog: pytest.LogCaptureFixture) -> None:
    """The graph takes no row of another width than 5, but does not say so."""
    weights = {"w": np.ones((5, 2), np.float32)}
    inputs: dict[str, Any] = {"x": ("FP32", ("n", "width"))}
    proto = onnx_models.model([node("MatMul", ["x", "w"], ["y"])], inputs, {"y": ("FP32", ("n", "more"))}, weights)
    onnx_models.write(root / "m" / "1", proto)
    assert triton().model("m")
    assert caplog.text.count("a first run with guessed sizes failed, so it starts cold") == 1
    caplog.clear()
    say(root, 'input { name: "x" dims: 5 } output { name: "y" dims: 2 } max_batch_size: 4')
    assert triton().model("m").outputs[0].shape == (-1, 2)
    assert not caplog.text


def test_an_output_must_have_the_sizes_that_are_said(root: Path, triton: Open) -> None:
    """The graph gives twice the width of what it takes, but does not say so."""
    kind: Any = ("FP32", ("n", "width"))
    proto = onnx_models.model([node("Concat", ["x", "x"], ["y"], axis=1)], {"x": kind}, {"y": ("FP32", ("n", "more"))})
    onnx_models.write(root / "m" / "1", proto)
    config = 'input { name: "x" dims: 5 } output { name: "y" dims: %s } max_batch_size: 4'
    assert "output 'y' of model 'm/1' has shape [2,10] where [2,7] was expected" in refusal(root, triton, config % 7)
    say(root, config % 10)
    assert triton().model("m").outputs[0].shape == (-1, 10)


def test_only_the_outputs_that_are_declared_are_given(root: Path, triton: Open) -> None:
    nodes = [node("Neg", ["x"], ["a"]), node("Abs", ["x"], ["b"]), node("Identity", ["x"], ["c"])]
    kind = ("FP32", ("n", 2))
    onnx_models.write(root / "m" / "1", onnx_models.model(nodes, {"x": kind}, {"a": kind, "b": kind, "c": kind}))
    say(root, 'output [ { name: "c" }, { name: "a" } ]')
    model = triton().model("m")
    assert [spec.name for spec in model.outputs] == ["c", "a"]
    found = model.infer({"x": np.ones((1, 2), np.float32)}, caller=Caller()).outputs
    assert {name: float(value[0, 0]) for name, value in found.items()} == {"c": 1, "a": -1}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('name: "other"', "name is 'other', but the folder is 'm': make them the same, or leave it out"),
        ('input { name: "z" }', "it has an input 'z', but the graph's are 'x'"),
        ('input { name: "x" } input { name: "x" }', "input 'x' is there twice"),
        ('output { name: "x" }', "it has an output 'x', but the graph's are 'y'"),
        ('input { name: "x" data_type: TYPE_INT64 }', "input 'x' is TYPE_INT64, but TYPE_FP32 in the graph"),
        ('output { name: "y" data_type: TYPE_STRING }', "output 'y' is TYPE_STRING, but TYPE_FP32 in the graph"),
        (
            'max_batch_size: 2 input { name: "x" dims: [ 4, -1, -1 ] }',
            "input 'x' has the dims [4,-1,-1], but [3,-1,-1] in the graph, not counting the first, which counts rows",
        ),
        (
            'max_batch_size: 2 input { name: "x" dims: [ -1, -1, -1 ] }',
            "input 'x' has the dims [-1,-1,-1], but [3,-1,-1] in the graph",
        ),
        (
            'input { name: "x" dims: [ 3 ] } output { name: "y" dims: [ 3 ] }',
            "input 'x' has the dims [3], but [-1,3,-1,-1] in the graph, all of them",
        ),
        (
            'input { name: "x" dims: [ 12 ] reshape { shape: [ 3, 2, 3 ] } }',
            "'x' has the dims [12] and the reshape [3,2,3]: they must have as many elements",
        ),
        (
            'input { name: "x" dims: [ -1 ] reshape { shape: [ 3, 2, -1 ] } }',
            "'x' has the dims [-1] and the reshape [3,2,-1]",
        ),
        (
            'input { name: "x" dims: [ -1, 3, -1 ] reshape { shape: [ 3, -1, -1 ] } }',
            "'x' has the dims [-1,3,-1] and the reshape [3,-1,-1]",
        ),
        (
            'input { name: "x" dims: [ 3, 9223372036854775807, 1 ] }',
            "input 'x' has the dims [3,9223372036854775807,1], more than 512 MiB a row: leave open",
        ),
        (
            "input { name: 'x' dims: [ " + ", ".join(["9223372036854775807"] * 9000) + " ] }",
            "input 'x' has the dims [9223372036854775807,",
        ),
        ('output { name: "y" dims: 3 label_filename: "gone" }', "label_filename of output 'y' is 'gone', which is not"),
        (
            'output { name: "y" label_filename: "../../secret" }',
            "label_filename of output 'y' must be the plain name of a file, not '../../secret'",
        ),
        ('output { name: "y" label_filename: "/etc/passwd" }', "must be the plain name of a file, not '/etc/passwd'"),
        ('output { name: "y" label_filename: "a\\000b" }', "must be the plain name of a file, not 'a\\x00b'"),
        ('output { name: "y" label_filename: ".." }', "must be the plain name of a file, not '..'"),
        ('output { name: "y" label_filename: "link" }', "link is a link that leads out of the repository"),
        ('output { name: "y" label_filename: "circle" }', "circle is a link that leads out of the repository"),
        ('output { name: "y" label_filename: "pipe" }', "pipe is not a file"),
        ('output { name: "y" label_filename: "1" }', "1 is not a file"),
        ('default_model_filename: "gone.onnx"', "default_model_filename is 'gone.onnx', which is not in version 1"),
        ('default_model_filename: "../2/model.onnx"', "default_model_filename must be the plain name of a file"),
        ('default_model_filename: "/model.onnx"', "default_model_filename must be the plain name of a file"),
        ('default_model_filename: "link.onnx"', "link.onnx is a link that leads out of the repository"),
        ('default_model_filename: "' + "x" * 300 + '"', "default_model_filename must be the plain name of a file"),
        ('default_model_filename: "folder"', "'folder' of version 1 is a folder: save the model as one ONNX"),
        ("{", "config.pbtxt: line 1, column 1: "),
        (b"\xff", "config.pbtxt: it is not text: byte 0 is not UTF-8"),
        ("#" * (1 << 19), "config.pbtxt has more than 262144 bytes: shorten it"),
        ('backend: "python"', "it wants the backend 'python', which is not here: export the model to ONNX"),
    ],
)
def test_what_does_not_fit_is_refused_and_harms_no_other(
    root: Path, triton: Open, tmp_path: Path, config: str | bytes, reason: str
) -> None:
    put(root, "1", 3, name="good")
    version = onnx_models.write(root / "m" / "1", images()).parent
    (tmp_path / "secret").write_text("secret")
    (version / "folder").mkdir()
    if "link.onnx" in str(config):
        (version / "link.onnx").symlink_to(tmp_path / "secret")
    (root / "m" / "link").symlink_to(tmp_path / "secret")
    (root / "m" / "circle").symlink_to(root / "m" / "circle")
    os.mkfifo(root / "m" / "pipe")
    assert reason in refusal(root, triton, config)
    assert ask(triton(), "good") == 3


@pytest.mark.parametrize("kind", ["folder", "pipe", "link out", "link to nothing"])
def test_a_config_that_is_no_file(root: Path, triton: Open, tmp_path: Path, kind: str) -> None:
    put(root, "1")
    path = root / "m" / "config.pbtxt"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        (tmp_path / "outside").write_text("")
        path.symlink_to(tmp_path / "outside" if kind == "link out" else root / "m" / "nothing")
    entry = triton().index()[0]
    assert (entry.version, entry.state) == ("1", GONE)
    assert "config.pbtxt is " in entry.reason


def test_rows_need_an_open_first_size(root: Path, triton: Open) -> None:
    onnx_models.write(root / "m" / "1", images(first=1))
    assert refusal(root, triton, "max_batch_size: 1") == (
        "config.pbtxt: max_batch_size is 1, but 'x' has the shape [1,3,-1,-1] in the graph, whose first size is not "
        "open: set it to 0, and say the first size in dims"
    )


def test_inputs_are_declared_all_or_none(root: Path, triton: Open) -> None:
    kind = ("FP32", ("n", 2))
    proto = onnx_models.model([node("Add", ["a", "b"], ["y"])], {"a": kind, "b": kind}, {"y": kind})
    onnx_models.write(root / "m" / "1", proto)
    assert refusal(root, triton, 'input { name: "b" }') == (
        "config.pbtxt: it has the inputs 'b', but the graph takes 'a' too: declare all inputs, or none"
    )
