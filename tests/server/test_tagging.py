"""Tags from what frames show: the mean over the frames, the threshold, and items that are put in by a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc.aio
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from matchcut.server import tagging
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.records import Pixels
from matchcut.server.tagging import Tagger, kept, merged
from matchcut.v1 import catalog_pb2, media_pb2
from support.wire import SIDE, Wire

LABELS = ("red", "green", "blue")
Write = Callable[..., Path]


def classifier(path: Path, *, output: str = "probabilities", labels: tuple[str, ...] = LABELS) -> Path:
    """The share of each colour in the picture, or its logarithm, beside the mean colours as the embedding."""
    small = helper.make_tensor("small", TensorProto.FLOAT, [1], [1e-6])
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
        helper.make_node("Add", ["mean", "small"], ["embedding"]),
        helper.make_node("ReduceSum", ["embedding", "axes"], ["sum"], keepdims=1),
        helper.make_node("Div", ["embedding", "sum"], ["shares"]),
        helper.make_node("Log" if output == "logits" else "Identity", ["shares"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("embedding", output)],
        [small, helper.make_tensor("axes", TensorProto.INT64, [1], [1])],
    )
    path.mkdir(parents=True)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path / "model.onnx")
    (path / "labels.txt").write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    named = 'labels = "labels.txt"\n' if labels else ""
    (path / "model.toml").write_text(
        f'name = "colours"\nversion = "1"\ndimensions = 3\n{named}\n[input]\nwidth = 8\nheight = 8\n'
        'layout = "NCHW"\nmean = [0.0, 0.0, 0.0]\nstd = [255.0, 255.0, 255.0]\n'
    )
    return path / "model.onnx"


def frame(red: int, green: int, blue: int, *, side: int = SIDE) -> Pixels:
    """Cells of black and the colour, so that it is not blank; the shares of the colours are those of the arguments."""
    cells = (np.indices((side, side)) // 4).sum(axis=0) % 2
    return np.asarray(cells[:, :, None] * np.array([red, green, blue]), np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return classifier(tmp_path / "colours")


@pytest.mark.parametrize("output", ["probabilities", "logits"])
def test_probabilities_are_taken_or_made(tmp_path: Path, output: str) -> None:
    tagger = Tagger(classifier(tmp_path / "c", output=output), threads=1)
    found = tagger.classify(np.stack([frame(200, 0, 0), frame(50, 100, 50)]))
    assert found == pytest.approx(np.array([[1, 0, 0], [0.25, 0.5, 0.25]]), abs=1e-4)


def test_the_mean_over_all_frames_decides(path: Path) -> None:
    tags = Tagger(path, threshold=0.3, threads=1).begin()
    for _ in range(tagging.BATCH):  # one run of a full batch, one of the rest
        tags.add(frame(200, 0, 0))
    for _ in range(tagging.BATCH - 1):
        tags.add(frame(0, 200, 0))
    assert tags.result() == ("class:red", "class:green")
    assert tags.frames == 2 * tagging.BATCH - 1
    tags.add(frame(0, 200, 0))
    tags.add(frame(0, 200, 0))
    assert tags.result() == ("class:green", "class:red")


def test_below_the_threshold_is_no_tag(path: Path) -> None:
    tags = Tagger(path, threshold=0.51, threads=1).begin()
    tags.add(frame(200, 0, 0))
    tags.add(frame(0, 200, 0))
    assert tags.result() == ()


def test_frames_that_show_nothing_do_not_count(path: Path) -> None:
    tags = Tagger(path, threads=1).begin()
    assert tags.result() == ()
    tags.add(np.full((SIDE, SIDE, 3), (0, 0, 255), np.uint8))
    assert (tags.result(), tags.frames) == ((), 0)
    tags.add(frame(200, 0, 0))
    assert (tags.result(), tags.frames) == (("class:red",), 1)


def test_frames_of_any_size_are_resized(path: Path) -> None:
    tags = Tagger(path, threads=1).begin()
    tags.add(frame(0, 0, 200, side=224))
    assert tags.result() == ("class:blue",)


def test_long_labels_are_cut_between_characters(tmp_path: Path) -> None:
    tags = Tagger(classifier(tmp_path / "long", labels=("é" * 100, "b", "c")), threads=1).begin()
    tags.add(frame(200, 0, 0))
    assert tags.result() == ("class:" + "é" * 61,)


def test_it_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="names no labels in its TOML file"):
        Tagger(classifier(tmp_path / "none", labels=()))
    with pytest.raises(EngineFailed, match="cannot read this part of the encoder"):
        Tagger(tmp_path / "missing.onnx")


def test_numbers_that_are_none_fail(path: Path) -> None:
    tagger = Tagger(path, threads=1)
    tagger._engine.run = lambda inputs: {"probabilities": np.full((1, 3), np.nan, np.float32)}  # type: ignore[method-assign]
    with pytest.raises(EngineFailed, match="gave no finite numbers"):
        tagger.classify(frame(1, 2, 3)[None])


def test_a_closed_one_says_so(path: Path) -> None:
    tagger = Tagger(path)
    tagger.close()
    tagger.close()
    with pytest.raises(EngineFailed, match="closed"):
        tagger.classify(frame(200, 0, 0)[None])


@pytest.mark.parametrize(("after", "threshold"), [("", 0.5), ("@0.75", 0.75), ("@1", 1.0)])
def test_the_option_names_path_and_threshold(path: Path, after: str, threshold: float) -> None:
    assert tagging.load(f"{path}{after}", threads=1)._threshold == threshold


def test_an_at_of_the_path_is_none_of_the_threshold(tmp_path: Path) -> None:
    path = classifier(tmp_path / "a@home")
    assert tagging.load(str(path))._threshold == 0.5
    assert tagging.load(f"{path}@0.75")._threshold == 0.75
    assert tagging.load(str(tmp_path / "a@home"))._threshold == 0.5
    assert tagging.load(f"{tmp_path / 'a@home'}@0.75")._threshold == 0.75


@pytest.mark.parametrize("after", ["0", "1.5", "-1", "inf", "nan"])
def test_a_threshold_that_cannot_be(path: Path, after: str) -> None:
    with pytest.raises(InvalidInput, match="must be above 0 and at most 1") as caught:
        tagging.load(f"{path}@{after}")
    assert caught.value.field == "tagger"


@pytest.mark.parametrize("after", ["x", "", "0,5"])
def test_a_threshold_that_is_no_number(path: Path, after: str) -> None:
    with pytest.raises(InvalidInput, match=f"--tagger .*@{after}: '{after}' is no number"):
        tagging.load(f"{path}@{after}")


def test_a_folder_is_taken_for_its_file_or_its_highest_version(tmp_path: Path) -> None:
    for number in (2, 10):
        classifier(tmp_path / "m" / str(number))
    (tmp_path / "m" / "11").mkdir()  # a version that is only begun
    assert tagging.file(tmp_path / "m") == tmp_path / "m" / "10" / "model.onnx"
    assert tagging.file(tmp_path / "m" / "2") == tmp_path / "m" / "2" / "model.onnx"
    assert tagging.load(f"{tmp_path / 'm'}@0.75", threads=1)._threshold == 0.75


def test_a_path_that_cannot_be_looked_for(tmp_path: Path) -> None:
    for after in ("", "@0.5"):
        with pytest.raises(InvalidInput, match="cannot be read: File name too long"):
            tagging.load(f"{tmp_path / ('x' * 300)}{after}")


def test_errors_name_the_option(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "gone", "is not there"), (tmp_path, "has no model.onnx, nor a version")):
        with pytest.raises(InvalidInput, match=f"--tagger {path}: .*{what}"):
            tagging.load(str(path))
    with pytest.raises(EngineFailed, match=r"--tagger .*names no labels") as caught:
        tagging.load(str(classifier(tmp_path / "none", labels=())))
    assert (caught.value.field, caught.value.reason) == ("tagger", "ENCODER_INVALID")


def test_tags_are_merged_within_what_an_item_may_have() -> None:
    assert merged(("b", "a"), ("class:x", "a")) == ("a", "b", "class:x")
    full = tuple(f"{at:02}" for at in range(63))
    assert merged(full, ("class:x", "class:y")) == (*full, "class:x")
    assert kept(("a", "class:x", "classy")) == ("class:x",)


def messages(item_id: str, frames: list[Pixels], *tags: str) -> list[catalog_pb2.IngestRequest]:
    header = catalog_pb2.IngestHeader(
        item=catalog_pb2.Item(item_id=item_id, tags=tags), media=Wire.frame_header(), content_sha256=b""
    )
    chunks = [
        media_pb2.MediaChunk(frame=media_pb2.Frame(pixels=each.tobytes(), time_us=at * 1_000_000))
        for at, each in enumerate(frames)
    ]
    return [
        catalog_pb2.IngestRequest(header=header),
        *(catalog_pb2.IngestRequest(chunk=chunk) for chunk in chunks),
        catalog_pb2.IngestRequest(end=catalog_pb2.IngestEnd()),
    ]


async def test_items_get_tags_when_they_are_put_in(config: Config, path: Path) -> None:
    red, green = frame(200, 0, 0), frame(0, 200, 0)
    async with (
        App(replace(config, tagger=f"{path}@0.6")) as app,
        grpc.aio.insecure_channel(app.address) as channel,
    ):
        wire = Wire(channel)

        async def put(item_id: str, frames: list[Pixels], *tags: str) -> catalog_pb2.IngestResponse:
            reply: catalog_pb2.IngestResponse = await wire.catalog.Ingest(iter(messages(item_id, frames, *tags)))
            return reply

        first = await put("a", [red, red, green], "mine")
        assert list(first.item.tags) == ["class:red", "mine"]
        stage = next(each for each in first.times.stages if each.name == "tag")
        assert dict(stage.counts) == {"frames": 3}
        assert list((await put("b", [green, red])).item.tags) == []  # neither reaches 0.6
        again = await put("a", [red, red, green], "other")  # the same content, other tags of the caller's
        assert list(again.item.tags) == ["class:red", "other"]
        assert list((await put("a", [green, green, green])).item.tags) == ["class:green"]


async def test_a_server_does_not_start_with_a_tagger_that_is_none(config: Config, small_encoder: Path) -> None:
    with pytest.raises(EngineFailed, match="names no labels"):
        await App(replace(config, tagger=str(small_encoder))).__aenter__()


async def test_without_a_tagger_tags_are_the_callers(config: Config) -> None:
    async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
        reply = await Wire(channel).catalog.Ingest(iter(messages("a", [frame(200, 0, 0)], "mine")))
        assert list(reply.item.tags) == ["mine"]
        assert "tag" not in [each.name for each in reply.times.stages]
