"""`--engine tensorrt` and `tensorrt-rtx`, and `auto`: from an encoder to an engine, or to what is missing for one."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest

from matchcut.kernels.cuda.errors import CudaAbsent, CudaError
from matchcut.kernels.cuda.launcher import Context
from matchcut.kernels.cuda.probe import Absent, Found, Gpu, probe
from matchcut.server import engines, models
from matchcut.server.engines.tensorrt import library as libraries
from matchcut.server.engines.tensorrt import loading, manifest, prepare
from matchcut.server.engines.tensorrt.library import Library
from matchcut.server.engines.tensorrt.manifest import Batch
from matchcut.server.engines.tensorrt.runtime import TensorRt
from matchcut.server.errors import DeviceLost, EngineFailed
from support.fake_trt import ENCODER, FakeGpu, FakeTrt, embedded, library_of, pictures
from support.tensorrt_rtx import needed


@pytest.fixture
def trt() -> FakeTrt:
    return FakeTrt()


def sees(monkeypatch: pytest.MonkeyPatch, found: Found | Absent) -> None:
    monkeypatch.setattr(loading, "probe", lambda: found)


def has(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """Lets these modules be installed, and none of the others."""
    for name in libraries.NAMES:
        monkeypatch.setitem(sys.modules, name, modules.get(name))


def installed(version: str = "1.7.1.116") -> Any:
    made: Any = ModuleType("tensorrt_rtx")
    made.__version__ = version
    made.IBuilderConfig = SimpleNamespace(set_compute_capability=None)
    made.ComputeCapability = SimpleNamespace(__members__={"NONE": 0, "CURRENT": 1, "SM86": 2, "SM120": 3})
    return made


GPU = Gpu(0, "NVIDIA RTX A4000", 86, 16 << 30, 48)
H100 = Gpu(0, "NVIDIA H100 80GB HBM3", 90, 80 << 30, 132)


@pytest.mark.parametrize(("engine", "module"), [("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")])
def test_without_the_library(small_encoder: Path, monkeypatch: pytest.MonkeyPatch, engine: str, module: str) -> None:
    has(monkeypatch)
    with pytest.raises(EngineFailed, match=f"the engine {engine} needs {module} .*: pip install {module}") as caught:
        engines.load(models.load(small_encoder), engine=engine)
    assert caught.value.reason == "ENGINE_NOT_INSTALLED"


def test_without_a_gpu(small_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, tensorrt_rtx=installed())
    sees(monkeypatch, Absent("there is no NVIDIA driver; on a machine with a GPU, install it"))
    with pytest.raises(EngineFailed, match="the engine tensorrt-rtx needs a GPU: there is no NVIDIA driver") as caught:
        engines.load(models.load(small_encoder), engine="tensorrt-rtx")
    assert caught.value.reason == "DEVICE_UNAVAILABLE"


def test_a_gpu_that_the_library_does_not_know(small_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, tensorrt_rtx=installed())
    sees(monkeypatch, Found(13000, (H100,)))
    gpu: Any = FakeGpu()
    gpu.name, gpu.capability = H100.name, H100.capability
    monkeypatch.setattr(Context, "open", lambda ordinal: gpu)
    message = r"tensorrt_rtx 1\.7\.1\.116 does not know NVIDIA H100 80GB HBM3, compute capability 9\.0; take .*tensorrt"
    with pytest.raises(EngineFailed, match=message):
        engines.load(models.load(small_encoder), engine="tensorrt-rtx")
    assert gpu.closed == 1


def test_a_gpu_that_cannot_be_opened(small_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    has(monkeypatch, tensorrt_rtx=installed())
    sees(monkeypatch, Found(13000, (GPU,)))

    def refuse(ordinal: int) -> Context:
        raise CudaAbsent("PyCUDA is not installed")

    monkeypatch.setattr(Context, "open", refuse)
    with pytest.raises(EngineFailed, match="the engine tensorrt-rtx cannot use the GPU: PyCUDA is not installed"):
        engines.load(models.load(small_encoder), engine="tensorrt-rtx")


def test_from_an_encoder_to_a_run(trt: FakeTrt, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU, up to the library, whose building and running are stood in for."""
    gpu = FakeGpu()
    has(monkeypatch, tensorrt_rtx=installed())
    sees(monkeypatch, Found(13000, (GPU,)))
    monkeypatch.setattr(Context, "open", lambda ordinal: gpu)
    monkeypatch.setattr(libraries, "described", lambda module, name: library_of(trt))
    asked: list[tuple[Path, tuple[int, ...]]] = []
    made = manifest.Manifest("e", "", 0, "", "tensorrt_rtx", "1.7", (86,), Batch(1, 2, 4), "int8", "")

    def prepared(onnx: Path, library: Library, targets: tuple[int, ...], **how: Any) -> prepare.Built:
        asked.append((onnx, targets))
        return prepare.Built(made, b"plan", "")

    monkeypatch.setattr(loading, "prepare", prepared)
    engine = engines.load(ENCODER, engine="tensorrt-rtx")
    assert asked == [(ENCODER.path, (86,))]
    assert engine.variant == "tensorrt-rtx-int8"
    np.testing.assert_allclose(engine.run(pictures(6)), embedded(pictures(6)), rtol=1e-6)
    engine.close()
    trt.tensors = None
    with pytest.raises(EngineFailed, match="refuses the engine"):
        engines.load(ENCODER, engine="tensorrt-rtx")
    assert gpu.closed == 2, "it was left open"


