"""The wheel: what it carries, what it asks for, and that it works away from the checkout."""

from __future__ import annotations

import email
import hashlib
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CUBINS = ROOT / "kernels" / "cubins"
HEAVY = ("torch", "triton", "nvidia", "cuda", "cupy", "tensorrt", "pycuda")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, without the stubs that lie about in a checkout.

    With the GPU kernels that lie there: `./build.sh` compiles them before it tests or builds a wheel.
    """
    copy, out = tmp_path_factory.mktemp("source") / "matchcut", tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "build", "*.so", "dist", "*_pb2*", "__pycache__", "*.egg-info", "tests")
    shutil.copytree(ROOT, copy, ignore=ignored)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (made,) = out.glob("matchcut-*.whl")
    return made


def test_it_carries_what_is_needed_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    for needed in (
        "matchcut/v1/recommender.proto",
        "matchcut/v1/recommender_pb2.py",
        "matchcut/v1/recommender_pb2.pyi",
        "matchcut/v1/recommender_pb2_grpc.py",
        "matchcut/v1/py.typed",
        "matchcut/inference/grpc_service.proto",
        "matchcut/inference/grpc_service_pb2.py",
        "matchcut/inference/grpc_service_pb2_grpc.py",
        "matchcut/server/pipeline.py",
        "matchcut/server/py.typed",
        "matchcut/kernels/device.py",
        "matchcut/kernels/native/_scan.so",
        "matchcut/client/sync.py",
        "matchcut/client/py.typed",
    ):
        assert needed in names
    assert sum(name.startswith("matchcut/server/engines/frames/") for name in names) == 8
    packages = ("v1", "inference", "server", "kernels", "client", "bench")
    assert all(name.startswith(tuple(f"matchcut/{package}/" for package in packages)) for name in names)
    assert re.fullmatch(r"matchcut-[\d.]+-py3-none-(?!any).*\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.compress_size for info in archive.infolist()}
    assert sum(size for name, size in sizes.items() if not name.startswith("matchcut/kernels/cubins/")) < 1_500_000


def test_it_carries_the_compiled_kernels(wheel: Path) -> None:
    if not (CUBINS / "manifest.json").is_file():
        pytest.fail(f"{CUBINS} is missing: run ./build.sh kernels")
    with zipfile.ZipFile(wheel) as archive:
        there = {name: archive.read(name) for name in archive.namelist() if name.startswith("matchcut/kernels/cubins/")}
    manifest = json.loads(there.pop("matchcut/kernels/cubins/manifest.json"))
    wanted = {
        f"matchcut/kernels/cubins/{made['file']}": made["sha256"]
        for entry in manifest["kernels"].values()
        for made in entry["targets"].values()
    }
    assert wanted
    assert {name: hashlib.sha256(content).hexdigest() for name, content in there.items()} == wanted
    assert wheel.stat().st_size <= 20_000_000
    assert sum(map(len, there.values())) <= 20_000_000, "installed, they take as much"


def test_every_package_of_the_checkout_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder, package in (
        ("server", "server"),
        ("kernels", "kernels"),
        ("clients/python", "client"),
        ("clients/bench", "bench"),
    ):
        for source in set((ROOT / folder).rglob("*.py")) - set((ROOT / folder).glob("example/*")):
            assert f"matchcut/{package}/{source.relative_to(ROOT / folder).as_posix()}" in names


def test_nothing_heavy_is_asked_for(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
        licences = [entry for entry in archive.namelist() if entry.endswith(("/LICENSE", "/NOTICE"))]
    required = metadata.get_all("Requires-Dist") or []
    base = {re.split(r"[<>=!~;\[ ]", one)[0].lower() for one in required if "extra ==" not in one}
    assert base == {
        *("av", "grpcio", "grpcio-health-checking", "grpcio-reflection", "grpcio-status"),
        *("numpy", "onnxruntime", "openvino", "pillow", "prometheus-client", "protobuf", "rich"),
    }
    heavy = {one for one in required if one.lower().startswith(HEAVY) and not one.startswith("tritonclient")}
    extras = {re.split(r"[<>=!~;\[ ]", one)[0]: re.findall(r'extra == "(\w+)"', one) for one in heavy}
    assert extras.keys() == {"pycuda", "tensorrt-rtx", "torch", "triton"}
    assert extras["pycuda"] == ["gpu"]
    assert extras["torch"] == ["train"]
    assert extras["triton"] in (["kernels"], ["test"])
    assert extras["tensorrt-rtx"] in (["tensorrt"], ["test"])
    offered = {"bench", "encoder", "gpu", "kernels", "load", "otel", "tensorrt", "test", "train"}
    assert set(metadata.get_all("Provides-Extra") or []) == offered
    assert len(licences) == 2


def test_it_works_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import matchcut.client, matchcut.server.app, matchcut.server.engines.trial as trial\n"
        "from matchcut.server.__main__ import main\n"
        "print(matchcut.client.__file__, matchcut.server.app.__file__, trial.__file__)\n"
        "main(['--help'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].count(str(tmp_path / "site")) == 3
    assert "Video in, ranked items out." in done.stdout
