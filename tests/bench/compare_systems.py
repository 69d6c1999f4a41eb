"""What compare.py compares: matchcut, the bare loop inside it, glue behind FastAPI, a pipeline in NVIDIA Triton.

Each is started on the servers' core with the default encoder and answers clips with names, best first. The peers'
environments are made as tests/bench/README.md says; one that is not there is reported.
"""

from __future__ import annotations

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import grpc
import numpy as np
from serving_load import OPTIONS, SERVICE
from serving_peers import HERE, Missing, Server, Starter, family

from matchcut.client import Client, Ranking
from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.config import Config

INGEST_RATE, QUERY_RATE = Config().rate, Config().query_rate
CALLERS = 16  # that a matchcut server lets in at once here
Ask = Callable[[str], Sequence[str]]
Settings = dict[str, Any]


class System(ABC):
    """One of the compared. version: of what it is made; settings: what was chosen for it; callers: most at once."""

    def __init__(self, name: str, pid: int, version: str, settings: str, callers: int = CALLERS) -> None:
        self.name, self.version, self.settings, self.callers = name, version, settings, callers
        self._pid = pid

    @abstractmethod
    def add(self, clip: str) -> None:
        """Puts a clip in under its own name."""

    @abstractmethod
    def caller(self) -> AbstractContextManager[Ask]:
        """A caller with a connection of its own: a clip's name to the names of the best items."""

    def cpu(self) -> float:
        """CPU seconds that its processes have used."""
        return sum(common.cpu_seconds(pid) for pid in family(self._pid))

    def peak_mib(self) -> float:
        """The most memory that its processes have held, each counted for itself."""
        return sum(common.peak_mib(pid) for pid in family(self._pid))


@dataclass(frozen=True, slots=True)
class Step:
    """A setting of matchcut. server: flags. tolerance: of queries, in seconds. encoder: its file, else the default."""

    name: str
    server: Settings
    tolerance: float = 0.0
    encoder: Path | None = None

    def told(self) -> str:
        """For the results."""
        encoder = {"encoder": self.encoder.parent.name} if self.encoder else {}
        return json.dumps({**self.server, "tolerance": self.tolerance, **encoder})


class Matchcut(System):
    """A matchcut server and its Python client."""

    def __init__(self, starter: Starter, encoder: Path, step: Step) -> None:
        flags = {"encoder": step.encoder or encoder, "max-media-requests": CALLERS, **step.server}
        words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
        server = starter.ours(*words, models=False, name=step.name)
        super().__init__(step.name, server.process.pid, server.version, step.told())
        self.address, self.tolerance = server.address, step.tolerance
        self.last: Ranking | None = None

    def add(self, clip: str) -> None:
        """See System."""
        with Client(self.address) as client:
            client.ingest(clip, common.clip(clip), rate=INGEST_RATE)

    @contextmanager
    def caller(self) -> Iterator[Ask]:
        """See System."""
        with Client(self.address) as client:

            def ask(clip: str) -> Sequence[str]:
                self.last = client.recommend(clip=common.clip(clip), rate=QUERY_RATE, tolerance=self.tolerance)
                return [match.item.id for match in self.last.matches]

            yield ask


class Bare(System):
    """bare.py, over its standard input and output."""

    def __init__(self, stack: ExitStack, core: int, encoder: Path, name: str, engine: str, still: float) -> None:
        words = [Path(__file__).with_name("bare.py"), encoder, engine, common.CACHE, Config().batch, still]
        self._process = stack.enter_context(piped([sys.executable, *map(str, words)], core))
        about = json.dumps({"engine": engine, "still": still})
        super().__init__(name, self._process.pid, common.versions("av", "onnxruntime", "openvino"), about, callers=1)

    def add(self, clip: str) -> None:
        """See System."""
        self._tell({"add": clip, "path": str(common.clip(clip)), "rate": INGEST_RATE})

    @contextmanager
    def caller(self) -> Iterator[Ask]:
        """See System."""
        yield lambda clip: self._tell({"path": str(common.clip(clip)), "rate": QUERY_RATE})

    def _tell(self, wish: Settings) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(wish) + "\n")
        self._process.stdin.flush()
        answer: list[str] = json.loads(self._process.stdout.readline())
        return answer


class Glue(System):
    """peers/fastapi_app.py, over HTTP on connections that are kept."""

    def __init__(self, stack: ExitStack, peers: Path, core: int, encoder: Path, name: str, settings: Settings) -> None:
        python = environment(peers, "glue")
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="glue-"))
        command = [str(python), str(HERE / "fastapi_app.py"), str(encoder), folder, json.dumps(settings)]
        pid, self._address = stack.enter_context(common.started(command, core))
        super().__init__(name, pid, installed(python, *PACKAGES[name]), json.dumps(settings))

    def add(self, clip: str) -> None:
        """See System."""
        with self._connected() as send:
            send("PUT", f"/items/{clip}?rate={INGEST_RATE}", clip)

    @contextmanager
    def caller(self) -> Iterator[Ask]:
        """See System."""
        with self._connected() as send:
            yield lambda clip: [name for name, _ in send("POST", f"/query?rate={QUERY_RATE}", clip)]

    @contextmanager
    def _connected(self) -> Iterator[Callable[[str, str, str], Any]]:
        connection = http.client.HTTPConnection(self._address)

        def send(method: str, where: str, clip: str) -> Any:
            connection.request(method, where, common.clip(clip).read_bytes())
            response = connection.getresponse()
            answer = response.read()
            if response.status != http.client.OK:
                raise SystemExit(f"{self.name}: {response.status} {answer.decode()}")
            return json.loads(answer)

        try:
            yield send
        finally:
            connection.close()


