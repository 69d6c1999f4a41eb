"""An encoder's description: every mistake in it is found before anything runs, and named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from matchcut.server import models
from matchcut.server.errors import EngineFailed
from matchcut.server.models import graph_signature
from matchcut.server.models.graph_signature import Tensor
from matchcut.server.records import InputSize

TOML = """\
name = "tiny"
version = "1"
dimensions = 3

[input]
width = 10
height = 8
layout = "NCHW"
mean = [1, 2.5, 3]
std = [4, 5, 6]
"""

Write = Callable[..., Path]


def model(
    image: list[Any] | None = None, embedding: list[Any] | None = None, kind: int = TensorProto.FLOAT, extra: int = 0
) -> Any:
    """Mean of each channel, (n, 3, 8, 10) to (n, 3), with a weight listed among the inputs as old files have it."""
    weight = numpy_helper.from_array(np.array([0], np.int64), "start")
    inputs = [helper.make_tensor_value_info("image", kind, image or ["n", 3, 8, 10])]
    inputs += [helper.make_tensor_value_info(f"extra{i}", TensorProto.FLOAT, [1]) for i in range(extra)]
    inputs.append(helper.make_tensor_value_info("start", TensorProto.INT64, [1]))
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, embedding or ["n", 3])]
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["embedding"]),
    ]
    return helper.make_model(helper.make_graph(nodes, "tiny", inputs, outputs, [weight]))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a model with its description, and labels where they are given."""

    def files(toml: str = TOML, graph: Any = None, labels: str | None = None) -> Path:
        path = tmp_path / "encoder.onnx"
        path.write_bytes((graph or model()).SerializeToString())
        path.with_suffix(".toml").write_text(toml)
        if labels is not None:
            (tmp_path / "names.txt").write_text(labels)
        return path

    return files


def test_a_description_is_read(write: Write) -> None:
    encoder = models.load(write())
    assert (encoder.identity.name, encoder.identity.version, encoder.identity.dimensions) == ("tiny", "1", 3)
    assert encoder.input == InputSize(width=10, height=8, fit="stretch")
    assert (encoder.mean, encoder.std, encoder.layout, encoder.labels) == ((1, 2.5, 3), (4, 5, 6), "NCHW", ())
    assert encoder.shape(2) == (2, 3, 8, 10)


def test_channels_last(write: Write) -> None:
    encoder = models.load(write(TOML.replace("NCHW", "NHWC"), model(["n", 8, 10, 3])))
    assert encoder.shape(2) == (2, 8, 10, 3)


def test_the_digest_covers_all_that_changes_vectors(write: Write) -> None:
    digest = models.load(write()).identity.digest
    assert models.load(write()).identity.digest == digest
    changes = [("3]", "3.5]"), ("[4,", "[4.5,"), ('layout = "NCHW"', 'layout = "NCHW"\nfit = "crop"')]
    others = [models.load(write(TOML.replace(*change))).identity.digest for change in changes]
    named = model()
    named.producer_name = "other"
    others.append(models.load(write(graph=named)).identity.digest)
    assert len({digest, *others}) == 5
    assert models.load(write(TOML.replace("tiny", "other name"))).identity.digest == digest


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "tiny"\n', "", "name is missing"),
        ('version = "1"', "version = 1", "version must be text in quotes, not 1"),
        ('"tiny"', '" "', "name must not be empty"),
        ("dimensions = 3", "dimensions = 0", "dimensions must be at least 1"),
        ("dimensions = 3", "dimensions = true", "dimensions must be a whole number"),
        ("[input]", "[inputs]", "inputs is unknown"),
        ("width = 10\n", "", "input.width is missing"),
        ("width = 10", "width = -1", "input.width must be at least 1"),
        ("width = 10", "widht = 10", "input.widht is unknown; known are width, height"),
        ('"NCHW"', '"CHWN"', "input.layout must be one of NCHW, NHWC, not 'CHWN'"),
        ('"NCHW"', '"NCHW"\nfit = "pad"', "input.fit must be one of stretch, crop"),
        ("mean = [1, 2.5, 3]", "mean = [1, 2]", "input.mean must be three numbers"),
        ("mean = [1, 2.5, 3]", "mean = [1, 2, nan]", "input.mean must be three numbers"),
        ("mean = [1, 2.5, 3]", "mean = 127", "input.mean must be three numbers"),
        ("std = [4, 5, 6]", "std = [4, 0, 6]", "input.std must be above zero"),
        ("std = [4, 5, 6]", "std = [4, 'x', 6]", "input.std must be three numbers"),
        ("dimensions = 3", "dimensions = ", "not valid TOML"),
        ("dimensions = 3", "dimensions = 4", r"'embedding' has shape \(None, 3\) where .* \(n, 4\)"),
        (
            "height = 8",
            "height = 9",
            r"'image' has shape \(None, 3, 8, 10\) where the description says \(1, 3, 9, 10\)",
        ),
        ('"NCHW"', '"NHWC"', r"where the description says \(1, 8, 10, 3\)"),
        ("dimensions = 3", 'dimensions = 3\nlabels = "names.txt"', "no second output"),
    ],
)
def test_a_wrong_description_is_named(write: Write, old: str, new: str, says: str) -> None:
    assert old in TOML
    with pytest.raises(EngineFailed, match=says) as caught:
        models.load(write(TOML.replace(old, new, 1), labels="a\nb"))
    assert caught.value.reason == "ENCODER_INVALID"


