"""Starts the servers of the serving benchmark: ours, NVIDIA Triton, the bare floor, MLServer, LitServe.

Each peer lives in an environment of its own below one folder, made as tests/bench/README.md says; one that is not there
is reported, and its rows are not measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import common
import grpc.aio
from serving_load import SERVICE
from serving_models import FRAME

HERE = Path(__file__).parent / "peers"
OURS, TRITON, BARE, MLSERVER, LITSERVE = "matchcut", "triton", "bare", "mlserver", "litserve"
PACKAGES = {TRITON: "nvidia-pytriton", MLSERVER: "mlserver", LITSERVE: "litserve"}
FOLDERS = {OURS: "ours", TRITON: "triton"}  # of the models of those that replace them on demand
START = 60.0  # seconds that a server may take to start


class Missing(Exception):
    """A peer is not there; the message says what to do."""


@dataclass(slots=True)
class Server:
    """One that runs. address: HOST:PORT. log: what it says on its standard error."""

    name: str
    address: str
    process: subprocess.Popen[str]
    version: str
    log: Path

    def cpu(self) -> float:
        """CPU seconds that it and its children have used."""
        return sum(common.cpu_seconds(pid) for pid in family(self.process.pid))

    def state(self) -> str:
        """Whether it still runs, and the end of its log, for the message of an error."""
        code = self.process.poll()
        lines = self.log.read_text(errors="replace").splitlines()[-5:]
        return "\n".join([f"it {'runs' if code is None else f'has ended with {code}'}; its log:", *lines])


def family(pid: int) -> list[int]:
    """A process and all below it."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            after = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(after[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


