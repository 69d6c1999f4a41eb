"""The usual way to serve this without matchcut: decord, ONNX Runtime and FAISS behind FastAPI. For serve.py.

    python tests/bench/glue.py ENCODER.onnx

Runs in an environment of its own: pip install decord fastapi "uvicorn[standard]" faiss-cpu onnxruntime numpy.
Each part in the setting that is best for it on one core: decord decodes and scales only what is asked for, in one
thread; the batch size is what is fastest here; FAISS compares with every vector. An item is one vector.
"""

from __future__ import annotations

import asyncio
import io
import math
import socket
import sys
import time
from typing import Any

import decord  # type: ignore[import-not-found]
import faiss
import fastapi  # type: ignore[import-not-found]
import numpy as np
import onnxruntime
import uvicorn  # type: ignore[import-not-found]
from fastapi.concurrency import run_in_threadpool  # type: ignore[import-not-found]
from numpy.typing import NDArray

SIDE = 224
DIMENSIONS = 1280
BATCHES = (1, 4, 8, 16, 32)
MOST = 10


class Glue:
    """An encoder and an index."""

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._input, self._output = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        self._index = faiss.IndexFlatIP(DIMENSIONS)
        self._names: list[str] = []
        self.batch = min(BATCHES, key=self._cost)

    def add(self, name: str, data: bytes, rate: float) -> None:
        """Puts an item in."""
        self._index.add(self._vector(data, rate)[None])
        self._names.append(name)

    def ask(self, data: bytes, rate: float) -> list[tuple[str, float]]:
        """The best items with their scores."""
        scores, rows = self._index.search(self._vector(data, rate)[None], min(MOST, len(self._names)))
        return [(self._names[row], float(score)) for row, score in zip(rows[0], scores[0], strict=True)]

    def _vector(self, data: bytes, rate: float) -> NDArray[np.float32]:
        reader = decord.VideoReader(io.BytesIO(data), decord.cpu(0), width=SIDE, height=SIDE, num_threads=1)
        step = max(1.0, reader.get_avg_fps() / rate)
        wanted = [math.ceil(at * step - 1e-6) for at in range(math.ceil(len(reader) / step))]
        frames = reader.get_batch([at for at in wanted if at < len(reader)]).asnumpy()
        parts = [self._embed(frames[at : at + self.batch]) for at in range(0, len(frames), self.batch)]
        mean: NDArray[np.float32] = np.concatenate(parts).mean(axis=0)
        return mean / np.float32(np.linalg.norm(mean))

    def _embed(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = (frames.astype(np.float32) - np.float32(127)) * np.float32(1 / 128)
        batch = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
        result: NDArray[np.float32] = self._session.run([self._output], {self._input: batch})[0]
        return result

    def _cost(self, batch: int) -> float:
        """CPU seconds a frame, the best of a few runs."""
        frames = np.random.default_rng(0).integers(0, 256, (batch, SIDE, SIDE, 3), dtype=np.uint8)
        spent = []
        for _ in range(4):
            began = time.process_time()
            self._embed(frames)
            spent.append(time.process_time() - began)
        return min(spent) / batch


def application(glue: Glue) -> Any:
    """PUT /items/NAME?rate=1 and POST /query?rate=2, each with the file as its body."""
    app = fastapi.FastAPI()

    async def put(name: str, rate: float, request: fastapi.Request) -> None:
        await run_in_threadpool(glue.add, name, await request.body(), rate)

    async def ask(rate: float, request: fastapi.Request) -> dict[str, object]:
        return {"batch": glue.batch, "matches": await run_in_threadpool(glue.ask, await request.body(), rate)}

    app.add_api_route("/items/{name}", put, methods=["PUT"])
    app.add_api_route("/query", ask, methods=["POST"])
    return app


def main() -> None:
    """Serves until it is ended."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(Glue(sys.argv[1])), log_level="warning", timeout_keep_alive=600))
    print(f"glue: serving on 127.0.0.1:{listening.getsockname()[1]}", flush=True)
    asyncio.run(server.serve(sockets=[listening]))


if __name__ == "__main__":
    main()
