"""A version's folder: what a server computes with it is what was trained, or it is not written."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.session.onnx import OnnxSession
from matchcut.server.training.session import folder, scan
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.fitting import Fitted, fresh
from matchcut.server.training.session.judging import histories, model_answers, network_answers
from matchcut.server.training.session.settings import Settings

PLAIN = {"Add", "Concat", "Constant", "Div", "Gemm", "Mul", "Neg", "ReduceSum", "Sigmoid", "Slice", "Split", "Sqrt"}


@pytest.fixture(params=["gru", "sasrec"])
def fitted(request: pytest.FixtureRequest) -> Fitted:
    found: Fitted = request.getfixturevalue(request.param)
    return found


def test_a_server_ranks_as_the_training_did(fitted: Fitted, ring: Dataset, tmp_path: Path) -> None:
    found = folder.write(
        tmp_path / "3", fitted.network, ring, name="ring", version="3", tables={"metrics": {"a@1": 0.5}}
    )
    assert set(found.errors) == {"items.onnx", "step.onnx", "seq.onnx", "seq to step"}
    assert max(found.errors.values()) <= 1e-5
    model = OnnxSession(tmp_path / "3", ring.encoder)
    assert (model.identity.name, model.identity.version) == ("ring", "3")
    whole = histories(ring)
    whole = [(items[: 1 + at % 9], strengths[: 1 + at % 9]) for at, (items, strengths) in enumerate(whole)]
    scores = model_answers(model, ring, whole).scores()
    wanted = network_answers(fitted.network, whole).scores()
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    np.testing.assert_allclose(scores / np.linalg.norm(scores, axis=1, keepdims=True), wanted, atol=1e-5)
    # An item that was not learnt has its content's vector.
    with torch.no_grad():
        content = fitted.network.content[:2]
        cold = fitted.network.tower(content, torch.zeros(2, dtype=torch.int64)).numpy()
    np.testing.assert_allclose(model.items(["new", "newer"], ring.content[:2]), cold, atol=1e-6)
    model.close()


def test_what_is_said_of_it(gru: Fitted, ring: Dataset, tmp_path: Path) -> None:
    folder.write(
        tmp_path / "1", gru.network, ring, name='a "b"\n\x7f', version="1", tables={"x y": {"v": 1e-7, "t": True}},
        beside={"report.json": b"{}"},
    )  # fmt: skip
    said = tomllib.loads((tmp_path / "1" / "session.toml").read_text())
    assert said["name"] == 'a "b"\n\x7f'
    assert said["x y"] == {"v": 1e-7, "t": True}
    assert set(said["files"]) == {"items.onnx", "step.onnx", "seq.onnx", "ids.txt", "report.json"}
    assert (tmp_path / "1" / "ids.txt").read_text().splitlines()[0] == '"i00"'
    # i40 has a vector, and nobody used it.
    assert len((tmp_path / "1" / "ids.txt").read_text().splitlines()) == len(ring.content) - 1
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_step_is_of_plain_operations(gru: Fitted) -> None:
    model = onnx.load_from_string(folder.graphs(gru.network).files["step.onnx"])
    used = {node.op_type for node in model.graph.node}
    assert {"Gemm", "Sigmoid", "Tanh"} <= used
    assert not used & {"GRU", "Loop", "Scan", "If"}
    assert model.opset_import[0].version <= 17


@pytest.mark.parametrize(
    "change",
    [
        {"content": False},
        {"ids": False},
        {"normalise": False},
        {"kind": "sasrec", "window": 3, "layers": 2},
        {"window": 0},
    ],
)
def test_each_kind_of_model_can_be_exported(ring: Dataset, small: Settings, change: dict[str, object]) -> None:
    settings = replace(small, **change)  # type: ignore[arg-type]
    torch.manual_seed(1)
    network = fresh(ring, settings, np.arange(len(ring.content)))
    for weight in network.history.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    assert max(folder.graphs(network).errors.values()) <= 1e-5


def test_a_graph_that_is_off_is_refused(gru: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    over_time = scan.over_time

    def off(step: bytes, width: int, dimensions: int) -> bytes:
        model = onnx.load_from_string(over_time(step, width, dimensions))
        (scan,) = [node for node in model.graph.node if node.op_type == "Scan"]
        (body,) = [attribute.g for attribute in scan.attribute if attribute.name == "body"]
        # The strength of each event is forgotten: x and w are the third and fourth of the step's inputs.
        body.node.insert(0, onnx.helper.make_node("Mul", ["w", "w"], ["w_squared"]))
        for node in list(body.node)[1:]:
            node.input[:] = ["w_squared" if name == "event_w" else name for name in node.input]
        body.node[0].input[:] = ["event_w", "event_w"]
        data: bytes = model.SerializeToString()
        return data

    monkeypatch.setattr(folder, "over_time", off)
    with pytest.raises(EngineFailed, match="off torch in 'query'") as failed:
        folder.graphs(gru.network)
    assert failed.value.reason == "PARITY_FAILED"


def test_versions_are_never_changed(gru: Fitted, ring: Dataset, tmp_path: Path) -> None:
    assert folder.next_version(tmp_path / "none") == 1
    for name in ("1", "7", "x"):
        (tmp_path / name).mkdir()
    assert folder.next_version(tmp_path) == 8
    with pytest.raises(InvalidInput, match="is there already"):
        folder.write(tmp_path / "7", gru.network, ring, name="ring", version="7", tables={})
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        folder.write(tmp_path / "file" / "1", gru.network, ring, name="ring", version="1", tables={})
