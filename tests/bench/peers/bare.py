"""The floor: what a server in Python with grpc.aio costs that does nothing but its work. `bare.py MODELS`

It parses a request, runs the graph right on the event loop with one thread, and answers: no checks, no limits, no
deadlines, no other model. Unary calls and streams of models "frame" and "step".
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np
import onnxruntime

from matchcut.inference import grpc_service_pb2 as pb

SERVICE = "inference.GRPCInferenceService"
UNBOUNDED = [("grpc.max_receive_message_length", -1)]


def loaded(path: Path) -> Any:
    """A session with one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answered(sessions: dict[str, Any], request: pb.ModelInferRequest, states: dict[str, Any]) -> pb.ModelInferResponse:
    """The answer to one request."""
    given, name = request.inputs[0], request.model_name
    feed = {given.name: np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(given.shape))}
    if name == "step":
        feed["h"] = states.get("h", np.zeros_like(feed[given.name]))
    result, *after = sessions[name].run(None, feed)
    if after:
        states["h"] = after[0]
    answer = pb.ModelInferResponse(model_name=name, id=request.id)
    answer.outputs.add(name="y", datatype="FP32", shape=result.shape)
    answer.raw_output_contents.append(result.tobytes())
    return answer


async def main(models: Path) -> None:
    """Serves until it is killed."""
    sessions = {name: loaded(models / name / "1" / "model.onnx") for name in ("frame", "step")}

    async def unary(request: pb.ModelInferRequest, _: Any) -> pb.ModelInferResponse:
        return answered(sessions, request, {})

    async def stream(requests: AsyncIterator[pb.ModelInferRequest], _: Any) -> AsyncIterator[Any]:
        states: dict[str, Any] = {}
        async for request in requests:
            yield pb.ModelStreamInferResponse(infer_response=answered(sessions, request, states))

    read, write = pb.ModelInferRequest.FromString, lambda message: message.SerializeToString()
    handlers = {
        "ModelInfer": grpc.unary_unary_rpc_method_handler(unary, read, write),
        "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(stream, read, write),
    }
    server = grpc.aio.server(options=UNBOUNDED)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"serving on 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
