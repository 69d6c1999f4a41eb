"""From data to a served model: the real digits, resuming, versions, and what is said of data that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from matchcut.kernels.preprocess import preprocess
from matchcut.server import engines, models
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.feed import Caller
from matchcut.server.records import InputSize
from matchcut.server.serving.repository import FolderRepository
from matchcut.server.tagging import Tagger
from matchcut.server.training.image import exporting, small, training
from matchcut.server.training.image.fitting import fit
from matchcut.server.training.image.pictures import DIGITS, digits
from matchcut.server.training.image.training import Options, Trained, train
from matchcut.server.training.progress import Bar

SILENT = Bar(None, silent=True)
CACHE = Path(__file__).parents[4] / "build" / "cache"
MakeFolder = Callable[..., Path]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def trained(root: Path) -> Trained:
    """The digits, learnt for real; about 15 seconds of CPU."""
    return train(Options(DIGITS, root / "digits", epochs=6, threads=1), SILENT)


@pytest.fixture
def repository(root: Path, trained: Trained) -> Iterator[FolderRepository]:
    opened = FolderRepository(root)
    yield opened
    opened.close()


def test_digits_are_learnt(trained: Trained) -> None:
    test = trained.report["test"]
    assert test["accuracy"] >= 0.97
    assert test["pictures"] >= 260
    assert test["interval"][0] < test["accuracy"] < test["interval"][1]
    matrix = np.array(test["confusion"])
    assert matrix.sum() == test["pictures"]
    assert np.trace(matrix) / matrix.sum() == test["accuracy"]
    assert len(test["missed"]) == matrix.sum() - np.trace(matrix)
    assert trained.report["model"]["parity"] <= 1e-5


def test_all_files_are_there(trained: Trained) -> None:
    names = {path.name for path in trained.folder.iterdir()}
    assert names == {
        *("model.onnx", "model.toml", "labels.txt", "report.json"),
        *("confusion.json", "confusion.png", "curves.png"),
    }
    assert json.loads((trained.folder / "report.json").read_text()) == trained.report
    confusion = json.loads((trained.folder / "confusion.json").read_text())
    assert confusion == {"classes": list("0123456789"), "matrix": trained.report["test"]["confusion"]}
    for name in ("confusion.png", "curves.png"):
        with Image.open(trained.folder / name) as image:
            assert image.format == "PNG"
            assert len(set(image.convert("L").tobytes())) > 20
    assert not (trained.folder.parent / training.WORK).exists()


def test_the_server_serves_it_with_labels(trained: Trained, repository: FolderRepository) -> None:
    """The served model finds the classes of pictures that are prepared as its TOML file says."""
    model = repository.model("digits")
    assert model.labels == {"probabilities": tuple("0123456789")}
    assert model.max_batch > 1
    encoder = models.load(trained.folder / "model.onnx")
    data = digits(InputSize(encoder.input.width, encoder.input.height), most=12)
    given = preprocess(np.array(data.pixels), encoder.mean, encoder.std, encoder.layout)
    hits = 0
    for start in range(0, len(data), model.max_batch):
        rows = slice(start, start + model.max_batch)
        answer = model.infer({"image": given[rows]}, caller=Caller(), wanted=("probabilities",))
        hits += int((answer.outputs["probabilities"].argmax(axis=1) == data.labels[rows]).sum())
    assert hits / len(data) >= 0.97


def test_it_tags(trained: Trained) -> None:
    """Digits of a clip's size, as the pipeline would hand them in."""
    tagger = Tagger(trained.folder / "model.onnx", threads=1)
    large = digits(InputSize(224, 224), most=3)
    right = 0
    for label in range(10):
        tags = tagger.begin()
        for pixels in large.pixels[large.labels == label]:
            tags.add(pixels)
        right += tags.result()[:1] == (f"class:{label}",)
    assert right >= 9


def small_options(data: Path, out: Path, **more: Any) -> Options:
    return replace(Options(str(data), out, epochs=3, batch=8, threads=1, seed=3), **more)


def weights(trained: Trained) -> bytes:
    return (trained.folder / "model.onnx").read_bytes()


