"""Streams: what is freed when a caller is lost, what runs at once, and storms of cancelled calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from matchcut.inference import grpc_service_pb2 as pb
from support.apart import Apart
from support.fake_models import FakeModel


def step(value: float, sequence: int, *, start: bool = False, end: bool = False) -> pb.ModelInferRequest:
    """A step of the model that sums."""
    request = pb.ModelInferRequest(model_name="total", id=f"{sequence}:{value:g}")
    request.inputs.add(name="value", datatype="FP32", shape=(1, 1))
    request.raw_input_contents.append(np.float32(value).tobytes())
    request.parameters["sequence_id"].int64_param = sequence
    request.parameters["sequence_start"].bool_param = start
    request.parameters["sequence_end"].bool_param = end
    return request


def plain(number: int) -> pb.ModelInferRequest:
    """A request to a model without state."""
    request = pb.ModelInferRequest(model_name="double", id=f"{number}")
    request.inputs.add(name="x", datatype="FP32", shape=(1, 4))
    request.raw_input_contents.append(np.full(4, number, np.float32).tobytes())
    return request


async def until(condition: Callable[[], bool]) -> float:
    """Seconds until something is so."""
    began = time.perf_counter()
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)
    return time.perf_counter() - began


async def entered(model: FakeModel, count: int = 1) -> None:
    """Waits until requests are in the model."""
    for _ in range(count):
        assert await asyncio.to_thread(model.entered.acquire, timeout=30)


@pytest.mark.alone
async def test_a_lost_stream_frees_its_states_at_once(served: Any) -> None:
    model = served.models["total"]
    taken = []
    for number in range(1, 6):
        call = served.stub.ModelStreamInfer()
        for sequence in (1, 2):
            await call.write(step(1, sequence, start=True))
            assert not (await call.read()).error_message
        assert len(model.states) == 2
        call.cancel()
        taken.append(await until(lambda: not model.states))
        assert len(model.left) == number
    assert min(taken) < 0.05, "the best of five, since others use the machine, too"


async def test_a_broken_connection_frees_its_states(served: Any) -> None:
    model = served.models["total"]
    async with grpc.aio.insecure_channel(served.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = type(served.stub)(channel)
        call = stub.ModelStreamInfer()
        await call.write(step(1, 5, start=True))
        await call.read()
        assert model.states
    await until(lambda: not model.states)


async def test_a_stream_that_ends_frees_its_states(served: Any) -> None:
    model = served.models["total"]
    call = served.stub.ModelStreamInfer()
    await call.write(step(1, 1, start=True))
    await call.read()
    await call.done_writing()
    assert await call.read() is grpc.aio.EOF
    assert not model.states


async def test_a_state_made_after_the_stream_was_lost_does_not_stay(served: Any) -> None:
    model = served.models["total"]
    finish = asyncio.Event()
    loop = asyncio.get_running_loop()
    computed = model._computed

    def slowly(*arguments: Any) -> Any:
        asyncio.run_coroutine_threadsafe(finish.wait(), loop).result(30)
        return computed(*arguments)

    model._computed = slowly
    call = served.stub.ModelStreamInfer()
    await call.write(step(1, 1, start=True))
    await entered(model)
    call.cancel()
    await until(lambda: len(model.left) == 1)
    finish.set()  # the run, which nobody could stop, makes its state only now
    await until(lambda: len(model.left) == 2)
    assert not model.states
    assert model.runs == 1


async def test_a_lost_stream_s_requests_are_not_run(served: Any) -> None:
    model = served.models["double"]
    model.blocked.clear()
    call = served.stub.ModelStreamInfer()
    for number in range(4):
        await call.write(plain(number))
    await entered(model, 4)
    call.cancel()
    failures = model.statistics
    await until(lambda: failures().failure.count == 4)
    model.blocked.set()
    await served.stub.ModelInfer(plain(9))
    assert model.runs == 1


async def test_sequences_of_two_streams_never_meet(served: Any) -> None:
    one, two = served.stub.ModelStreamInfer(), served.stub.ModelStreamInfer()
    await one.write(step(5, 1, start=True))
    await one.read()
    await two.write(step(1, 1))
    assert "START" in (await two.read()).error_message
    await two.write(step(1, 1, start=True))
    await two.read()
    await one.write(step(1, 1))
    assert np.frombuffer((await one.read()).infer_response.raw_output_contents[0], np.float32) == 6
    one.cancel()
    two.cancel()


async def test_a_slow_sequence_holds_up_only_itself(served: Any) -> None:
    total, double = served.models["total"], served.models["double"]
    total.blocked.clear()
    call = served.stub.ModelStreamInfer()
    for request in (step(1, 1, start=True), step(2, 1), plain(3)):
        await call.write(request)
    assert (await call.read()).infer_response.id == "3"
    assert double.runs == 1
    assert total.runs == 0
    total.blocked.set()
    assert [(await call.read()).infer_response.id for _ in range(2)] == ["1:1", "1:2"]
    await call.done_writing()


async def test_a_failed_step_does_not_stop_its_sequence(served: Any) -> None:
    call = served.stub.ModelStreamInfer()
    wrong = step(1, 1)
    wrong.raw_input_contents[0] = b""
    for request in (step(1, 1, start=True), wrong, step(2, 1, end=True)):
        await call.write(request)
    await call.done_writing()
    replies = [reply async for reply in call]
    assert [bool(reply.error_message) for reply in replies] == [False, True, False]
    assert replies[1].infer_response.id == "1:1"
    assert replies[1].infer_response.model_name == "total"
    assert np.frombuffer(replies[2].infer_response.raw_output_contents[0], np.float32) == 3


async def test_no_more_requests_are_read_than_may_be_under_way(serving: Any) -> None:
    served = await serving(stream_requests=2)
    model = served.models["double"]
    model.blocked.clear()
    call = served.stub.ModelStreamInfer()
    for number in range(5):
        await call.write(plain(number))
    await entered(model, 2)
    assert not await asyncio.to_thread(model.entered.acquire, timeout=0.2)
    model.blocked.set()
    await call.done_writing()
    assert {reply.infer_response.id async for reply in call} == {"0", "1", "2", "3", "4"}


async def test_requests_beyond_the_places_are_refused_in_their_answers(serving: Any) -> None:
    served = await serving(stream_requests=4, max_requests=2)
    model = served.models["double"]
    model.blocked.clear()
    call = served.stub.ModelStreamInfer()
    for number in range(4):
        await call.write(plain(number))
    refused = [await call.read(), await call.read()]
    assert all("--max-requests" in reply.error_message for reply in refused)
    model.blocked.set()
    await call.done_writing()
    assert not any([(await call.read()).error_message for _ in range(2)])
    assert await call.read() is grpc.aio.EOF


async def test_a_strict_stream_ends_with_the_status_of_an_error(served: Any) -> None:
    call = served.stub.ModelStreamInfer(metadata=(("triton_grpc_error", "true"),))
    await call.write(step(1, 1, start=True))
    await call.read()
    await call.write(pb.ModelInferRequest(model_name="nothing"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert not served.models["total"].states


async def test_what_nobody_foresaw_is_told_without_its_details(served: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a secret")

    served.models["double"]._computed = broken
    call = served.stub.ModelStreamInfer()
    await call.write(plain(1))
    reply = await call.read()
    assert reply.error_message == "an unexpected error in the server; its log says more"
    assert "a secret" in caplog.text
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ModelInfer(plain(1))
    assert caught.value.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in str(caught.value.details())
    await call.done_writing()


async def test_a_storm_of_cancelled_streams_leaves_nothing(served: Any) -> None:
    model = served.models["total"]

    async def one(number: int) -> None:
        call = served.stub.ModelStreamInfer()
        for at in range(3):
            await call.write(step(at, number + 1, start=not at))
        if number % 3:
            await call.read()
        if number % 2:
            call.cancel()
        else:
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass

    for _ in range(5):
        await asyncio.gather(*(one(number) for number in range(10)))
    await until(lambda: not model.states)
    again = served.stub.ModelStreamInfer()
    await again.write(step(1, 1, start=True))
    assert not (await again.read()).error_message
    await again.done_writing()


async def test_a_storm_of_cancelled_calls_is_survived(served: Any, triton: Apart) -> None:
    inputs = [("x", "FP32", np.ones((1, 4), np.float32))]
    counts = await triton.run("storm", served.address, "double", inputs, threads=6, each=30)
    assert sum(counts.values()) == 180
    assert counts.keys() <= {"answered", "CANCELLED", "Locally cancelled by application!"}
    assert counts["answered"] >= 90
    reply = await served.stub.ModelInfer(plain(4))
    assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [8] * 4


async def test_a_cancelled_call_is_not_run(served: Any) -> None:
    model = served.models["double"]
    model.blocked.clear()
    call = served.stub.ModelInfer(plain(1))
    await entered(model)
    call.cancel()
    await until(lambda: model.statistics().failure.count == 1)
    model.blocked.set()
    assert model.runs == 0


async def test_a_deadline_that_passes_before_the_run_costs_none(served: Any) -> None:
    model = served.models["double"]
    model.blocked.clear()

    async def late() -> AsyncIterator[str]:
        for _ in range(4):
            try:
                await served.stub.ModelInfer(plain(1), timeout=0.05)
            except grpc.aio.AioRpcError as error:
                yield error.code().name

    assert [name async for name in late()] == ["DEADLINE_EXCEEDED"] * 4
    await until(lambda: model.statistics().failure.count == 4)
    model.blocked.set()
    assert model.runs == 0
