"""What callers of tritonclient do, as functions of plain data. Only for a process of its own: see apart.py."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException
from tritonclient.utils import shared_memory as shm

Array = NDArray[Any]
Inputs = Sequence[tuple[str, str, Array]]  # name, type, elements
Outcome = dict[str, Any]
PATIENCE = 60


def failure(error: InferenceServerException) -> Outcome:
    """A failed call's status and message."""
    return {"status": (error.status() or "").removeprefix("StatusCode."), "message": error.message()}


def made(module: Any, inputs: Inputs) -> list[Any]:
    """Inputs as the client has them."""
    tensors = []
    for name, dtype, elements in inputs:
        tensor = module.InferInput(name, list(elements.shape), dtype)
        tensor.set_data_from_numpy(elements.astype(ml_dtypes.bfloat16) if dtype == "BF16" else elements)
        tensors.append(tensor)
    return tensors


def asked(module: Any, outputs: Sequence[tuple[str, int]] | None) -> list[Any] | None:
    """Outputs that are asked for, each with so many classes where not 0."""
    return (
        None if outputs is None else [module.InferRequestedOutput(name, class_count=count) for name, count in outputs]
    )


def found(result: Any) -> Outcome:
    """An answer."""
    response = result.get_response()
    return {
        "id": response.id,
        "model": (response.model_name, response.model_version),
        "final": response.parameters["triton_final_response"].bool_param
        if "triton_final_response" in response.parameters
        else None,
        "outputs": {output.name: plain(result.as_numpy(output.name)) for output in response.outputs},
    }


def plain(elements: Array) -> Array:
    """The same, without the types of a package that the other side need not have."""
    return elements.astype(np.float32) if elements.dtype == ml_dtypes.bfloat16 else elements


def descriptions(address: str, model: str) -> Outcome:
    """All that can be asked about the server and a model."""
    with triton.InferenceServerClient(address) as client:
        return {
            "live": client.is_server_live(),
            "ready": client.is_server_ready(),
            "server": client.get_server_metadata(as_json=True),
            "model_ready": client.is_model_ready(model),
            "nothing_ready": client.is_model_ready("nothing"),
            "model": client.get_model_metadata(model, as_json=True),
            "config": client.get_model_config(model, as_json=True)["config"],
            "statistics": client.get_inference_statistics(model, as_json=True)["model_stats"],
            "all_statistics": client.get_inference_statistics(as_json=True)["model_stats"],
            "index": client.get_model_repository_index(as_json=True)["models"],
        }


def call(address: str, method: str, *arguments: Any, **options: Any) -> Any:
    """One method of the client; its result as JSON where it is a message."""
    with triton.InferenceServerClient(address) as client:
        try:
            result = getattr(client, method)(*arguments, **options)
        except InferenceServerException as error:
            return failure(error)
    return result


def infer(
    address: str, model: str, inputs: Inputs, outputs: Sequence[tuple[str, int]] | None = None, **options: Any
) -> Outcome:
    """One request."""
    with triton.InferenceServerClient(address) as client:
        try:
            return found(client.infer(model, made(triton, inputs), outputs=asked(triton, outputs), **options))
        except InferenceServerException as error:
            return failure(error)


def infer_each(address: str, requests: Sequence[tuple[str, Inputs, dict[str, Any]]]) -> list[Outcome]:
    """Requests one after the other on one connection."""
    outcomes = []
    with triton.InferenceServerClient(address) as client:
        for model, inputs, options in requests:
            try:
                outcomes.append(found(client.infer(model, made(triton, inputs), **options)))
            except InferenceServerException as error:
                outcomes.append(failure(error))
    return outcomes


def infer_at_once(address: str, model: str, requests: Sequence[Inputs]) -> list[Outcome]:
    """Requests all at once, by the client's callbacks, in the order in which they were sent."""
    answers: queue.Queue[tuple[int, Outcome]] = queue.Queue()

    def take(at: int, result: Any, error: InferenceServerException | None) -> None:
        answers.put((at, failure(error) if error is not None else found(result)))

    with triton.InferenceServerClient(address) as client:
        for at, inputs in enumerate(requests):
            client.async_infer(model, made(triton, inputs), callback=partial(take, at))
        came = dict(answers.get(timeout=PATIENCE) for _ in requests)
    return [came[at] for at in range(len(requests))]