class Triton(System):
    """NVIDIA Triton with peers/triton_clips.py; its answers are read, not parsed further than to the names."""

    def __init__(self, server: Server, version: str, settings: Settings) -> None:
        super().__init__(server.name, server.process.pid, f"{server.version} {version}", json.dumps(settings))
        self._address = server.address

    @staticmethod
    async def started(starter: Starter, peers: Path, folder: Path, encoder: Path, settings: Settings) -> Triton:
        """folder: where the starter looks for models."""
        python = environment(peers, "triton")
        repository(folder, encoder, settings)
        return Triton(await starter.triton(), installed(python, *PACKAGES["triton"]), settings)

    def add(self, clip: str) -> None:
        """See System."""
        with self._connected() as send:
            send(INGEST_RATE, clip, clip)

    @contextmanager
    def caller(self) -> Iterator[Ask]:
        """See System."""
        with self._connected() as send:
            yield lambda clip: names(send(QUERY_RATE, clip, ""))

    @contextmanager
    def _connected(self) -> Iterator[Callable[[float, str, str], bytes]]:
        with grpc.insecure_channel(self._address, options=OPTIONS) as channel:
            call = channel.unary_unary(SERVICE + "ModelInfer")
            yield lambda rate, clip, name: call(infer(rate, common.clip(clip).read_bytes(), name))


PACKAGES = {
    "glue opencv+ort": ("fastapi", "uvicorn", "opencv-python-headless", "onnxruntime", "faiss-cpu"),
    "glue decord+ort": ("fastapi", "uvicorn", "decord", "onnxruntime", "faiss-cpu"),
    "glue opencv+torch": ("fastapi", "uvicorn", "opencv-python-headless", "torch", "faiss-cpu"),
    "triton": ("nvidia-pytriton", "opencv-python-headless", "decord", "onnxruntime", "faiss-cpu"),
}


@contextmanager
def piped(command: Sequence[str], core: int) -> Iterator[subprocess.Popen[str]]:
    """A process on one core that is spoken to through pipes, once it says that it is ready."""
    with common.on_core(core):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        if common.SERVING not in process.stdout.readline():
            raise SystemExit(f"it does not start: {' '.join(command)}")
        yield process


def environment(peers: Path, name: str) -> Path:
    """The interpreter of a peer's environment. Raises Missing where it is not there."""
    python = peers / name / "bin" / "python"
    if not python.exists():
        raise Missing(f"{python} is not there; tests/bench/README.md says how to make the environment")
    return python


def installed(python: Path, *packages: str) -> str:
    """Versions of packages in an environment, for the results. Raises Missing where one is not there."""
    there = {}
    for each in python.parents[1].glob("lib/python*/site-packages/*.dist-info"):
        name, _, version = each.name.removesuffix(".dist-info").partition("-")
        there[name.lower().replace("_", "-")] = version
    if lacking := [name for name in packages if name not in there]:
        raise Missing(f"{python.parents[1]} lacks {' '.join(lacking)}; tests/bench/README.md says how to make it")
    return " ".join(f"{name}={there[name]}" for name in packages)


def repository(folder: Path, encoder: Path, settings: Settings) -> None:
    """The folder `triton` with the model "clips" and the folder `items` for its vectors, both anew."""
    about = {name: value for name, value in settings.items() if name != "instances"}
    model, items = folder / "triton" / "clips", folder / "items"
    for each in (model, items):
        shutil.rmtree(each, ignore_errors=True)
    items.mkdir()
    (model / "1").mkdir(parents=True)
    shutil.copy(HERE / "triton_clips.py", model / "1" / "model.py")
    for name in ("clips.py", "torch_net.py"):
        shutil.copy(HERE / name, model / "1" / name)
    inputs = '{ name: "clip" data_type: TYPE_STRING dims: [ 1 ] }, { name: "rate" data_type: TYPE_FP32 dims: [ 1 ] }'
    given = {"encoder": str(encoder), "folder": str(items), "settings": json.dumps(about)}
    lines = [
        'backend: "python"',
        f'input [ {inputs}, {{ name: "name" data_type: TYPE_STRING dims: [ 1 ] optional: true }} ]',
        'output [ { name: "names" data_type: TYPE_STRING dims: [ -1 ] } ]',
        f"instance_group [ {{ kind: KIND_CPU count: {settings['instances']} }} ]",
        *(f'parameters {{ key: "{k}" value {{ string_value: {json.dumps(v)} }} }}' for k, v in given.items()),
    ]
    (model / "config.pbtxt").write_text("\n".join(lines) + "\n")


def infer(rate: float, clip: bytes, name: str) -> bytes:
    """A request to the model; with a name the clip is put in."""
    request = pb.ModelInferRequest(model_name="clips")
    for given, kind, value in (("clip", "BYTES", text(clip)), ("rate", "FP32", np.float32(rate).tobytes())):
        request.inputs.add(name=given, datatype=kind, shape=[1])
        request.raw_input_contents.append(value)
    if name:
        request.inputs.add(name="name", datatype="BYTES", shape=[1])
        request.raw_input_contents.append(text(name.encode()))
    return request.SerializeToString()


def text(value: bytes) -> bytes:
    """As the protocol writes an element of BYTES."""
    return len(value).to_bytes(4, "little") + value


def names(answer: bytes) -> list[str]:
    """What the model answered."""
    raw, found, at = pb.ModelInferResponse.FromString(answer).raw_output_contents[0], [], 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "little")
        found.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    return found
