"""For tests of runs on the event loop: where runs were made, requests for small models, and what they answer."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.inference import grpc_service_pb2_grpc
from matchcut.server.engines.graphs import GraphEngine
from support.onnx_models import model, node

Stub = grpc_service_pb2_grpc.GRPCInferenceServiceStub
PAUSED = 66.0  # what is sent to have a run wait until it may go on


class Runs:
    """Where runs of the models' engines were made: on the event loop or not, in order. Some wait until they may go on.

    free: cleared, runs of PAUSED wait in their thread. paused: that one waits.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.on_loop: list[bool] = []
        self.free, self.paused = threading.Event(), threading.Event()
        self.free.set()
        loop, honest = threading.get_ident(), GraphEngine.run

        def run(engine: GraphEngine, inputs: Any) -> Any:
            self.on_loop.append(threading.get_ident() == loop)
            if inputs.get("x") is not None and np.any(inputs["x"] == PAUSED) and not self.free.is_set():
                assert not self.on_loop[-1], "the event loop would stand still"
                self.paused.set()
                assert self.free.wait(60)
            return honest(engine, inputs)

        monkeypatch.setattr(GraphEngine, "run", run)

    def taken(self) -> list[bool]:
        """Those since it was asked last."""
        found = self.on_loop[:]
        self.on_loop.clear()
        return found


def repeated() -> Any:
    """Of fixed sizes, but it expands x as often as a number says."""
    nodes = [
        node("Expand", ["x", "times"], ["large"]),
        node("ReduceSum", ["large"], ["y"], keepdims=0),
    ]
    return model(nodes, {"x": ("FP32", (1,)), "times": ("INT64", (1,))}, {"y": ("FP32", ())})


def request(name: str, value: Any = 1.0, *, rows: int = 1, width: int = 3, sequence: int = 0) -> pb.ModelInferRequest:
    """Rows of a number; `sequence`: of which it is a step."""
    made = pb.ModelInferRequest(model_name=name, id=f"{value}")
    made.inputs.add(name="x", datatype="FP32", shape=[rows, width])
    made.raw_input_contents.append(np.full((rows, width), value, np.float32).tobytes())
    if sequence:
        made.parameters["sequence_id"].int64_param = sequence
    return made


def step(value: float, *, sequence: int = 1, start: bool = False) -> pb.ModelInferRequest:
    made = request("sum", value, width=2, sequence=sequence)
    made.parameters["sequence_start"].bool_param = start
    return made


def first(response: pb.ModelInferResponse) -> float:
    return float(np.frombuffer(response.raw_output_contents[0], np.float32)[0])


async def code_of(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return str(caught.value.code().name)


async def answers(stub: Stub) -> None:
    """Checks that the event loop is not held up."""
    assert (await asyncio.wait_for(stub.ServerLive(pb.ServerLiveRequest()), 30)).live


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, 30)
