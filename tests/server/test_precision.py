"""The default encoder in fp16, bf16 and int8: within the gate, on every library that can run the file, and on disk."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from matchcut.server import engines, models, precision
from matchcut.server.engines import registry, trial
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.models import measured
from matchcut.server.precision import GATES, PRECISIONS, Precision, judge
from support import precisions

EACH = pytest.mark.parametrize("which", PRECISIONS)


@EACH
def test_it_is_within_the_gate_on_frames_held_out(media: Path, which: Precision) -> None:
    made = precisions.converted(which)
    gate = GATES[which]
    assert made.faults == ()
    assert made.figures.frames == len(precisions.frames().held_out) == 26
    assert 1 > made.figures.mean_cosine > made.figures.cosine >= gate.cosine
    assert made.figures.overlap is not None
    assert made.figures.overlap >= gate.overlap
    assert made.products == 49
    # Most of the network is reduced, or it would not be worth it.
    assert len(made.left) < 25
    assert (made.left == ()) is (which == "fp16")


def test_bf16_keeps_the_first_layers(media: Path) -> None:
    left = precisions.converted("bf16").left
    assert left[0] == "_conv_stem"
    assert left == tuple(product.name for product in graph_of("bf16").node if product.op_type == "Conv")[: len(left)]


def test_int8_keeps_those_that_suffer_most(media: Path) -> None:
    left = precisions.converted("int8").left
    assert "_blocks.0._depthwise_conv" in left, "the worst of MobileNet's kind"
    graph = graph_of("int8")
    quantised = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    for node in convolutions:
        assert (node.input[0] in quantised, node.input[1] in quantised) == (node.name not in left,) * 2
    assert len(convolutions) == 49


@EACH
def test_inputs_and_outputs_stay_float32(media: Path, which: Precision) -> None:
    graph = graph_of(which)
    for tensor in (*graph.input, *graph.output):
        assert tensor.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert [tensor.name for tensor in graph.output] == ["embedding", "logits"]


def test_int8_is_symmetric(media: Path) -> None:
    graph = graph_of("int8")
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert {weights[node.input[2]].dtype for node in pairs} == {np.dtype(np.int8)}
    assert not any(weights[node.input[2]].any() for node in pairs), "TensorRT takes zero points of zero only"
    axes = {weights[node.input[0]].ndim: weights[node.input[1]].ndim for node in pairs if node.input[0] in weights}
    assert axes == {4: 1}, "a scale for each output channel"
    assert all(weights[node.input[1]].ndim == 0 for node in pairs if node.input[0] not in weights)
    assert not any(node.input[0].endswith("bias") for node in pairs)


@pytest.mark.parametrize("library", ["onnxruntime", "openvino"])
@EACH
def test_the_same_file_runs_everywhere(media: Path, which: Precision, library: str) -> None:
    encoder, batch = precisions.written(which), precisions.frames().held_out
    exact = engines.load(precisions.plain(), engine=library)
    engine = engines.load(encoder, engine=library)
    found, wanted = engine.run(batch), exact.run(batch)
    names = {f"{library}-int8"} if which == "int8" else {f"{library}-fp32"}
    if (library, which) == ("openvino", "bf16"):  # the latter on CPUs without bfloat16
        names = {"openvino-mixed", "openvino-fp32"}
    assert engine.variant in names, "what it computes in"
    remembered = registry.make(encoder, engine.variant, 1)
    assert remembered.variant == engine.variant
    for each in (engine, exact, remembered):
        each.close()
    figures = judge(found, wanted)
    assert figures.cosine >= GATES[which].cosine
    assert not np.allclose(found, wanted, atol=1e-5), "this is float32 under another name"
    assert abs(figures.mean_cosine - precisions.converted(which).figures.mean_cosine) < 5e-4, "not what was judged"


@EACH
def test_what_is_written(media: Path, which: Precision) -> None:
    encoder, plain, made = precisions.written(which), precisions.plain(), precisions.converted(which)
    assert encoder.identity.name == "efficientnet-lite0"
    digest = measured.sha256(encoder.path)
    assert encoder.identity.version == f"{plain.identity.version}-{which}-{digest[:8]}"
    assert encoder.identity.digest != plain.identity.digest, "its vectors are of another encoder"
    assert replace(encoder, path=plain.path, identity=plain.identity) == plain, "else it is the same"
    assert sorted(path.name for path in encoder.path.parent.iterdir()) == [
        *("encoder.onnx", "encoder.toml", "labels.txt", "precision.json"),
    ]
    smaller = encoder.path.stat().st_size / plain.path.stat().st_size
    assert smaller < 0.7
    facts = measured.facts(encoder.path)
    assert facts["precision"] == which
    assert facts["source"]["onnx_sha256"] == measured.sha256(plain.path)
    assert facts["source"]["digest"] == plain.identity.digest
    assert facts["in_float32"] == list(made.left)
    assert facts["gate"] == {"cosine": GATES[which].cosine, "overlap": GATES[which].overlap}
    assert facts["figures"]["cosine"] == made.figures.cosine
    assert facts["passed"] is True
    assert facts["frames"] == {"calibration": 26, "held_out": 26, "media": list(precisions.CLIPS)}
    assert set(facts["by"]) == {"matchcut", "numpy", "onnx", "onnxruntime"}


def test_each_file_has_a_version_of_its_own(media: Path, tmp_path: Path) -> None:
    """Also beside the default encoder in int8, and where the same is made with other frames."""
    made, default = precisions.written("int8"), models.load(models.default_encoder(tmp_path / "cache", bits="int8"))
    assert made.identity.name == default.identity.name
    assert made.identity.digest != default.identity.digest
    assert made.identity.version != default.identity.version
    assert default.identity.version == models.VERSIONS["int8"] == "57934424-int8", "it keeps its own"
    other = onnx.load(made.path)
    other.doc_string = "made with other frames"
    another = replace(precisions.converted("int8"), model=other.SerializeToString())
    paths = [
        precision.write(precisions.plain(), each, precisions.frames(), tmp_path / name)
        for name, each in (("same", precisions.converted("int8")), ("other", another))
    ]
    same, differs = (models.load(path).identity.version for path in paths)
    assert same == made.identity.version
    assert differs != same
    assert differs.startswith("57934424-int8-")


def test_the_facts_are_of_this_file_only(media: Path, tmp_path: Path) -> None:
    source = precisions.written("fp16").path.parent
    for name in ("encoder.onnx", "precision.json"):
        (tmp_path / name).write_bytes((source / name).read_bytes())
    assert measured.facts(tmp_path / "encoder.onnx")["precision"] == "fp16"
    (tmp_path / "encoder.onnx").write_bytes(b"another")
    assert measured.facts(tmp_path / "encoder.onnx") == {}
    (tmp_path / "precision.json").write_text("[]")
    assert measured.facts(tmp_path / "encoder.onnx") == {}
    (tmp_path / "precision.json").unlink()
    assert measured.facts(tmp_path / "encoder.onnx") == {}


def test_below_the_gate_is_refused_unless_forced(media: Path, tmp_path: Path) -> None:
    plain, frames = precisions.plain(), precisions.frames()
    worse = replace(precisions.converted("fp16"), faults=("cosine 0.99000 < 0.999",))
    out = tmp_path / "out"
    with pytest.raises(EngineFailed, match=r"fp16 is below the gate: cosine 0\.99000 < 0\.999.*--force") as caught:
        precision.write(plain, worse, frames, out)
    assert caught.value.reason == "BELOW_GATE"
    assert list(tmp_path.iterdir()) == []
    made = precision.write(plain, worse, frames, out, force=True)
    assert measured.facts(made)["passed"] is False
    assert models.load(made).identity.dimensions == 1280


def test_a_folder_is_written_whole_or_not_at_all(media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, frames, made = precisions.plain(), precisions.frames(), precisions.converted("fp16")
    broken = replace(made, model=b"not ONNX")
    with pytest.raises(EngineFailed, match="cannot be read as ONNX"):
        precision.write(plain, broken, frames, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(InvalidInput, match="is there already"):
        precision.write(plain, made, frames, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="cannot be written"):
        precision.write(plain, made, frames, tmp_path / "file" / "out")


def test_bf16_on_onnx_runtime_is_what_openvino_makes_of_it(media: Path) -> None:
    batch, found = precisions.frames().held_out, []
    for library in ("onnxruntime", "openvino"):
        engine = engines.load(precisions.written("bf16"), engine=library)
        found.append(engine.run(batch))
        engine.close()
    ours, theirs = found
    assert judge(ours, theirs).cosine >= 0.9998
    assert not np.array_equal(ours, theirs)


def test_a_copy_is_the_same_encoder(media: Path, tmp_path: Path) -> None:
    source = precisions.written("fp16")
    copied = models.load(precision.copy(source, tmp_path / "copy"))
    assert copied.identity == source.identity
    assert replace(copied, path=source.path) == source
    assert measured.facts(copied.path) == measured.facts(source.path)


def test_too_few_frames_for_int8(media: Path) -> None:
    few = replace(precisions.frames(), held_out=precisions.frames().held_out[:21])
    with pytest.raises(InvalidInput, match="21 frames are held out, and the overlap of neighbours takes 22"):
        precision.convert(precisions.plain(), "int8", few)


def test_an_encoder_without_weights_or_already_reduced(media: Path, small_encoder: Path) -> None:
    with pytest.raises(EngineFailed, match="no layer with weights"):
        precision.convert(models.load(small_encoder), "fp16", precisions.frames())
    for which, message in (("fp16", "is not float32"), ("int8", "is quantised already")):
        with pytest.raises(EngineFailed, match=message):
            precision.convert(precisions.written(which), "bf16", precisions.frames())


def test_labels_and_names_with_odd_characters(media: Path, tmp_path: Path) -> None:
    plain = precisions.plain()
    odd = replace(plain, identity=replace(plain.identity, name='a "b" \\ ü \x7f\t', version="1\n2"))
    made = precision.write(odd, precisions.converted("fp16"), precisions.frames(), tmp_path / "out")
    assert models.load(made).identity.name == odd.identity.name
    assert models.load(made).identity.version == f"1\n2-fp16-{measured.sha256(made)[:8]}"
    assert json.loads((tmp_path / "out" / "precision.json").read_text())["source"]["name"] == odd.identity.name


def graph_of(which: Precision) -> onnx.GraphProto:
    return onnx.load_from_string(precisions.converted(which).model).graph


def test_the_shipped_pictures_too(media: Path) -> None:
    """Those that choose the engine, which no conversion has seen."""
    batch = trial.frames(precisions.plain())
    exact = engines.load(precisions.plain(), engine="onnxruntime")
    for which in ("fp16", "int8"):
        engine = engines.load(precisions.written(which), engine="onnxruntime")
        cosine = trial.least_cosine(engine.run(batch), exact.run(batch))
        engine.close()
        assert cosine >= GATES[which].cosine - 0.01, "other pictures than video, by a wide margin"
        assert cosine < 1
    exact.close()