def infer_aio(address: str, model: str, requests: Sequence[Inputs]) -> list[Outcome]:
    """Requests all at once, by the client for asyncio."""

    async def run() -> list[Outcome]:
        async with triton_aio.InferenceServerClient(address) as client:
            calls = (client.infer(model, made(triton_aio, inputs)) for inputs in requests)
            results = await asyncio.gather(*calls, return_exceptions=True)
        return [failure(one) if isinstance(one, InferenceServerException) else found(one) for one in results]

    return asyncio.run(run())


def stream(
    address: str,
    requests: Sequence[tuple[str, Inputs, dict[str, Any]]],
    *,
    headers: dict[str, str] | None = None,
    final: bool = False,
) -> list[Outcome]:
    """Requests on one stream; as many outcomes as requests, or up to the error that ends the stream."""
    answers: queue.Queue[Outcome] = queue.Queue()

    def take(result: Any, error: InferenceServerException | None) -> None:
        answers.put(failure(error) if error is not None else found(result))

    outcomes = []
    with triton.InferenceServerClient(address) as client:
        client.start_stream(take, headers=headers)
        for model, inputs, options in requests:
            try:
                client.async_stream_infer(model, made(triton, inputs), enable_empty_final_response=final, **options)
            except InferenceServerException:  # the stream has been ended by an error, which take() was told
                break
        for _ in requests:
            outcomes.append(answers.get(timeout=PATIENCE))
            if outcomes[-1].get("status"):
                break
        client.stop_stream()
    return outcomes


def stream_aio(address: str, requests: Sequence[tuple[str, Inputs, dict[str, Any]]]) -> list[Outcome]:
    """The same by the client for asyncio."""

    async def messages() -> AsyncIterator[dict[str, Any]]:
        for model, inputs, options in requests:
            yield {"model_name": model, "inputs": made(triton_aio, inputs), **options}

    async def run() -> list[Outcome]:
        outcomes = []
        async with triton_aio.InferenceServerClient(address) as client:
            async for result, error in client.stream_infer(messages()):
                outcomes.append(failure(error) if error is not None else found(result))
        return outcomes

    return asyncio.run(run())


def storm(address: str, model: str, inputs: Inputs, *, threads: int, each: int) -> dict[str, int]:
    """Many requests by many threads, every second one cancelled right after it was sent; how they ended."""
    counts: dict[str, int] = {}
    lock = threading.Lock()

    def count(name: str) -> None:
        with lock:
            counts[name] = counts.get(name, 0) + 1

    def run() -> None:
        with triton.InferenceServerClient(address) as client:
            for at in range(each):
                ended = threading.Event()

                def take(result: Any, error: InferenceServerException | None, ended: threading.Event = ended) -> None:
                    count("answered" if error is None else failure(error)["status"] or failure(error)["message"])
                    ended.set()

                call = client.async_infer(model, made(triton, inputs), callback=take)
                if at % 2:
                    call.cancel()
                if not ended.wait(PATIENCE):
                    count("lost")

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return counts


def in_shared_memory(address: str, model: str, name: str, elements: Array, output: str) -> Outcome:
    """A request whose FP32 input and output lie in one region, the output behind the input."""
    size = elements.nbytes
    with triton.InferenceServerClient(address) as client:
        region = shm.create_shared_memory_region("frames", "/matchcut-test-frames", 2 * size)
        try:
            shm.set_shared_memory_region(region, [elements])
            client.register_system_shared_memory("frames", "/matchcut-test-frames", 2 * size)
            status = client.get_system_shared_memory_status(as_json=True)
            tensor = triton.InferInput(name, list(elements.shape), "FP32")
            tensor.set_shared_memory("frames", size)
            wanted = triton.InferRequestedOutput(output)
            wanted.set_shared_memory("frames", size, offset=size)
            result = client.infer(model, [tensor], outputs=[wanted])
            place = result.get_output(output).parameters
            computed = np.array(shm.get_contents_as_numpy(region, np.float32, elements.shape, offset=size))
            client.unregister_system_shared_memory("frames")
            after = client.get_system_shared_memory_status(as_json=True)
        finally:
            shm.destroy_shared_memory_region(region)
    region_told = place["shared_memory_region"].string_param, place["shared_memory_offset"].int64_param
    return {"status": status, "place": region_told, "computed": computed, "after": after}
