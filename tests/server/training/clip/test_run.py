"""`train clip` as a whole: order matters in drifting digits, and the GRU that learnt it is served as it was trained."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from matchcut.kernels.preprocess import preprocess
from matchcut.server import engines
from matchcut.server import models as encoders
from matchcut.server.engines.graphs import GraphEngine
from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.feed import Caller
from matchcut.server.models import encoder, graph, gru
from matchcut.server.records import Floats
from matchcut.server.recurrence import Recurrence
from matchcut.server.serving.contract import SequenceStep
from matchcut.server.serving.repository import FolderRepository
from matchcut.server.tensors import Tensors
from matchcut.server.training.clip import drift, fit, publish
from matchcut.server.training.clip.model import Recurrent, seeded
from matchcut.server.training.clip.reading import Recipe, decoded
from matchcut.server.training.clip.run import Options, Trained, train
from matchcut.server.training.progress import Bar

CACHE = Path(__file__).parents[4] / "build" / "cache"
SHOWN = 16  # clips that are sent to the served models


@pytest.fixture(scope="module")
def features(models: Path) -> Floats:
    """(16, 12, 64): new clips, decoded and encoded as a server does, with the exported CNN. The label is at % 4."""
    made = encoders.load(models / "clip-frames/1/encoder.onnx")
    engine = engines.load(made, engine="onnxruntime", threads=1)
    digits, found = drift.digits(), []
    for at in range(SHOWN):
        shown = drift.draw(digits[100 * at], at % 4, frames=12, size=32, rng=np.random.default_rng((77, at)))
        pixels = decoded(io.BytesIO(drift.video(shown)), Recipe(made.input, drift.FPS, 12))
        found.append(engine.run(preprocess(pixels, made.mean, made.std, made.layout)))
    engine.close()
    return np.stack(found)


def test_the_gru_knows_the_order_and_the_mean_does_not(trained: Trained) -> None:
    report = trained.report
    assert report["clips"] == {"train": 312, "validation": 64, "test": 64}
    assert report["gru"]["accuracy"] >= 0.95
    assert report["mean"]["accuracy"] <= 0.40
    assert report["order_matters"]
    assert report["gru"]["epochs"] < 40  # it stopped early
    matrix = np.array(report["gru"]["confusion"])
    assert matrix.sum(axis=1).tolist() == [16] * 4
    assert np.trace(matrix) / matrix.sum() == report["gru"]["accuracy"]


def test_the_parity_was_measured(trained: Trained) -> None:
    assert sorted(trained.report["parity"]) == [
        "frames, ONNX to torch",
        "live to torch",
        "sequence, ONNX to torch",
        "step to sequence",
        "step to torch",
    ]
    assert all(0 < apart <= 1e-5 for apart in trained.report["parity"].values())


def test_files_are_beside_the_sequence(trained: Trained) -> None:
    folder = trained.placed["sequence"]
    assert json.loads((folder / "report.json").read_text()) == trained.report
    for name in ("curves", "confusion-gru", "confusion-mean"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in folder.parents[1].iterdir()} == {
        ".training", "clip-frames", "clip-sequence", "clip-step", "clip-live",
    }  # fmt: skip


def test_the_served_models_know_where_the_digit_goes(models: Path, features: Floats) -> None:
    repository = FolderRepository(models)
    try:
        whole, step, live = (repository.model(f"clip-{kind}") for kind in ("sequence", "step", "live"))
        assert tuple(whole.labels["logits"]) == tuple(live.labels["logits"]) == drift.CLASSES
        assert (whole.stateful, step.stateful, live.stateful) == (False, True, True)
        caller, right = Caller(), 0
        for at, clip in enumerate(features):
            both: Tensors = {"features": clip[None], "lengths": np.array([len(clip)], np.int64)}
            wanted = whole.infer(both, caller=caller).outputs
            for when, vector in enumerate(clip):
                turn = SequenceStep(at + 1, "me", start=when == 0, end=when == len(clip) - 1)
                state = step.infer({"x": vector[None]}, caller=caller, step=turn).outputs["h_next"]
                logits = live.infer({"x": vector[None]}, caller=caller, step=turn).outputs["logits"]
            np.testing.assert_allclose(state, wanted["state"], atol=1e-5)
            np.testing.assert_allclose(logits, wanted["logits"], atol=1e-5 * max(1, np.abs(logits).max()))
            right += int(logits.argmax() == at % 4)
        assert right >= 15
        backwards: Tensors = {"features": features[:, ::-1].copy(), "lengths": np.full(SHOWN, 12, np.int64)}
        parts: list[Tensors] = [{key: value[begin : begin + 8] for key, value in backwards.items()} for begin in (0, 8)]
        found = np.concatenate([whole.infer(part, caller=caller).outputs["logits"] for part in parts]).argmax(axis=1)
        assert (found == np.arange(SHOWN) % 4).mean() < 0.5  # played backwards they are other clips
    finally:
        repository.close()


def test_live_streams_of_the_server_take_the_step(models: Path, features: Floats) -> None:
    made = encoders.load(models / "clip-frames/1/encoder.onnx")
    recurrence = Recurrence(made.identity, lambda: graph.read(models / "clip-step/1/model.onnx"))
    repository = FolderRepository(models, load="clip-sequence")
    try:
        with recurrence.stream(Caller()) as stream:
            for vector in features[0]:
                stream.add(vector)
            found = stream.vector()
        both: Tensors = {"features": features[:1], "lengths": np.array([12], np.int64)}
        state = repository.model("clip-sequence").infer(both, caller=Caller()).outputs["state"][0]
        np.testing.assert_allclose(found, state / np.linalg.norm(state), atol=1e-5)
    finally:
        repository.close()
        recurrence.close()


def test_a_step_of_other_weights_is_refused() -> None:
    with seeded(1):
        one, other = Recurrent(4, 3, 2), Recurrent(4, 3, 2)
    features = np.random.default_rng(0).standard_normal((5, 4, 4)).astype(np.float32)
    made = publish.compose(None, one, None, features, name="m", size=32, mean=[], std=[], classes="ab")
    assert sorted(made.files) == ["live", "sequence", "step"]
    whole, step, live = (made.files[kind]["model.onnx"] for kind in ("sequence", "step", "live"))
    assert max(publish.stepwise(step, live, whole, one, features, name="m").values()) <= 1e-6
    wrong = gru.write(publish.weights(other))
    for (first, second), what in (
        ((wrong, live), "step to sequence after 1 steps"),
        ((step, publish.live(step, other)), "live to torch after 1 steps"),
    ):
        with pytest.raises(EngineFailed, match=what) as caught:
            publish.stepwise(first, second, whole, one, features, name="m")
        assert caught.value.reason == "PARITY_FAILED"


def test_a_version_is_placed_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"step": {"model.onnx": b"no ONNX", "model.toml": b""}}
    with pytest.raises(EngineFailed, match="would not take the model"):
        publish.place(publish.Made(files, {}), {}, tmp_path, "m", 1)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_clips_again_and_on(tmp_path: Path, silent: Bar) -> None:
    digits = drift.digits()
    for at in range(12):
        path = tmp_path / "clips" / drift.CLASSES[at % 4] / f"{at}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        shown = drift.draw(digits[at], at % 4, frames=6 + 2 * (at % 3), size=32, rng=np.random.default_rng(at))
        path.write_bytes(drift.video(shown))
    (tmp_path / "clips/left-up/broken.mp4").write_bytes(b"nothing")
    short = fit.Options(epochs=1, batch=4)
    options = Options(str(tmp_path / "clips"), tmp_path / "models", name="m", frames=6, threads=1, fit=short)
    first = train(options, silent)
    assert [each["file"] for each in first.report["left_out"]] == ["left-up/broken.mp4"]
    longer = replace(short, epochs=2)
    on = train(replace(options, resume=True, fit=longer), silent)
    assert (on.report["version"], on.report["gru"]["epochs"]) == (2, 2)
    anew = train(replace(options, fit=longer, out=tmp_path / "other"), silent)
    for kind, files in {"sequence": 1, "step": 1, "live": 1, "frames": 1}.items():
        there = [next(each.placed[kind].glob("*.onnx")).read_bytes() for each in (on, anew)]
        assert there[0] == there[1], files  # interrupted and resumed, or in one go: the same bytes
    assert encoder.load(on.placed["frames"] / "encoder.onnx").identity.dimensions == 64
    with pytest.raises(InvalidInput, match="other clips or options"):
        train(replace(options, resume=True, hidden=32), silent)


def test_the_default_encoder_makes_the_vectors_where_it_is_asked_to(tmp_path: Path, silent: Bar) -> None:
    short = fit.Options(epochs=1, batch=4)
    options = Options("digits", tmp_path / "models", features="default", clips=3, frames=6, threads=1, cache=CACHE)
    made = train(replace(options, hidden=16, fit=short), silent)
    assert sorted(made.placed) == ["live", "sequence", "step"]
    assert made.report["features"]["encoder"]["name"] == "efficientnet-lite0"
    assert max(made.report["parity"].values()) <= 1e-5
    step = graph.read(made.placed["step"] / "model.onnx")
    engine = GraphEngine(step, threads=1)
    assert [spec.shape for spec in engine.inputs] == [(-1, 1280), (-1, 16)]
    engine.close()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": "../x"}, "name"),
        ({"name": "x" * 200}, "name"),
        ({"size": 40}, "size"),
        ({"size": 0}, "size"),
        ({"rate": 0.0}, "rate"),
        ({"rate": float("nan")}, "rate"),
        ({"frames": 0}, "frames"),
        ({"frames": 7}, "frames"),
        ({"hidden": 10**6}, "hidden"),
        ({"clips": 1}, "clips"),
        ({"fit": fit.Options(epochs=0)}, "fit"),
        ({"fit": fit.Options(rate=float("inf"))}, "learning_rate"),
    ],
)
def test_impossible_options_are_refused(tmp_path: Path, silent: Bar, change: dict[str, object], field: str) -> None:
    options = replace(Options("digits", tmp_path / "models", clips=4), **change)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as caught:
        train(options, silent)
    assert caught.value.field == field
    assert not (tmp_path / "models").exists()
