"""The default encoder in int8: the same file everywhere, close to float32, computed in int8 where it says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from matchcut.server import models
from matchcut.server.engines import Engine, load, memory, processor, registry, trial
from matchcut.server.engines.quantised import is_quantised
from matchcut.server.models import checkpoint, default, efficientnet_int8, efficientnet_lite
from matchcut.server.precision import judge, read
from matchcut.server.precision.frames import Frames

# A new digest makes every stored vector incomparable: change it only together with default.REVISION.
DIGEST = "9c0e0153c7e0adbca9cb378c253243c35d839b3f87ac784c11dc3767921ded69"

# Measured on the frames below: a least cosine of 0.9950, 0.9971 in the mean, 0.964 of the ten nearest.
LEAST, MEAN, NEAREST = 0.99, 0.996, 0.93

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def engines(cache: Path) -> Mapping[str, Engine]:
    return {
        bits: load(models.load(models.default_encoder(cache, bits=models.bits(bits))), engine="onnxruntime", threads=1)
        for bits in ("float32", "int8")
    }


@pytest.fixture(scope="module")
def frames(engines: Mapping[str, Engine], media: Path) -> Frames:
    clips = [media / f"{name}.mp4" for name in ("a", "b", "bigbuckbunny", "bikes", "carphone", "world")]
    return read(clips, engines["float32"].encoder, rate=1, most=48)


def test_it_is_another_version_and_the_same_file_everywhere(cache: Path, engines: Mapping[str, Engine]) -> None:
    exact, rounded = (engines[bits].encoder for bits in ("float32", "int8"))
    assert (exact.identity.version, rounded.identity.version) == ("57934424", "57934424-int8")
    assert rounded.identity.digest == DIGEST != exact.identity.digest
    assert rounded.input == exact.input
    assert rounded.labels == ()
    assert rounded.path.stat().st_size * 4 < exact.path.stat().st_size
    assert efficientnet_int8.write(checkpoint.read(default.weights())) == rounded.path.read_bytes()


def test_it_sees_what_float32_sees(engines: Mapping[str, Engine], frames: Frames) -> None:
    batch = np.concatenate([frames.calibration, frames.held_out])
    exact, rounded = (np.concatenate([engines[bits].run(one[None]) for one in batch]) for bits in ("float32", "int8"))
    found = judge(rounded, exact)
    assert found.frames >= 30
    assert found.cosine > LEAST
    assert found.mean_cosine > MEAN
    assert found.overlap is not None
    assert found.overlap > NEAREST


def test_a_frame_has_one_vector_in_any_batch(engines: Mapping[str, Engine], frames: Frames) -> None:
    batch = frames.held_out[:5]
    alone = np.concatenate([engines["int8"].run(one[None]) for one in batch])
    np.testing.assert_allclose(engines["int8"].run(batch), alone, atol=1e-5 * np.abs(alone).max())


def test_it_is_called_what_it_is(engines: Mapping[str, Engine]) -> None:
    """In stage times and logs; and what was measured of it is remembered, and found again, under that name."""
    names = {bits: engine.variant for bits, engine in engines.items()}
    assert names == {"float32": "onnxruntime-fp32", "int8": "onnxruntime-int8"}
    named = load(engines["int8"].encoder, engine=names["int8"], threads=1)
    assert named.variant == names["int8"]
    assert not registry.VARIANTS[names["int8"]].measured


def one_node(operator: str, version: int = 21) -> bytes:
    graph = helper.make_graph([helper.make_node(operator, ["a", "b"], ["c"], name="QuantizeLinear")], "g", [], [])
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)]).SerializeToString())


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (one_node("QuantizeLinear"), True),
        (one_node("QLinearConv"), True),
        (one_node("MatMulInteger"), True),
        (one_node("DequantizeLinear"), False),  # of weights alone: the products are of float32
        (one_node("Conv"), False),  # called QuantizeLinear, which says nothing
        (one_node("QuantizeLinear")[:-20], False),
        (b"", False),
        (b"\xff" * 100, False),
    ],
)
def test_what_counts_as_int8(model: bytes, expected: bool) -> None:
    assert is_quantised(model) is expected


def test_auto_remembers_an_encoder_in_int8(engines: Mapping[str, Engine], tmp_path: Path) -> None:
    """The choice is kept under the name that the engine has, not measured again."""
    known = memory.facts(engines["int8"].encoder, 1)
    memory.keep(tmp_path, known, "onnxruntime-int8", [trial.Trial("onnxruntime-int8", {1: 1.0}, 1.0)])
    assert memory.recall(tmp_path, known) == "onnxruntime-int8"
    assert load(engines["int8"].encoder, threads=1, cache=tmp_path).variant == "onnxruntime-int8"


def test_it_is_computed_in_int8(engines: Mapping[str, Engine], tmp_path: Path) -> None:
    """Where ONNX Runtime does not join the pairs with the layers, it is slower than float32."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    content = engines["int8"].encoder.path.read_bytes()
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    ran = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    convs = [node.name for node in onnx.load_from_string(content).graph.node if node.op_type == "Conv"]
    exact = [name for name in convs if efficientnet_int8.in_float(name)]
    assert len(exact) == 9
    assert exact == convs[: len(exact)]
    assert ran["QLinearConv"] == len(convs) - len(exact) - 1, "all others but the last, whose result is not rounded"
    assert ran["QLinearAdd"] == sum(name.endswith(".sum") for name in efficientnet_int8.RANGES) - 1
    assert ran["Clip"] == 0


