"""Fixtures that every test may use: real media, a small encoder, a running server."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import pytest_asyncio
from hypothesis import settings
from onnx import TensorProto, helper

from matchcut.server.config import Config

if TYPE_CHECKING:
    from matchcut.server.app import App

ROOT = Path(__file__).parents[1]

# A shell starts background jobs with SIGINT ignored, and children inherit that: tests that interrupt one need it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# An example that takes long on a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With `--dist loadfile`: some folders go to one process, too."""
    if config.getoption("dist") != "loadfile":
        return None
    from support.spread import Spread

    return Spread(config, log)


@pytest.fixture(scope="session")
def media() -> Path:
    """The folder of real clips and photographs (build.sh fetches them)."""
    folder = ROOT / "build" / "media"
    if not (folder / "bikes.mp4").is_file():
        pytest.fail(f"{folder} is missing: run `./build.sh test`, or `python clients/demo/media.py build/media`")
    return folder


@pytest.fixture(scope="session")
def small_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of a user's own: 32x32 pictures to their 4x4 colour layout, 48-d. Fast, and easy to reason about."""
    path = tmp_path_factory.mktemp("encoder") / "layout.onnx"
    shift = helper.make_tensor("shift", TensorProto.FLOAT, [1], [0.05])
    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["pixels"], ["cells"], kernel_shape=[8, 8], strides=[8, 8]),
            helper.make_node("Flatten", ["cells"], ["flat"]),
            helper.make_node("Add", ["flat", "shift"], ["embedding"]),
        ],
        "layout",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", 3, 32, 32])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 48])],
        [shift],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    path.with_suffix(".toml").write_text(
        'name = "layout"\nversion = "1"\ndimensions = 48\n\n[input]\nwidth = 32\nheight = 32\nfit = "stretch"\n'
        'layout = "NCHW"\nmean = [127.0, 127.0, 127.0]\nstd = [128.0, 128.0, 128.0]\n'
    )
    return path


@pytest.fixture
def config(small_encoder: Path, tmp_path: Path) -> Config:
    """A server's options for tests: the small encoder, a free port, nothing outside the test's folder."""
    return Config(
        listen="127.0.0.1:0",
        data=tmp_path / "data",
        cache=tmp_path / "cache",
        encoder=small_encoder,
        engine="onnxruntime",
        device="cpu",
        threads=1,
        grace=2.0,
    )


@pytest_asyncio.fixture
async def app(config: Config) -> AsyncIterator[App]:
    """A running server."""
    from matchcut.server.app import App

    async with App(config) as running:
        yield running
