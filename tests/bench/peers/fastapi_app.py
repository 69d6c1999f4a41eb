"""The usual way to serve clips without matchcut: FastAPI around clips.py. `fastapi_app.py ENCODER.onnx FOLDER JSON`

PUT /items/NAME?rate=1 and POST /query?rate=2, each with the file as its body. The JSON has the fields of
clips.Settings and beside them `workers`, the processes, and `pool`, how many requests each works on at once. The
environment holds what clips.py needs, and fastapi and "uvicorn[standard]".
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any

import fastapi  # type: ignore[import-not-found]
import uvicorn  # type: ignore[import-not-found]
from anyio.to_thread import current_default_thread_limiter  # type: ignore[import-not-found, unused-ignore]
from clips import Glue, Settings  # type: ignore[import-not-found]
from fastapi.concurrency import run_in_threadpool  # type: ignore[import-not-found]


def application(glue: Glue) -> Any:
    """The two routes."""
    app = fastapi.FastAPI()

    async def put(name: str, rate: float, request: fastapi.Request) -> None:
        await run_in_threadpool(glue.add, name, await request.body(), rate)

    async def ask(rate: float, request: fastapi.Request) -> list[tuple[str, float]]:
        found: list[tuple[str, float]] = await run_in_threadpool(glue.ask, await request.body(), rate)
        return found

    app.add_api_route("/items/{name}", put, methods=["PUT"])
    app.add_api_route("/query", ask, methods=["POST"])
    return app


async def serve(listening: socket.socket, glue: Glue, pool: int, ready: int) -> None:
    """Serves until it is ended; a byte to `ready` says that it does."""
    current_default_thread_limiter().total_tokens = pool
    config = uvicorn.Config(application(glue), log_level="warning", timeout_keep_alive=600)
    os.write(ready, b".")
    os.close(ready)
    await uvicorn.Server(config).serve(sockets=[listening])


def main() -> None:
    """Starts the workers, says where they serve, and ends with them."""
    encoder, folder, given = sys.argv[1:]
    about = json.loads(given)
    workers, pool = about.pop("workers"), about.pop("pool")
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    is_ready, ready = os.pipe()
    children = []
    for _ in range(workers):
        child = os.fork()  # before anything has threads
        if not child:
            asyncio.run(serve(listening, Glue(encoder, folder, Settings(**about)), pool, ready))
            return
        children.append(child)
    os.close(ready)

    def end(*_: object) -> None:
        for child in children:
            os.kill(child, signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    if sum(len(os.read(is_ready, 1)) for _ in children) == workers:  # less where a worker has failed
        print(f"glue: serving on 127.0.0.1:{listening.getsockname()[1]}", flush=True)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
