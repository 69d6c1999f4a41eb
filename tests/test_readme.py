"""What the README tells people to type works: its blocks are run, in order, against one server."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from matchcut.server import blend, config
from matchcut.server.models import description

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLIPS = ("carphone.mp4", "bikes.mp4", "b.mp4")


def blocks(language: str) -> list[str]:
    """The README's fenced blocks of one language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S)


def shell_blocks() -> list[str]:
    """Those that are meant for a running server: not the setup, not the server itself, nor training without torch."""
    meant = [block for block in blocks("sh") if not block.startswith(("./build.sh", "pip install", "matchcut serve"))]
    if importlib.util.find_spec("torch") is None:
        return [re.sub("^matchcut train .*$", "", block, flags=re.M) for block in meant]
    return meant


@pytest.fixture(scope="module")
def place(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str], str]]:
    """A folder with clips in it, an environment, and the address of a server started as the README says."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "clips").mkdir()
    for name in CLIPS:
        shutil.copy(media / name, folder / "clips" / name)
    shutil.copy(media / "carphone_distorted.mp4", folder / "clip.mp4")
    (folder / "pictures").mkdir()
    for name, there in (("cheetah", "cheetah"), ("lion", "lion"), ("world", "world-0285")):
        shutil.copy(ROOT / "server/engines/frames" / f"{there}.jpg", folder / "pictures" / f"{name}.jpg")
    subprocess.run([sys.executable, ROOT / "clients" / "demo" / "events.py", folder / "events.csv"], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MATCHCUT_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "MATCHCUT_LISTEN": address,
        "MATCHCUT_SERVER": address,
        "MATCHCUT_DATA": str(folder / "data"),
        "MATCHCUT_SESSION": str(folder / "sessions"),
        "MATCHCUT_CACHE": str(ROOT / "build" / "cache"),
    }
    (command,) = [block for block in blocks("sh") if block.startswith("matchcut serve")]
    with (folder / "serve.log").open("w") as log:
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stdout=log, stderr=log
        )
        try:
            while "serving on" not in (folder / "serve.log").read_text():
                assert server.poll() is None, (folder / "serve.log").read_text()
                time.sleep(0.05)
            yield folder, environment, address
        finally:
            server.terminate()
            assert server.wait(timeout=30) == 0


def test_the_setup_commands_exist() -> None:
    listed = subprocess.run([ROOT / "build.sh", "help"], check=True, capture_output=True, text=True).stdout
    named = [line.split()[1] for block in blocks("sh") for line in block.splitlines() if line.startswith("./build.sh")]
    assert {"demo", "test"} <= set(named)
    for command in named:
        assert re.search(rf"^  {command}\b", listed, flags=re.M), command


def test_shell_blocks(place: tuple[Path, dict[str, str], str]) -> None:
    folder, environment, _ = place
    script = "set -euo pipefail\n" + "\n".join(shell_blocks())
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 of 3 files are in the catalogue" in done.stdout
    first = re.search(r"│\s+1 │ (\S+)\s+│", done.stdout)
    assert first is not None
    assert first[1] == "carphone.mp4"
    assert "983 events recorded" in done.stdout
    if importlib.util.find_spec("torch") is not None:
        assert "version 1 is served now" in done.stdout


def test_python_blocks(place: tuple[Path, dict[str, str], str]) -> None:
    folder, environment, address = place
    for block in blocks("python"):
        script = block.replace("127.0.0.1:7411", address)
        assert script != block, "a Python block of the README names the default address"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert ("(3, 1280)" if "tritonclient" in block else "carphone.mp4") in done.stdout


def test_the_config_file_shown_is_one(tmp_path: Path) -> None:
    (shown,) = [block for block in blocks("toml") if "listen" in block]
    file = tmp_path / "matchcut.toml"
    file.write_text(shown)
    assert set(tomllib.loads(shown)) <= set(config.Config.__dataclass_fields__)
    config.load({"config": str(file)}, {})


def test_the_description_of_a_model_shown_is_one(tmp_path: Path) -> None:
    (shown,) = [block for block in blocks("toml") if "[sequence]" in block]
    (tmp_path / "model.toml").write_text(shown)
    told = description.of_model(tmp_path, tmp_path)
    assert (told.max_batch, told.instances, told.default_version, told.states) == (16, 2, "3", {"h": "h_next"})


def test_the_experiments_shown_can_run() -> None:
    (shown,) = [block for block in blocks("toml") if "[[experiments]]" in block]
    (running,) = blend.parse(shown, "README.md").running
    assert [variant.name for variant in running.variants] == ["control", "diverse"]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target
