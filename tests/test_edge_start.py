"""What a start imports, does and says: no more than serving needs, and what options come to nothing."""

from __future__ import annotations

import gc
import logging
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from matchcut.client import Client
from matchcut.server import config, models, process
from matchcut.server.__main__ import main
from matchcut.server.catalog import open_catalog
from matchcut.server.commands import COMMANDS, command
from matchcut.server.commands.serve import tell_of_precision
from matchcut.server.records import Item, Segment, TimeRange

# Serves until it has a first answer, then prints what was imported.
LOADED = """
import asyncio, sys
from matchcut.server.__main__ import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*sys.modules)
"""
# What no server needs for its first answer: other commands, their ways of printing, training, other engines.
NEEDLESS = (
    *("rich", "matchcut.client", "matchcut.server.training", "matchcut.server.evaluation", "matchcut.server.precision"),
    *("matchcut.server.commands.engine", "matchcut.server.commands.train", "matchcut.server.checkup"),
    *("openvino", "tensorrt", "torch", "onnx", "triton", "prometheus_client", "opentelemetry", "numpy.testing"),
)


def loaded(*arguments: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, timeout=60)
    return set(done.stdout.splitlines()[-1].split())


def test_every_command_is_called_as_its_module() -> None:
    assert len(set(COMMANDS)) == len(COMMANDS)
    for name in COMMANDS:
        found = command(name)
        assert name == found.NAME
        assert found.SUMMARY
        assert found.EXAMPLES.lstrip().startswith("examples:")
    folder = Path(command("serve").__file__).parent  # type: ignore[attr-defined]
    files = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
    names = [re.search(r'^NAME = "(\w+)"$', path.read_text(), re.MULTILINE) for path in files]
    assert sorted(name[1] for name in names if name) == sorted(COMMANDS), "one is forgotten"


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert [told.index(f"\n    {name}") for name in COMMANDS] == sorted(
        told.index(f"\n    {name}") for name in COMMANDS
    )
    with pytest.raises(SystemExit) as caught:
        main(["servve"])
    assert caught.value.code == 2
    assert "invalid choice: 'servve' (choose from" in capsys.readouterr().err


def test_only_the_command_that_is_asked_for_is_imported() -> None:
    found = loaded("ls", "--help")
    assert {name for name in found if re.fullmatch(r"matchcut\.server\.commands\.\w+", name)} == {
        f"matchcut.server.commands.{name}" for name in ("ls", "connect", "output")
    }
    assert "numpy" not in loaded("serve", "--help")


def fill(data: Path, cache: Path) -> None:
    """Puts in more vectors than are kept in memory, 300 items of 5 KiB, for the default encoder in int8."""
    encoder = models.load(models.default_encoder(cache, bits="int8")).identity
    vectors = np.random.default_rng(0).standard_normal((300, encoder.dimensions), np.float32)
    with closing(open_catalog(data)) as catalog, ThreadPoolExecutor(8) as pool:
        for at, vector in enumerate(vectors):
            part = [Segment(TimeRange(0, 1_000_000), vector / np.linalg.norm(vector))]
            pool.submit(catalog.put, "", Item(f"made-{at}"), part, encoder, bytes([at % 256, at // 256]))


def of_no_name(data: Path, pid: int) -> tuple[int, int]:
    """How many files without a name, of that folder, a process has open, and how many times they are mapped."""
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    opened, mapped = (sum(f"{data}/" in one and one.endswith("(deleted)") for one in lines) for lines in (links, maps))
    return opened, mapped


@pytest.mark.skipif(not process.MAPS.exists(), reason="what is open and mapped can be seen on Linux only")
def test_a_server_has_what_serving_needs(media: Path, tmp_path: Path) -> None:
    """A real one with the profile: what it has imported and mapped once it has answered, and what it says of itself."""
    fill(tmp_path / "data", tmp_path / "cache")
    options = ["--profile", "edge", "--listen", "127.0.0.1:0", "--device", "cpu"]
    options += ["--data", str(tmp_path / "data"), "--cache", str(tmp_path / "cache")]
    command = [sys.executable, "-c", LOADED, "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            line = next((line for line in server.stdout if "serving on " in line), "")
            with Client(line.split()[-1]) as client:
                client.ingest("bikes", media / "bikes.mp4")
                ranking = client.recommend(clip=media / "bikes.mp4")
            end = time.monotonic() + 20
            while (here := of_no_name(tmp_path / "data", server.pid)) != (1, 0) and time.monotonic() < end:
                time.sleep(0.02)  # the answer may be here before the thread that made it has let go
        finally:
            server.terminate()
            found = set(server.communicate(timeout=30)[0].split())
    assert here == (1, 0), "vectors lie in a file, and nothing of it is kept between two requests"
    assert ranking.matches[0].item.id == "bikes"
    assert len(ranking.matches) > 1
    assert {stage.name: stage.variant for stage in ranking.times.stages}["encode"] == "onnxruntime-int8"
    assert {"matchcut.server.app", "onnxruntime", "av", "matchcut.server.commands.serve"} <= found
    assert not found & set(NEEDLESS)


def test_no_garbage_is_looked_for_at_the_start() -> None:
    before = gc.isenabled()
    assert before
    frozen = gc.get_freeze_count()
    with process.starting() as started:
        assert not gc.isenabled()
        started()
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    with pytest.raises(ZeroDivisionError), process.starting():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_whoever_does_without_it_goes_on_so() -> None:
    gc.disable()
    try:
        with process.starting() as started:
            started()
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ({"precision": "int8", "encoder": "mine.onnx"}, "WARNING"),
        ({"precision": "int8", "encoder": "mine.onnx", "profile": "edge"}, "INFO"),
        ({"encoder": "mine.onnx", "profile": "edge"}, "INFO"),
        ({"encoder": "mine.onnx"}, ""),
        ({"encoder": "mine.onnx", "profile": "edge", "precision": "float32"}, ""),
        ({"precision": "int8"}, ""),
        ({"profile": "edge"}, ""),
    ],
)
def test_a_precision_that_is_not_used_is_told(
    given: dict[str, str], level: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        tell_of_precision(config.load(given, {}))
    assert [record.levelname for record in caplog.records] == [level] * bool(level)
    if level:
        of = " of the profile" if level == "INFO" else ""
        assert f"--precision int8{of} is of the default encoder: mine.onnx is served as it is" in caplog.text