def test_the_ranges_hold_what_the_pictures_give(engines: Mapping[str, Engine]) -> None:
    """They were measured on these pictures, in float32, and are a tenth wider."""
    model = onnx.load(engines["float32"].encoder.path)
    names = list(efficientnet_int8.RANGES)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = session.run(names, {"image": trial.frames(engines["float32"].encoder)})
    for name, values in zip(names, seen, strict=True):
        low, high = efficientnet_int8.RANGES[name]
        assert 1.09 * values.min() >= low >= 1.12 * values.min() - 0.1, name
        assert 1.09 * values.max() <= high <= 1.12 * values.max() + 0.1, name


def test_scales_are_fine_enough_for_every_bias() -> None:
    """A channel whose weights are all zero has no scale of its own, and its bias must fit into 32 bits."""
    graph = efficientnet_int8.Int8Graph({})
    weight = np.zeros((3, 4, 1, 1), np.float32)
    weight[1] = 0.5
    bias = np.array([3, -2, 0.1], np.float32)
    graph.product("_blocks.3._project_conv", "_blocks.4._expand_conv", weight, bias, group=1)
    made = {each.name: numpy_helper.to_array(each) for each in graph.constants}
    name = "_blocks.4._expand_conv"
    biases = made[f"{name}.bias.bytes"].astype(np.float64) * made[f"{name}.bias.scale"]
    np.testing.assert_allclose(biases, bias, rtol=1e-2)
    assert np.abs(made[f"{name}.bias.bytes"]).max() <= efficientnet_int8.WIDEST
    weights = made[f"{name}.weight.bytes"] * made[f"{name}.weight.scale"][:, None, None, None]
    np.testing.assert_allclose(weights, weight, atol=0.5 / 127)
    assert np.isfinite(made[f"{name}.weight.scale"]).all()


def test_zero_is_exact_and_ranges_cover_both_ends() -> None:
    for name in [*efficientnet_int8.RANGES, "any.relu6"]:
        scale, zero = efficientnet_int8.steps(name)
        low, high = efficientnet_int8.RANGES.get(name, efficientnet_int8.RELU6)
        ends = (np.array([0, 255]) - float(zero)) * float(scale)
        np.testing.assert_allclose(ends, (low, high), atol=float(scale))
    with pytest.raises(KeyError):
        efficientnet_int8.steps("unknown")


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "expected"),
    [
        ("x86_64", "processor: 0\nflags\t\t: fpu avx2 avx512_vnni\n\nflags: x\n", False),
        ("AMD64", "flags\t\t: fpu avx2 avx_vnni", False),
        ("x86_64", "flags\t\t: fpu avx2 avx512f", True),
        ("x86_64", "", True),
        ("x86_64", None, True),
        ("aarch64", "Features: fp asimd", False),
        ("aarch64", None, False),
    ],
)
def test_where_products_of_bytes_overflow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str, cpuinfo: str | None, expected: bool
) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert processor.saturates() is expected


def test_the_exact_way_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, engines: Mapping[str, Engine], frames: Frames
) -> None:
    """It is slower, which is not tested; here both ways are exact or, without VNNI, both are this one."""
    asked: list[bool] = []

    def everywhere() -> bool:
        asked.append(True)
        return True

    monkeypatch.setattr("matchcut.server.engines.onnxruntime.saturates", everywhere)
    other = load(engines["int8"].encoder, engine="onnxruntime", threads=1)
    assert asked
    exact = engines["int8"].run(frames.held_out[:4])
    np.testing.assert_allclose(other.run(frames.held_out[:4]), exact, atol=1e-5 * np.abs(exact).max())


def test_layers_in_float() -> None:
    assert efficientnet_int8.in_float("_conv_stem")
    assert efficientnet_int8.in_float("_blocks.2.sum")
    assert not efficientnet_int8.in_float("_blocks.3._expand_conv")
    assert not efficientnet_int8.in_float("_blocks.12.sum")
    assert not efficientnet_int8.in_float("_conv_head")
    assert sum(stage.repeats for stage in efficientnet_lite.BLOCKS) == 16