def free_port() -> int:
    """One that nobody listens at."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
    return port


class Starter:
    """Starts servers on the given cores; the stack ends them.

    Args:
        peers: the folder of environments.
        models: what serving_models.build() made.
    """

    def __init__(self, stack: ExitStack, peers: Path, models: Path, cores: Sequence[int]) -> None:
        self._stack = stack
        self._peers = peers
        self._models = models
        self._cores = cores

    def ours(self, *flags: str, models: bool = True, name: str = OURS) -> Server:
        """A matchcut server with the light encoder, unless flags say something else."""
        data = self._models / f"data-{free_port()}"
        given = ["--data", str(data), "--cache", str(common.CACHE), "--threads", "1", "--model-control", "explicit"]
        given += ["--models", str(self._models / "ours")] if models else []
        if "--encoder" not in flags:
            given += ["--encoder", str(self._models / "light" / "encoder.onnx"), "--engine", "onnxruntime"]
        command = [sys.executable, "-m", "matchcut.server", "serve", "--listen", "127.0.0.1:0", *given, *flags]
        process, log = self._run(command, {}, quiet=False)
        return Server(name, told(process, command), process, metadata.version("matchcut"), log)

    def bare(self) -> Server:
        """See peers/bare.py."""
        command = [sys.executable, str(HERE / "bare.py"), str(self._models / "ours")]
        process, log = self._run(command, {}, quiet=False)
        return Server(BARE, told(process, command), process, f"grpcio {metadata.version('grpcio')}", log)

    async def triton(self) -> Server:
        """NVIDIA Triton's own program out of PyTriton's wheel, with the Python backend and without PyTriton."""
        packages, version = self._installed(TRITON)
        home = packages / "pytriton" / "tritonserver"
        port = free_port()
        backends = self._models / f"backends-{port}"
        shutil.copytree(home / "backends", backends)
        stub = home / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
        shutil.copy(stub, backends / "python")
        flags = {
            "model-repository": self._models / "triton",
            "backend-directory": backends,
            "cache-directory": home / "caches",
            "model-control-mode": "explicit",
            "load-model": "*",
            "grpc-address": "127.0.0.1",
            "grpc-port": port,
            "allow-http": "false",
            "allow-metrics": "false",
        }
        command = [str(home / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in flags.items())]
        libraries = packages / "nvidia_pytriton.libs"
        process, log = self._run(command, {"LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(packages)})
        server = Server(TRITON, f"127.0.0.1:{port}", process, f"2.51 ({version})", log)
        return await answering(server)

    async def mlserver(self) -> Server:
        """MLServer in one process."""
        packages, version = self._installed(MLSERVER)
        ports = {f"{kind}_port": free_port() for kind in ("http", "grpc", "metrics")}
        settings = {"debug": False, "host": "127.0.0.1", "parallel_workers": 0, "grpc_max_message_length": 1 << 30}
        folder = self._models / "mlserver"
        (folder / "settings.json").write_text(json.dumps({**settings, **ports}))
        command = [str(packages.parents[2] / "bin" / "mlserver"), "start", str(folder)]
        process, log = self._run(command, {})
        return await answering(Server(MLSERVER, f"127.0.0.1:{ports['grpc_port']}", process, version, log))

    async def litserve(self) -> Server:
        """LitServe with one worker."""
        packages, version = self._installed(LITSERVE)
        port = free_port()
        model = self._models / "ours" / FRAME / "1" / "model.onnx"
        command = [str(packages.parents[2] / "bin" / "python"), str(HERE / "litserve_app.py"), str(model), str(port)]
        process, log = self._run(command, {})
        until = time.monotonic() + START
        while time.monotonic() < until and process.poll() is None:
            with socket.socket() as tried:
                if not tried.connect_ex(("127.0.0.1", port)):
                    return Server(LITSERVE, f"127.0.0.1:{port}", process, version, log)
            await asyncio.sleep(0.1)
        raise Missing(f"{LITSERVE} does not start: {' '.join(command)}")

    def _installed(self, peer: str) -> tuple[Path, str]:
        """A peer's site-packages and its version."""
        found = sorted(self._peers.glob(f"{peer}/lib/python*/site-packages"))
        name = PACKAGES[peer].replace("-", "_")
        told = sorted(found[0].glob(f"{name}-*.dist-info")) if found else []
        if not told:
            raise Missing(
                f"{PACKAGES[peer]} is not in {self._peers / peer}; tests/bench/README.md says how to put it there"
            )
        return found[0], told[0].name.removesuffix(".dist-info").partition("-")[2]

    def _run(
        self, command: Sequence[str], environment: Mapping[str, str], *, quiet: bool = True
    ) -> tuple[subprocess.Popen[str], Path]:
        """The process and its log."""
        path = self._models / f"{Path(command[0]).name}-{free_port()}.log"
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self._cores)
        try:
            with path.open("w") as log:
                process = subprocess.Popen(
                    command,
                    stdout=log if quiet else subprocess.PIPE,
                    stderr=log,
                    env={**os.environ, **environment},
                    text=True,
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, own)
        self._stack.callback(ended, process)
        return process, path


def told(process: subprocess.Popen[str], command: Sequence[str]) -> str:
    """The address that a server prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if common.SERVING in line:
            return line.partition(common.SERVING)[2].split()[0]
    raise SystemExit(f"it does not start: {' '.join(command)}")


async def answering(server: Server) -> Server:
    """The same server, once it says that it is ready."""
    until = time.monotonic() + START
    async with grpc.aio.insecure_channel(server.address) as channel:
        while time.monotonic() < until and server.process.poll() is None:
            try:
                ready: bytes = await channel.unary_unary(SERVICE + "ServerReady")(b"", timeout=1)
            except grpc.aio.AioRpcError:
                ready = b""
            if ready:
                return server
            await asyncio.sleep(0.1)
    raise Missing(f"{server.name} does not start: {server.process.args!r}")


def ended(process: subprocess.Popen[str]) -> None:
    """Ends a server and what it started."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(10)
    with suppress(ProcessLookupError):  # it did not end, or left what it had started behind
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