def test_the_same_seed_makes_the_same_bytes(make_folder: MakeFolder, tmp_path: Path) -> None:
    data = make_folder()
    one, again, other = (
        train(small_options(data, tmp_path / name, seed=seed), SILENT) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert weights(one) == weights(again) != weights(other)
    assert one.report["training"] == again.report["training"]
    assert one.report["test"] == again.report["test"]


def test_odd_names(make_folder: MakeFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = Options("", tmp_path / "a b", name=" \t")
    assert training.named(options) == "a b"
    assert training.named(replace(options, name=" x\udcff ")) == r"x\xff"
    assert training.named(Options("", Path("/"))) == "model"
    with pytest.raises(InvalidInput):
        train(small_options(tmp_path / "missing", tmp_path / "a b"), Bar(None, silent=False))
    assert "--models serves no folder of this name" in capsys.readouterr().err


def test_each_training_adds_a_version(make_folder: MakeFolder, tmp_path: Path) -> None:
    data, out = make_folder(), tmp_path / "models" / "stripes"
    first = train(small_options(data, out), SILENT)
    second = train(small_options(data, out, seed=9), SILENT)
    assert (first.folder.name, second.folder.name) == ("1", "2")
    repository = FolderRepository(out.parent)
    try:
        assert repository.versions("stripes") == ["1", "2"]
        assert repository.model("stripes").labels["probabilities"] == ("stripes0", "stripes1", "stripes2")
    finally:
        repository.close()


def test_resumed_is_the_same_as_uninterrupted(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = make_folder(), tmp_path / "out"
    whole = train(small_options(data, tmp_path / "whole"), SILENT)
    ended = []

    def interrupted(*arguments: Any, **more: Any) -> Any:
        def stop(epoch: int) -> None:
            ended.append(epoch)
            if epoch == 2:
                raise KeyboardInterrupt

        return fit(*arguments, **more, ended=stop)

    monkeypatch.setattr(training, "fit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(small_options(data, out), SILENT)
    assert ended == [1, 2]
    assert (out / training.WORK / "small.pt").is_file()
    monkeypatch.undo()
    with pytest.raises(InvalidInput, match="is left of a training that did not end: go on with --resume") as caught:
        train(small_options(data, out), SILENT)
    assert caught.value.reason == "UNFINISHED_TRAINING"
    with pytest.raises(InvalidInput, match="other data or options"):
        train(small_options(data, out, seed=8, resume=True), SILENT)
    resumed = train(small_options(data, out, resume=True), SILENT)
    assert weights(resumed) == weights(whole)
    assert resumed.report["training"] == whole.report["training"]
    assert [path.name for path in out.iterdir()] == ["1"]


def test_a_model_that_differs_from_torchs_is_not_written(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(network: small.Small) -> bytes:
        with torch.no_grad():
            network.head.bias[0] += 0.5
        try:
            return real(network)
        finally:
            with torch.no_grad():
                network.head.bias[0] -= 0.5

    real = small.write
    monkeypatch.setattr(small, "write", wrong)
    with pytest.raises(EngineFailed, match="it was not written") as caught:
        train(small_options(make_folder(), tmp_path / "out"), SILENT)
    assert caught.value.reason == "PARITY_FAILED"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [training.WORK]  # to go on from


def test_what_was_wrong_with_the_data_is_reported(make_folder: MakeFolder, tmp_path: Path) -> None:
    data = make_folder()
    first = (data / "stripes0" / "00.png").read_bytes()
    (data / "stripes0" / "copy.png").write_bytes(first)
    (data / "stripes1" / "conflict.png").write_bytes((data / "stripes2" / "03.png").read_bytes())
    (data / "stripes2" / "broken.jpg").write_bytes(first[:100])
    (data / "stripes2" / "readme.md").write_text("?")
    found = train(small_options(data, tmp_path / "out", epochs=1), SILENT).report["data"]
    assert [each["file"] for each in found["unreadable"]] == ["stripes2/broken.jpg"]
    assert found["no_pictures"] == ["stripes2/readme.md"]
    assert ["stripes0/00.png", "stripes0/copy.png"] in found["equal"]
    assert found["label_conflicts"] == [["stripes1/conflict.png", "stripes2/03.png"]]
    assert set(found["left_out"]) == {"stripes0/copy.png", "stripes1/conflict.png", "stripes2/03.png"}
    assert sum(found["split"].values()) == sum(found["classes"].values()) - 3


def test_bad_data_leaves_nothing_behind(make_folder: MakeFolder, tmp_path: Path) -> None:
    data = make_folder(each=2)
    with pytest.raises(InvalidInput, match="the class 'stripes0' has 2 pictures that differ"):
        train(small_options(data, tmp_path / "out"), SILENT)
    assert not (tmp_path / "out").exists()


def test_an_interruption_before_anything_is_learnt_leaves_nothing(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "clean", interrupted)
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        with pytest.raises(KeyboardInterrupt):
            train(small_options(make_folder(name + "-data"), tmp_path / name), SILENT)
    assert list((tmp_path / "there").iterdir()) == []
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("flip", "mirrored"), [(None, False), (True, True)])
def test_digits_are_mirrored_only_where_that_is_wanted(tmp_path: Path, flip: bool | None, mirrored: bool) -> None:
    options = Options(DIGITS, tmp_path, smoke=True, flip=flip)
    augment = training.gathered(options, None, SILENT).samples["train"].augment
    assert augment is not None
    assert augment.flip is mirrored


def test_the_number_of_threads_is_as_before(make_folder: MakeFolder, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    with pytest.raises(InvalidInput):
        train(small_options(tmp_path / "missing", tmp_path / "out", threads=before + 1), SILENT)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("unfreeze", [0, 1])
def test_the_default_encoder_is_fine_tuned(make_folder: MakeFolder, tmp_path: Path, unfreeze: int) -> None:
    data = make_folder(each=5, side=96)
    options = small_options(
        data, tmp_path / "out", model="default", smoke=True, epochs=0, unfreeze=unfreeze, cache=CACHE
    )
    done = train(replace(options, rate=0.01), SILENT)
    report = done.report
    assert report["training"]["base"]["name"] == "efficientnet-lite0"
    assert report["training"]["mean"] == [127.0, 127.0, 127.0]  # what its weights were learnt with
    assert list(report["training"]["stages"]) == ["head", "blocks"][: 1 + unfreeze]
    assert report["model"]["parity"] <= 1e-5
    encoder = models.load(done.folder / "model.onnx")
    assert (encoder.identity.dimensions, encoder.input.width) == (1280, 224)
    assert encoder.labels == ("stripes0", "stripes1", "stripes2")
    last = report["training"]["stages"]["head"]["history"]["train loss"]
    assert last[-1] < last[0]


def test_names_are_quoted_as_toml_wants_it(tmp_path: Path) -> None:
    import tomllib

    for name in ('a "b" \\ c', "tab\tnew\nline\x7f\x01", "日本 é"):
        text = exporting.described(
            name=name, version=1, dimensions=2, size=InputSize(3, 4), mean=(0.5, 1, 2), std=(1, 2, 3)
        )
        found = tomllib.loads(text)
        assert found["name"] == name
        assert found["input"]["mean"] == [0.5, 1.0, 2.0]


def test_a_version_that_is_there_is_not_overwritten(tmp_path: Path, trained: Trained) -> None:
    files = {name: (trained.folder / name).read_bytes() for name in ("model.onnx", "model.toml")}
    out = tmp_path / "m"
    out.mkdir()
    exporting.publish(out / ".a", out, 1, files, list("0123456789"))
    with pytest.raises(InvalidInput, match="is there already"):
        exporting.publish(out / ".b", out, 1, files, list("0123456789"))
    with pytest.raises(EngineFailed, match="labels"):
        exporting.publish(out / ".c", out, 2, files, ["too", "few"])
    assert [path.name for path in out.iterdir()] == ["1"]
    assert exporting.next_version(out) == 2
    (out / "10").mkdir()
    (out / "007").mkdir()
    assert exporting.next_version(out) == 11
    assert exporting.next_version(tmp_path / "none") == 1


def test_the_server_takes_it_as_an_encoder(trained: Trained) -> None:
    encoder = models.load(trained.folder / "model.onnx")
    engine = engines.load(encoder, engine="onnxruntime", threads=1)
    try:
        pictures = np.random.default_rng(0).normal(size=encoder.shape(3)).astype(np.float32)
        assert engine.run(pictures).shape == (3, encoder.identity.dimensions)
    finally:
        engine.close()