def test_a_gpu_that_is_open_already_is_used_and_left_open(trt: FakeTrt, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, told = FakeGpu(), list[Exception]()
    has(monkeypatch, tensorrt_rtx=installed())
    sees(monkeypatch, Absent("nobody asks"))
    monkeypatch.setattr(libraries, "described", lambda module, name: library_of(trt))
    made = manifest.Manifest("e", "", 0, "", "tensorrt_rtx", "1.7", (86,), Batch(1, 2, 4), "fp16", "")
    monkeypatch.setattr(loading, "prepare", lambda *_, **__: prepare.Built(made, b"plan", ""))

    def failed(error: Exception) -> NoReturn:
        told.append(error)
        raise DeviceLost("it is lost")

    engine = engines.load(ENCODER, engine="tensorrt-rtx", gpu=engines.OpenGpu(gpu, failed))
    np.testing.assert_allclose(engine.run(pictures(2)), embedded(pictures(2)), rtol=1e-6)
    gpu.fails = CudaError("an address was illegal")
    with pytest.raises(DeviceLost, match="it is lost"):
        engine.run(pictures(2))
    assert told == [gpu.fails]
    engine.close()
    trt.tensors = None
    gpu.fails = None
    with pytest.raises(EngineFailed, match="refuses the engine"):
        engines.load(ENCODER, engine="tensorrt-rtx", gpu=engines.OpenGpu(gpu, failed))
    assert gpu.closed == 0


# ---- what is built beside the encoder ----


@needed
def test_the_real_library_refuses_to_load_without_a_gpu(small_encoder: Path, tmp_path: Path) -> None:
    encoder = models.load(copied(small_encoder, tmp_path))
    rtx = libraries.find("tensorrt_rtx")
    built = prepare.prepare(encoder.path, rtx, (86,))
    gpu = FakeGpu()
    if not isinstance(probe(), Absent):
        pytest.skip("this machine has a GPU")
    with pytest.raises(EngineFailed, match=r"refuses the engine of .*CUDA") as caught:
        TensorRt(encoder, "tensorrt-rtx", library=rtx, engine=built.engine, batch=built.manifest.batch, gpu=gpu)
    assert caught.value.reason == "ENGINE_STALE"


@needed
def test_auto_takes_what_was_built_if_it_can(
    small_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    encoder = models.load(copied(small_encoder, tmp_path))
    sees(monkeypatch, Absent("there is no NVIDIA driver"))
    prepare.prepare(encoder.path, libraries.find("tensorrt_rtx"), (86,))
    engine = engines.load(encoder, threads=1)
    assert engine.variant.startswith(("onnxruntime", "openvino"))
    engine.close()
    assert (
        f"the engine built beside {encoder.path} is not used, one of the CPU is: the engine tensorrt-rtx needs a GPU"
        in (caplog.text)
    )
    ready = SimpleNamespace(variant="tensorrt-rtx-fp32")
    monkeypatch.setattr(loading, "load", lambda *_: ready)
    assert engines.load(encoder) is ready
    (tmp_path / manifest.NAME).write_text("damaged")
    caplog.clear()
    engines.load(encoder, threads=1).close()
    assert "is damaged" in caplog.text


def copied(encoder: Path, folder: Path) -> Path:
    """The encoder in a folder of its own."""
    for path in (encoder, encoder.with_suffix(".toml")):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder / encoder.name
