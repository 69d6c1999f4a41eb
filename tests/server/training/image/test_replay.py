"""The default encoder in torch is the graph's, its last blocks can be learnt on, and are written back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from matchcut.server import models
from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import InvalidInput
from matchcut.server.models import graph
from matchcut.server.training.image import exporting
from matchcut.server.training.image.replay import Head, Replay, write

CACHE = Path(__file__).parents[4] / "build" / "cache"


@pytest.fixture(scope="module")
def encoder() -> Path:
    return models.default_encoder(CACHE)


@pytest.fixture(scope="module")
def content(encoder: Path) -> bytes:
    return encoder.read_bytes()


def made(content: bytes, *, unfreeze: int = 0, classes: int = 4) -> Replay:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Replay(content, Head(1280, classes).head, unfreeze=unfreeze, dropout=0.0)


def noise(count: int) -> torch.Tensor:
    return torch.randn((count, 3, 224, 224), generator=torch.Generator().manual_seed(count))


def test_it_computes_what_the_graph_does(encoder: Path, content: bytes) -> None:
    engine = GraphEngine(graph.read(encoder), threads=1)
    pictures = noise(2)
    expected = engine.run({"image": pictures.numpy()})["embedding"]
    model = made(content).eval()
    assert model.embed(pictures).detach().numpy() == pytest.approx(expected, abs=1e-4)
    assert model.frozen == len(model.steps)
    assert [name for name, each in model.named_parameters() if each.requires_grad] == ["head.weight", "head.bias"]


def test_the_last_blocks_are_learnt_and_no_others(content: bytes) -> None:
    model = made(content, unfreeze=2)
    blocks = {name.split(".")[0] + "." + name.split(".")[1] for name in model.learnt if name.startswith("_blocks")}
    assert blocks == {"_blocks.14", "_blocks.15"}
    assert "_conv_head.weight" in model.learnt
    assert "_conv_stem.weight" not in model.learnt
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    optimizer = torch.optim.SGD([each for each in model.parameters() if each.requires_grad], lr=0.1)
    nn.functional.cross_entropy(model(noise(2)), torch.tensor([0, 3])).backward()
    optimizer.step()
    moved = {name for name, each in model.named_parameters() if not torch.equal(each, before[name])}
    assert moved
    assert {name.removeprefix("stored.").replace("/", ".") for name in moved} <= {
        *model.learnt,
        "head.weight",
        "head.bias",
    }
    assert any("_blocks/14" in name for name in moved)
    # What was learnt is in the file, and the rest is as it was.
    model.eval()
    exported = write(content, model)
    assert exporting.check(exported, model, noise(3)) <= 1e-5
    stored = {each.name: each for each in onnx.load_from_string(exported).graph.initializer}
    original = {each.name: each for each in onnx.load_from_string(content).graph.initializer}
    assert stored["_conv_stem.weight"] == original["_conv_stem.weight"]
    assert stored["_blocks.15._project_conv.weight"] != original["_blocks.15._project_conv.weight"]
    assert "_fc.weight" not in stored
    assert write(content, model) == exported


def test_a_file_that_computes_something_else_is_refused(content: bytes) -> None:
    from matchcut.server.errors import EngineFailed

    model = made(content).eval()
    exported = write(content, model)
    with torch.no_grad():
        model.head.bias[0] += 0.01
    with pytest.raises(EngineFailed, match="off torch in 'probabilities'") as caught:
        exporting.check(exported, model, noise(2))
    assert caught.value.reason == "PARITY_FAILED"


def test_more_blocks_than_there_are(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="--unfreeze 17: this encoder has 16 blocks") as caught:
        made(content, unfreeze=17)
    assert caught.value.field == "unfreeze"
    assert made(content, unfreeze=16).frozen > 0


def test_a_graph_of_other_nodes_is_refused() -> None:
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("image", "embedding")]
    nodes = [helper.make_node("Sigmoid", ["image"], ["embedding"])]
    model = helper.make_model(helper.make_graph(nodes, "other", tensors[:1], tensors[1:]))
    with pytest.raises(InvalidInput, match="this encoder has a Sigmoid, which cannot be learnt on"):
        Replay(model.SerializeToString(), Head(3, 2).head, unfreeze=0)


@pytest.mark.parametrize("pads", [[1, 1, 1, 1], [0, 0, 1, 1], [0, 1, 2, 0]])
def test_paddings_are_onnx(pads: list[int], tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], pads=pads, strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("GlobalAveragePool", ["r"], ["p"]),
        helper.make_node("Flatten", ["p"], ["embedding"]),
    ]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 9, 9])]
    outputs = [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 4])]
    stored = [onnx.numpy_helper.from_array(weight, "w")]
    made_graph = helper.make_graph(nodes, "padded", inputs, outputs, stored)
    model = helper.make_model(made_graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    replayed = Replay(model.SerializeToString(), Head(4, 2).head, unfreeze=0).eval()
    pictures = torch.randn((2, 3, 9, 9))
    assert exporting.check(write(model.SerializeToString(), replayed), replayed, pictures) <= 1e-5
