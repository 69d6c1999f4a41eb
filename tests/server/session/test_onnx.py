"""A trained session model: what it computes, and that nothing broken is ever served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from matchcut.server.errors import EngineFailed
from matchcut.server.records import EncoderIdentity, Floats
from matchcut.server.session import OnnxSession
from support import onnx_models, session_models

NODE = onnx_models.node
IDS = ("a", "b", "line\nbreak", "\u2028", "ünï")


def content(count: int, seed: int = 0) -> Floats:
    made = np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)
    rows: Floats = made / np.linalg.norm(made, axis=1, keepdims=True)
    return rows


def test_items_are_content_and_learnt_ids(tmp_path: Path, encoder: EncoderIdentity) -> None:
    made = session_models.write(tmp_path, encoder, ids=IDS)
    model = OnnxSession(tmp_path, encoder)
    asked = ["ünï", "never learnt", "line\nbreak", "a", ""]
    expected = content(5) @ made["P"] + made["table"][[5, 0, 3, 1, 0]]
    np.testing.assert_allclose(model.items(asked, content(5)), expected, atol=1e-6)
    assert model.items([], content(0)).shape == (0, 4)


def test_a_state_is_h_and_its_query(tmp_path: Path, encoder: EncoderIdentity) -> None:
    made = session_models.write(tmp_path, encoder)
    model = OnnxSession(tmp_path, encoder)
    x, w = content(3)[:, :4].copy(), np.array([1, 0.5, 0.1], np.float32)
    states = model.begin(3)
    assert states.shape == (3, model.width)
    assert not model.queries(states).any()
    h = np.zeros((3, session_models.WIDTH), np.float32)
    for _ in range(3):
        states = model.step(x, states, w)
        h, query = session_models.step(made, x, h, w)
    np.testing.assert_allclose(states, np.concatenate([h, query], axis=1), atol=1e-6)
    direction = query / np.linalg.norm(query, axis=1, keepdims=True)
    np.testing.assert_allclose(model.queries(states), direction, atol=1e-6)


def test_the_identity_is_of_what_makes_the_state(tmp_path: Path, encoder: EncoderIdentity) -> None:
    session_models.write(tmp_path / "a", encoder)
    session_models.write(tmp_path / "b", encoder, toml={"metrics.recall_at_10": 0.2, "trained_on": "a laptop"})
    session_models.write(tmp_path / "c", encoder, seed=1)
    session_models.write(tmp_path / "d", encoder, ids=["x"])
    one, same, other, learnt = (OnnxSession(tmp_path / name).identity for name in "abcd")
    assert one == same
    assert len({one.digest, other.digest, learnt.digest}) == 3
    assert (one.name, one.version, one.dimensions) == ("small", "0", 4)


def test_a_closed_model_says_so(tmp_path: Path, encoder: EncoderIdentity) -> None:
    session_models.write(tmp_path, encoder)
    model = OnnxSession(tmp_path, encoder)
    model.close()
    model.close()
    with pytest.raises(EngineFailed, match="closed"):
        model.step(content(1)[:, :4], model.begin(1), np.ones(1, np.float32))


def test_a_model_of_another_encoder_is_refused(tmp_path: Path, encoder: EncoderIdentity) -> None:
    session_models.write(tmp_path, encoder)
    with pytest.raises(EngineFailed, match="trained on vectors of 'tiny'") as caught:
        OnnxSession(tmp_path, EncoderIdentity("other", "1", "d2", 6))
    assert caught.value.reason == "MODEL_INVALID"


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ({"name": None}, "name is missing"),
        ({"name": ""}, "name is empty"),
        ({"version": 3}, "version must be text"),
        ({"dimensions": 0}, "dimensions must be a whole number from 1"),
        ({"dimensions": True}, "dimensions must be a whole number"),
        ({"dimensions": 5}, "those of this session model are"),
        ({"width": 6}, "those of this session model are"),
        ({"width": 10**9}, "width must be"),
        ({"encoder.digest": None}, "encoder.digest is missing"),
        ({"encoder.dimensions": 7}, "those of this session model are"),
        ({'files."step.onnx"': "0" * 64}, "step.onnx is not the file"),
        ({'files."items.onnx"': None}, "items.onnx is not the file"),
        ({'files."ids.txt"': "abc"}, "64 lower-case"),
        ({'files."seq.onnx"': "0" * 64}, "seq.onnx cannot be read"),
    ],
)
def test_what_session_toml_must_say(
    tmp_path: Path, encoder: EncoderIdentity, toml: Mapping[str, object], message: str
) -> None:
    session_models.write(tmp_path, encoder, toml=toml)
    with pytest.raises(EngineFailed, match=message) as caught:
        OnnxSession(tmp_path)
    assert caught.value.reason == "MODEL_INVALID"


def scaled(made: Mapping[str, Floats], factor: float) -> Any:
    """A step whose state is multiplied by a constant."""
    value = numpy_helper.from_array(np.array([factor], np.float32))
    more = [NODE("Constant", [], ["factor"], value=value), NODE("Mul", ["after", "factor"], ["h_next"])]
    return session_models.step_graph(made, more)


def mixed(made: Mapping[str, Floats]) -> Any:
    """A step in which rows see each other."""
    more = [NODE("ReduceMean", ["after"], ["all"], axes=[0]), NODE("Add", ["after", "all"], ["h_next"])]
    return session_models.step_graph(made, more)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda made: scaled(made, float("nan")), "NaN or infinity"),
        (lambda made: scaled(made, float("inf")), "NaN or infinity"),
        (mixed, "depends on the rows beside it"),
        (session_models.items_graph, "those of this session model are"),
        (lambda made: onnx_models.identity(), "those of this session model are"),
    ],
)
def test_a_broken_step_is_found_at_load(
    tmp_path: Path, encoder: EncoderIdentity, make: Callable[[Mapping[str, Floats]], Any], message: str
) -> None:
    made = session_models.weights(encoder, 4, 0, 0)
    session_models.write(tmp_path, encoder, graphs={"step.onnx": make(made)})
    with pytest.raises(EngineFailed, match=message) as caught:
        OnnxSession(tmp_path)
    assert caught.value.reason == "MODEL_INVALID"


@pytest.mark.parametrize("name", ["items.onnx", "step.onnx", "ids.txt", "session.toml"])
def test_a_missing_file_is_named(tmp_path: Path, encoder: EncoderIdentity, name: str) -> None:
    session_models.write(tmp_path, encoder)
    (tmp_path / name).unlink()
    with pytest.raises(EngineFailed, match=f"{name} cannot be read") as caught:
        OnnxSession(tmp_path)
    assert caught.value.reason == "MODEL_INVALID"


@pytest.mark.parametrize("name", ["items.onnx", "step.onnx", "ids.txt"])
def test_a_changed_file_is_found(tmp_path: Path, encoder: EncoderIdentity, name: str) -> None:
    session_models.write(tmp_path, encoder, ids=["a"])
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content.replace(b"a", b"b", 1))
    assert content != (tmp_path / name).read_bytes()
    with pytest.raises(EngineFailed, match=r"is not the file|cannot be read as ONNX"):
        OnnxSession(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a\n", "line 1 of ids.txt is no JSON string"),
        (b'"a"\n7\n', "line 2 of ids.txt is no JSON string"),
        (b'"a"\n"b"\n"a"\n', "more than once"),
        (b'"a"\n""\n', "line 2"),
        (b'"\xff"\n', "no JSON string"),
        (b"[" * 100_000, "no JSON string"),
    ],
)
def test_ids_are_json_strings_each_once(tmp_path: Path, encoder: EncoderIdentity, text: bytes, message: str) -> None:
    session_models.write(tmp_path, encoder)
    (tmp_path / "ids.txt").write_bytes(text)
    contents = {name: (tmp_path / name).read_bytes() for name in ("items.onnx", "step.onnx", "ids.txt")}
    session_models.describe(tmp_path, encoder, 4, contents, 0, {})
    with pytest.raises(EngineFailed, match=message):
        OnnxSession(tmp_path)


@pytest.mark.parametrize("text", [b"name = ", b"\xff\xfe", b"a = " + b"[" * 100_000, b"#" * (2 << 20)])
def test_a_session_toml_that_is_none(tmp_path: Path, encoder: EncoderIdentity, text: bytes) -> None:
    session_models.write(tmp_path, encoder)
    (tmp_path / "session.toml").write_bytes(text)
    with pytest.raises(EngineFailed, match=r"valid TOML|more than"):
        OnnxSession(tmp_path)
