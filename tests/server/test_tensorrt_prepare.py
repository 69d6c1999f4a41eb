"""Engines beside their encoder: built once, refused with the reason where they do not fit, and built again."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from matchcut.server.engines.tensorrt import library as libraries
from matchcut.server.engines.tensorrt import manifest, prepare
from matchcut.server.engines.tensorrt.library import Library
from matchcut.server.engines.tensorrt.manifest import Batch, Manifest
from matchcut.server.engines.tensorrt.prepare import Built
from matchcut.server.errors import EngineFailed
from matchcut.server.models import measured
from support import precisions
from support.tensorrt_rtx import MAGIC, needed

pytestmark = needed


@pytest.fixture(scope="module")
def rtx() -> Library:
    return libraries.find("tensorrt_rtx")


@pytest.fixture
def encoder(media: Path, tmp_path: Path) -> Path:
    """The encoder in fp16, alone in a folder."""
    source = precisions.written("fp16").path
    for name in ("encoder.onnx", "encoder.toml", "labels.txt", measured.NAME):
        (tmp_path / name).write_bytes((source.parent / name).read_bytes())
    return tmp_path / "encoder.onnx"


def prepared(onnx_file: Path, rtx: Library, *targets: int, **how: Any) -> tuple[Built, list[str]]:
    refused: list[str] = []
    return prepare.prepare(onnx_file, rtx, targets or (86,), refused=refused.append, **how), refused


def test_an_engine_is_built_once(encoder: Path, rtx: Library) -> None:
    first, refused = prepared(encoder, rtx, 120, 86, 86)
    assert (first.why, refused) == ("there is none yet", [])
    kept = first.manifest
    name = "encoder-tensorrt_rtx-fp16-sm86_120-b1_8_32.engine"
    written = encoder.with_name(name).read_bytes()
    assert written == first.engine
    assert kept == replace(
        kept,
        engine=name,
        size=len(written),
        onnx_sha256=measured.sha256(encoder),
        library="tensorrt_rtx",
        version=rtx.version,
        targets=(86, 120),
        batch=Batch(1, 8, 32),
        precision="fp16",
    )
    assert kept.engine_sha256 == measured.sha256(encoder.with_name(name))
    facts = measured.facts(encoder)
    assert kept.measured == {key: facts[key] for key in ("gate", "figures", "passed")}
    assert kept.made.endswith("+00:00")
    before = {path: path.stat().st_mtime_ns for path in encoder.parent.iterdir()}
    again, refused = prepared(encoder, rtx, 86)
    assert (again.why, refused) == ("", [])
    assert (again.manifest, again.engine) == (kept, written)
    assert {path: path.stat().st_mtime_ns for path in encoder.parent.iterdir()} == before
    asked, _ = prepared(encoder, rtx, 86, 120, again=True)
    assert asked.why == "it was asked for"
    assert asked.manifest.engine == name
    assert encoder.with_name(name).read_bytes() == asked.engine


def change(onnx_file: Path, **values: Any) -> None:
    """Changes a manifest by hand."""
    path = onnx_file.with_name(manifest.NAME)
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_an_engine_that_does_not_fit_is_refused_and_built_again(encoder: Path, rtx: Library) -> None:
    prepared(encoder, rtx, batch=Batch(1, 2, 4))

    def again(why: str, *targets: int, **how: Any) -> Built:
        built, refused = prepared(encoder, rtx, *targets, **how)
        assert why in built.why
        assert refused == [f"the engine {encoder.parent / older} is not used: {built.why}"]
        assert prepared(encoder, rtx, *targets, **how)[0].why == "", "not repaired"
        engines = [path.name for path in encoder.parent.glob("*.engine")]
        assert engines == [built.manifest.engine], "the older one is still there"
        return built

    older = "encoder-tensorrt_rtx-fp16-sm86-b1_2_4.engine"
    built = again("it was built for compute capability 8.6, not 8.9", 86, 89)
    assert built.manifest.batch == Batch(1, 2, 4), "as it was before"
    older = built.manifest.engine
    older = again("it was built for batches of 1:2:4, not 1:8:16", batch=Batch(1, 8, 16)).manifest.engine
    change(encoder, version="1.0.0.1")
    again(f"it was built by tensorrt_rtx 1.0.0.1 and this is tensorrt_rtx {rtx.version}")
    change(encoder, library="tensorrt")
    again(f"it was built by tensorrt {rtx.version} and this is")
    encoder.with_name(older).unlink()
    again("its file is gone")
    path = encoder.with_name(older)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    again("its file is damaged")
    path.write_bytes(path.read_bytes()[:-1])
    again("its file is damaged")
    model = onnx.load(encoder)
    model.doc_string = "another"
    onnx.save(model, encoder)
    rebuilt = again("it was built from another ONNX file")
    assert rebuilt.manifest.precision == "fp32", "nothing is known of this file"
    assert rebuilt.manifest.measured == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"engine": 1}', None])
def test_a_damaged_manifest_is_built_anew(encoder: Path, rtx: Library, text: str | None) -> None:
    path = encoder.with_name(manifest.NAME)
    if text is None:
        first, _ = prepared(encoder, rtx)
        path.write_text(json.dumps(asdict(first.manifest) | {"engine": "../other.engine"}))
    else:
        path.write_text(text)
    with pytest.raises(EngineFailed, match="build the engine again"):
        manifest.read(encoder.parent)
    built, _ = prepared(encoder, rtx)
    assert "build the engine again" in built.why
    assert manifest.read(encoder.parent) == built.manifest


def test_a_folder_that_cannot_be_written(
    encoder: Path, rtx: Library, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(folder: Path, kept: Manifest, engine: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "keep", full)
    built, _ = prepared(encoder, rtx)
    assert built.engine.startswith(MAGIC)
    assert "cannot be kept" in caplog.text
    with pytest.raises(EngineFailed, match=r"cannot be kept in .*: No space left on device") as caught:
        prepared(encoder, rtx, again=True, must_keep=True)
    assert caught.value.reason == "ENGINE_NOT_KEPT"


def test_a_write_that_fails_leaves_the_older_engine(
    encoder: Path, rtx: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = prepared(encoder, rtx)
    before = {path.name: path.read_bytes() for path in encoder.parent.iterdir()}

    def fail(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="No space"):
        manifest.keep(encoder.parent, replace(first.manifest, engine="other.engine"), b"new")
    assert {path.name: path.read_bytes() for path in encoder.parent.iterdir()} == before