@pytest.mark.parametrize(
    ("graph", "says"),
    [
        (model(["n", 3, 8]), "'image' has shape"),
        (model([4, 3, 8, 10]), "takes exactly 4 pictures"),
        (model(kind=TensorProto.UINT8), "must both be float32"),
        (model(extra=1), "2 inputs and 1 outputs"),
        (model(embedding=["n", 3, 1]), "'embedding' has shape"),
    ],
)
def test_a_graph_that_cannot_serve_is_refused(write: Write, graph: Any, says: str) -> None:
    with pytest.raises(EngineFailed, match=says):
        models.load(write(graph=graph))


def test_labels_must_fit_the_second_output(write: Write) -> None:
    graph = model()
    graph.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2]))
    toml = TOML.replace("dimensions = 3", 'dimensions = 3\nlabels = "names.txt"')
    assert models.load(write(toml, graph, labels="cat\ndog\n")).labels == ("cat", "dog")
    with pytest.raises(EngineFailed, match="3 labels for 'logits'"):
        models.load(write(toml, graph, labels="cat\ndog\ncow\n"))


def test_weights_in_another_file_are_refused(write: Write, tmp_path: Path) -> None:
    graph = model()
    onnx.external_data_helper.convert_model_to_external_data(graph, location="side.bin", size_threshold=0)
    with pytest.raises(EngineFailed, match="save the model as one file"):
        models.load(write(graph=graph))


def test_missing_files_are_named(write: Write, tmp_path: Path) -> None:
    path = write()
    path.with_suffix(".toml").unlink()
    with pytest.raises(EngineFailed, match=r"encoder\.toml: cannot read") as caught:
        models.load(path)
    assert caught.value.reason == "ENCODER_MISSING"
    with pytest.raises(EngineFailed, match=r"other\.onnx: cannot read"):
        models.load(tmp_path / "other.onnx")
    with pytest.raises(EngineFailed, match=r"names\.txt: cannot read"):
        models.load(write(TOML.replace("dimensions = 3", 'dimensions = 3\nlabels = "names.txt"')))


def test_a_signature_is_read_as_onnx_reads_it() -> None:
    signature = graph_signature.read(model(extra=1).SerializeToString())
    assert signature.inputs == (Tensor("image", 1, (None, 3, 8, 10)), Tensor("extra0", 1, (1,)))
    assert signature.outputs == (Tensor("embedding", 1, (None, 3)),)
    assert not signature.external


def test_a_model_cut_off_anywhere_is_refused() -> None:
    whole = model()
    data, graph = whole.SerializeToString(), whole.graph.SerializeToString()
    end = data.index(graph) + len(graph)  # what follows the graph may be missing: protobuf cannot tell
    assert graph_signature.read(data[:end]).outputs
    for length in range(end):
        with pytest.raises(ValueError, match=r"cut off|not an ONNX model"):
            graph_signature.read(data[:length])


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error_or_empty(data: bytes) -> None:
    try:
        signature = graph_signature.read(data)
    except ValueError:
        return
    assert isinstance(signature.inputs, tuple)


def test_random_bytes_as_a_model(write: Write) -> None:
    path = write()
    path.write_bytes(os.urandom(4096))
    with pytest.raises(EngineFailed):
        models.load(path)
