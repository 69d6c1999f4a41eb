"""Imports point down: a module uses only floors below its own, so that every part can be read and tested alone."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 350  # lines of a source file

# Each module or package of server/ and its floor. What is after the point orders neighbours on one floor of the
# design; those of the very same number are siblings and do not import each other.
FLOORS: dict[str, float] = {
    "errors": 1.0,
    "options": 1.1,
    "process": 1.0,
    "profiles": 1.0,
    "records": 1.0,
    "clock": 1.1,
    "config": 1.2,
    "commit": 1.3,
    "disk": 1.3,
    "convert": 1.1,
    "tensors": 1.1,
    "sampling": 1.1,
    "blanks": 2.0,
    "blend": 2.0,
    "catalog": 2.0,
    "decode": 2.0,
    "device": 2.0,
    "events": 2.0,
    "feed": 2.0,
    "images": 2.0,
    "intake": 2.0,
    "metrics": 2.1,
    "tracing": 2.1,
    "segments": 2.0,
    "shots": 2.0,
    "stills": 2.0,
    "vectors": 2.0,
    "models": 3.0,
    "frames": 3.0,
    "engines": 3.1,
    "batcher": 3.2,
    "turns": 2.1,
    "sight": 3.3,
    "encode": 3.35,
    "precision": 3.3,
    "recurrence": 3.4,
    "serving": 3.4,
    "session": 3.4,
    "tagging": 3.5,
    "users": 3.5,
    "job": 3.9,
    "pipeline": 4.0,
    "ingest": 4.1,
    "personal": 4.2,
    "evaluation": 4.8,
    "service": 5.0,
    "oip": 5.05,
    "health": 5.1,
    "listener": 5.1,
    "app": 6.0,
    "checkup": 6.0,
    "board": 6.1,
    "commands": 7.0,
    "__main__": 7.1,
}
KERNELS = 0.0
TRAINING = 4.9  # server/training/: may use what serving uses, and is used by the command that trains alone
TRAINS = "matchcut.server.commands.train"
NO_WIRE = 5.0  # below this floor nothing knows gRPC or protobuf
MAY_BE_CLIENT = 7.0  # from this floor on, the command line talks to a server like any other client

WIRE = {"grpc", "grpc_health", "grpc_reflection", "grpc_status", "grpc_tools", "google"}
TRITON_MAY = ("kernels/compile/", "kernels/gpu/", "tests/")
BENCH_MAY = {"google", "grpc", "hdrh", "numpy"}
CLIENT_MAY = {"grpc", "grpc_health", "grpc_status", "google"}  # beside the standard library
ENVIRONMENT = ("server/config.py", "server/__init__.py")  # one reads it, the other keeps libraries from telling of it
EXAMPLES = "clients/python/example/"  # programs as users write them, which may import each other
FOLDERS = {"server": "matchcut.server", "kernels": "matchcut.kernels", "clients": "matchcut.client"}


def imports(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and absolute name of each import, also inside functions; `from a import b` is a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: -node.level + 1 or None] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def floor(name: str) -> float | None:
    """Where matchcut.server.<...> or matchcut.kernels.<...> lives; None for anything else."""
    parts = name.split(".")
    if parts[:2] == ["matchcut", "kernels"]:
        return KERNELS
    if parts[:2] != ["matchcut", "server"] or len(parts) < 3:
        return None
    if parts[2] == "training":
        return TRAINING
    assert parts[2] in FLOORS, f"server/{parts[2]} has no floor yet: add it to FLOORS in tests/test_floors.py"
    return FLOORS[parts[2]]


def unit(name: str) -> str:
    """The module or package right below matchcut.server; what is inside of it may import each other."""
    return ".".join(name.split(".")[:3])


def faults(path: str, source: str) -> Iterator[str]:
    """What is wrong with the file at `path` (relative to the root), one sentence each."""
    parts = Path(path).with_suffix("").parts
    if len(source.splitlines()) > LONGEST:
        yield f"{path} has more than {LONGEST} lines: split it by responsibility"
    if parts[0] == "server" and parts[-1] == "types":
        yield f"{path} shadows a module of the standard library: name it otherwise"
    if path not in ENVIRONMENT and not path.startswith(EXAMPLES) and _reads_environment(source):
        yield f"{path} reads the environment: declare an option in server/config.py instead"
    inside = ".".join([FOLDERS.get(parts[0], "tests"), *(part for part in parts[1:] if part != "__init__")])
    package = inside if parts[-1] == "__init__" else inside.rpartition(".")[0]
    for line, name in imports(source, package):
        root = name.split(".")[0]
        if root in ("kernels", "server", "clients", "proto"):
            yield f"{path}:{line} imports {name} from the root, a second copy of matchcut.{name}: use that one"
        if root == "triton" and not path.startswith(TRITON_MAY):
            yield f"{path}:{line} imports {name}: only what compiles and tests the GPU kernels may need triton"
        if name.startswith(("matchcut.kernels.compile", "matchcut.kernels.gpu")) and not path.startswith(TRITON_MAY):
            yield f"{path}:{line} imports {name}: what runs needs no compiler"
        check = {"server": _server, "kernels": _kernels, "clients": _client}.get(parts[0])
        reason = check and check(path, inside, name)
        if reason:
            yield f"{path}:{line} imports {name}: {reason}"


def _server(path: str, inside: str, name: str) -> str:
    own = 0.0 if inside == "matchcut.server" else floor(inside)
    other = floor(name)
    assert own is not None
    trains = unit(inside) == "matchcut.server.training" or inside.startswith(TRAINS)
    if unit(name) == "matchcut.server.training" and not trains:
        return "serving never needs training"
    if own < NO_WIRE and (name.split(".")[0] in WIRE or name.startswith(("matchcut.v1", "matchcut.inference"))):
        return "only the floors from the service up know gRPC and protobuf"
    if own < MAY_BE_CLIENT and name.startswith(("matchcut.client", "matchcut.bench")):
        return "only the command line is a client"
    if other is not None and other >= own and unit(inside) != unit(name):
        return f"floor {own} uses only floors below it, and that is floor {other}"
    return ""


def _kernels(path: str, inside: str, name: str) -> str:
    if name.startswith("matchcut.") and not name.startswith("matchcut.kernels"):
        return "kernels know arrays and nothing else of matchcut"
    if name.split(".")[0] in WIRE:
        return "kernels know neither gRPC nor protobuf"
    return ""


def _client(path: str, inside: str, name: str) -> str:
    if name.startswith(("matchcut.server", "matchcut.kernels")):
        return "clients know the contract only"
    root = name.split(".")[0]
    if path.startswith(EXAMPLES):
        return "" if root in {"matchcut", "tour"} or _standard(root) else "an example needs the client only"
    if path.startswith("clients/python/") and root not in {*CLIENT_MAY, "matchcut"} and not _standard(root):
        return "the client needs gRPC and protobuf only"
    if path.startswith("clients/bench/") and root not in {*BENCH_MAY, "matchcut"} and not _standard(root):
        return "the load generator needs gRPC, protobuf, NumPy and its histograms only"
    if path.startswith("clients/python/") and name.startswith("matchcut.bench"):
        return "the client does without the load generator"
    return ""


def _standard(root: str) -> bool:
    return root in sys.stdlib_module_names


def _reads_environment(source: str) -> bool:
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in names and ast.unparse(node.value) == "os":
            return True
        if isinstance(node, ast.ImportFrom) and node.module == "os" and names & {alias.name for alias in node.names}:
            return True
    return False


def files() -> list[str]:
    """Every source file, tests included, generated stubs not."""
    found = [path for folder in (*FOLDERS, "tests") for path in (ROOT / folder).rglob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_point_down(folder: str) -> None:
    found = [path for path in files() if path.startswith(f"{folder}/")]
    assert found, f"{folder}/ is empty"
    wrong = [fault for path in found for fault in faults(path, (ROOT / path).read_text(encoding="utf-8"))]
    assert not wrong, "\n".join(wrong)


def test_tests_import_the_package_not_the_folders() -> None:
    wrong = [
        f"{path}:{line} imports {name}"
        for path in files()
        if path.startswith("tests/")
        for line, name in imports((ROOT / path).read_text(encoding="utf-8"), "tests")
        if name.split(".")[0] in ("kernels", "server", "clients", "proto")
    ]
    assert not wrong, "\n".join(wrong)


def test_every_floor_is_inhabited() -> None:
    there = {path.stem for path in (ROOT / "server").iterdir()}
    gone = sorted(FLOORS.keys() - there)
    assert not gone, f"{gone} left server/: take them out of FLOORS"


@pytest.mark.parametrize(
    ("path", "source", "reason"),
    [
        ("server/decode/planner.py", "from matchcut.server.pipeline import Pipeline", "floor 2.0 uses only"),
        ("server/decode/planner.py", "from matchcut.server import pipeline", "floor 2.0 uses only"),
        ("server/decode/planner.py", "def f():\n    import matchcut.server.shots.exact", "floor 2.0 uses only"),
        ("server/decode/planner.py", "from ..shots import exact", "floor 2.0 uses only"),
        ("server/decode/__init__.py", "from ..shots import exact", "floor 2.0 uses only"),
        ("server/shots.py", "from .decode import planner", "floor 2.0 uses only"),
        ("server/models/__init__.py", "from matchcut.server.engines import load", "floor 3.0 uses only"),
        ("server/pipeline.py", "import grpc", "know gRPC"),
        ("server/pipeline.py", "from google.protobuf import message", "know gRPC"),
        ("server/pipeline.py", "from matchcut.v1 import media_pb2", "know gRPC"),
        ("server/errors.py", "import grpc.aio", "know gRPC"),
        ("server/serving/contract.py", "from matchcut.inference import grpc_service_pb2", "know gRPC"),
        ("server/service/__init__.py", "from matchcut.client import Client", "only the command line"),
        ("server/app.py", "from matchcut.server.training import fit", "never needs training"),
        ("server/app.py", "from matchcut.server import training", "never needs training"),
        ("server/commands/index.py", "from matchcut.server.training import fit", "never needs training"),
        ("server/app.py", "import kernels.pool", "second copy of matchcut.kernels.pool"),
        ("tests/test_x.py", "from server import app", "second copy of matchcut.server.app"),
        ("kernels/pool.py", "import triton.language as tl", "may need triton"),
        ("kernels/compiled.py", "import triton", "may need triton"),
        ("server/app.py", "def f():\n    from triton import knobs", "may need triton"),
        ("clients/demo/run.py", "import triton", "may need triton"),
        ("kernels/device.py", "from matchcut.kernels.compile import targets", "needs no compiler"),
        ("server/app.py", "from matchcut.kernels.gpu import pool", "needs no compiler"),
        ("kernels/pool.py", "from matchcut.server import records", "nothing else of matchcut"),
        ("kernels/pool.py", "import google.protobuf", "neither gRPC nor protobuf"),
        ("clients/python/sync.py", "from matchcut.server.errors import NotFound", "contract only"),
        ("clients/python/sync.py", "import numpy as np", "gRPC and protobuf only"),
        ("clients/demo/run.py", "from matchcut.kernels import pool", "contract only"),
        ("clients/bench/page.py", "import matplotlib", "its histograms only"),
        ("clients/bench/page.py", "from matchcut.server import records", "contract only"),
        ("clients/python/sync.py", "from matchcut.bench import plan", "does without the load generator"),
        ("server/app.py", "from matchcut.bench import plan", "only the command line"),
        ("clients/python/example/tour.py", "import grpc", "the client only"),
        ("server/app.py", "import os\nos.getenv('X')", "declare an option"),
        ("server/app.py", "import os\nos.environ.get('X')", "declare an option"),
        ("kernels/device.py", "from os import environ", "declare an option"),
        ("server/types.py", "", "standard library"),
        ("server/decode/types.py", "", "standard library"),
        ("server/app.py", "x = 1\n" * 351, "split it"),
    ],
)
def test_what_is_forbidden_is_caught(path: str, source: str, reason: str) -> None:
    assert [fault for fault in faults(path, source) if reason in fault]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("server/decode/planner.py", "from .reader import Reader\nfrom matchcut.server.decode.lead import lead"),
        ("server/decode/__init__.py", "from .reader import Reader\nfrom ..errors import NotFound"),
        ("server/decode/planner.py", "from matchcut.server.sampling import Instants\nimport matchcut.kernels.pool"),
        ("server/service/__init__.py", "import grpc.aio\nfrom matchcut.v1 import media_pb2"),
        ("server/commands/ls.py", "from matchcut.client import Client"),
        ("server/commands/train/image.py", "from matchcut.server.training.image import fit"),
        ("server/config.py", "import os\nos.environ"),
        ("kernels/gpu/pool.py", "import triton"),
        ("kernels/compile/one.py", "import triton"),
        ("tests/kernels/test_compile.py", "import triton\nfrom matchcut.kernels.compile import targets"),
        ("clients/python/sync.py", "import threading, grpc\nfrom matchcut.v1 import media_pb2"),
        ("clients/bench/infer.py", "import numpy as np\nfrom matchcut.client import Client"),
        ("server/commands/bench_load.py", "from matchcut.bench import plan"),
        ("clients/python/example/tour.py", "import os\nfrom matchcut.client import Client\nos.environ"),
    ],
)
def test_what_is_allowed_is_not(path: str, source: str) -> None:
    assert list(faults(path, source)) == []


def test_a_module_without_a_floor_is_told_where_to_get_one() -> None:
    with pytest.raises(AssertionError, match=r"server/novel has no floor yet: add it to FLOORS"):
        list(faults("server/novel.py", "import os"))
    with pytest.raises(AssertionError, match="no floor yet"):
        list(faults("server/app.py", "from matchcut.server import novel"))
