"""The wheel for boards: what serves, and nothing that only builds, tests or runs elsewhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the one setting that makes it small, from a copy of the sources in which a build has left traces."""
    copy, out = tmp_path_factory.mktemp("source") / "matchcut", tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "build", "*.so", "dist", "*_pb2*", "*.egg-info", "tests", "node_modules")
    shutil.copytree(ROOT, copy, ignore=ignored)
    cubins = copy / "kernels" / "cubins"  # whether they were compiled or not
    (cubins / "sm_87").mkdir(parents=True, exist_ok=True)
    (cubins / "sm_87" / "made.cubin").write_bytes(os.urandom(1000))
    (copy / "kernels" / "native" / "left.o").write_bytes(b"")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), "."]
    subprocess.run(
        command, cwd=copy, check=True, capture_output=True, env=os.environ | {"MATCHCUT_WHEEL_KERNELS": "off"}
    )
    (made,) = out.glob("matchcut-*.whl")
    return made


def test_what_is_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert Counter(Path(name).suffix for name in names).keys() == {".py", ".pyi", ".proto", ".typed", ".so", ".jpg"}
    assert [name for name in names if name.endswith(".so")] == ["matchcut/kernels/native/_scan.so"]
    assert sum(name.endswith(".jpg") for name in names) == 8, "the pictures that engines are measured with"
    assert not [name for name in names if "cubin" in name or "__pycache__" in name or "/tests/" in name]
    assert "matchcut/server/models/efficientnet_int8.py" in names
    assert wheel.stat().st_size < 1_500_000


def test_it_serves_away_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import matchcut.kernels.native.shared_library as scan\n"
        "from matchcut.server.__main__ import main\n"
        "assert scan.load().variants and 'site' in scan.__file__\n"
        "sys.exit(main(['doctor', '--profile', 'edge', '--device', 'cpu', '--data', 'd', '--cache', 'c']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "serving would work" in done.stdout
