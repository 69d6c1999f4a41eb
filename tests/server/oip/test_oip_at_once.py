"""Runs of next to no time are made on the event loop, and nothing that a caller sends can hold it up there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.app import App
from matchcut.server.config import Config
from matchcut.server.oip import framing, requests
from matchcut.server.serving import runner
from support.at_once import PAUSED, Runs, Stub, answers, code_of, first, repeated, request, step, until
from support.onnx_models import identity, running_sum, scale, write
from support.serving import STATES


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this machine does beside, runs of these models are brief."""
    monkeypatch.setattr(runner, "BRIEF", 60.0)
    monkeypatch.setattr(runner, "LONG", 60.0)
    monkeypatch.setattr(runner, "STALLED", 60.0)


@pytest_asyncio.fixture
async def stub(config: Config, tmp_path: Path, brief: None) -> AsyncIterator[Stub]:
    """A server of small models."""
    assert brief is None
    root = tmp_path / "models"
    write(root / "double" / "1", scale())
    write(root / "sum" / "1", running_sum(), toml=STATES)
    write(root / "open" / "1", scale(shape=("n", "m")))
    write(root / "text" / "1", identity("BYTES"))
    write(root / "times" / "1", repeated())
    async with App(replace(config, models=root)) as app, grpc.aio.insecure_channel(app.address) as channel:
        yield Stub(channel)


@pytest.fixture
def runs(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Runs:
    """What the models do once the server runs."""
    assert stub is not None
    return Runs(monkeypatch)


async def test_a_brief_model_runs_where_it_is_asked_for(stub: Stub, runs: Runs) -> None:
    for value in (1, 2, 3):
        assert first(await stub.ModelInfer(request("double", value))) == 2 * value
    assert runs.taken() == [True] * 3
    named = request("double")
    named.outputs.add(name="y")
    assert first(await stub.ModelInfer(named)) == 2
    call = stub.ModelStreamInfer()
    for value in (4, 5):
        await call.write(request("double", value))
    await call.done_writing()
    assert [first(reply.infer_response) async for reply in call] == [8, 10]
    assert runs.taken() == [True] * 3


async def test_steps_do_so_once_their_sequence_has_begun(stub: Stub, runs: Runs) -> None:
    call = stub.ModelStreamInfer()
    sums = []
    for at in range(4):
        await call.write(step(1, start=not at))
        sums.append(first((await call.read()).infer_response))
        await stub.ModelInfer(step(1, sequence=2, start=not at))
    assert sums == [1, 2, 3, 4]
    assert runs.taken() == [False, False, *[True] * 6]
    call.cancel()
    assert first(await stub.ModelInfer(step(1, sequence=2))) == 5


def batch(made: pb.ModelInferRequest) -> None:
    made.inputs[0].shape[0] = 2
    made.raw_input_contents[0] *= 2


def classes(made: pb.ModelInferRequest) -> None:
    made.outputs.add(name="y").parameters["classification"].int64_param = 1


def elements(made: pb.ModelInferRequest) -> None:
    del made.raw_input_contents[:]
    made.inputs[0].contents.fp32_contents.extend([1.0] * 3)


def large(made: pb.ModelInferRequest) -> None:
    made.id = "x" * (64 << 10)


@pytest.mark.parametrize("change", [batch, classes, elements, large])
async def test_what_is_not_small_and_plain_goes_to_a_thread(
    stub: Stub, runs: Runs, change: Callable[[pb.ModelInferRequest], None]
) -> None:
    made = request("double")
    change(made)
    assert (await stub.ModelInfer(made)).outputs
    assert runs.taken() == [False]


async def test_so_do_models_of_which_a_caller_says_how_much_there_is_to_do(stub: Stub, runs: Runs) -> None:
    assert (await stub.ModelInfer(request("open", width=500))).outputs[0].shape == [1, 500]
    text = pb.ModelInferRequest(model_name="text")
    text.inputs.add(name="x", datatype="BYTES", shape=[1, 3])
    text.raw_input_contents.append(b"\x00\x00\x00\x00" * 3)
    assert (await stub.ModelInfer(text)).outputs
    times = pb.ModelInferRequest(model_name="times")
    times.inputs.add(name="x", datatype="FP32", shape=[1])
    times.inputs.add(name="times", datatype="INT64", shape=[1])
    times.raw_input_contents.extend([np.float32(1).tobytes(), np.int64(1000).tobytes()])
    assert first(await stub.ModelInfer(times)) == 1000
    assert runs.taken() == [False] * 3


async def test_a_busy_sequence_holds_up_only_itself(stub: Stub, runs: Runs) -> None:
    """Two calls of one connection may share a sequence: the second waits for the first in a thread."""
    for sequence in (1, 2):
        await stub.ModelInfer(step(1, sequence=sequence, start=True))
    runs.free.clear()
    runs.taken()
    late = asyncio.ensure_future(stub.ModelInfer(step(PAUSED, start=True)))  # to begin anew, which goes to a thread
    await until(runs.paused)
    behind = asyncio.ensure_future(stub.ModelInfer(step(2)))
    for _ in range(20):
        await answers(stub)
        assert first(await stub.ModelInfer(request("double"))) == 2
    assert not behind.done()
    assert runs.taken() == [False, *[True] * 20]
    runs.free.set()
    assert (first(await late), first(await behind)) == (PAUSED, PAUSED + 2)
    assert runs.taken() == [False]


async def test_a_busy_model_holds_up_only_itself(stub: Stub, runs: Runs) -> None:
    runs.free.clear()
    late = asyncio.ensure_future(stub.ModelInfer(request("double", PAUSED, rows=2)))
    await until(runs.paused)
    behind = [asyncio.ensure_future(stub.ModelInfer(request("double", value))) for value in range(3)]
    for _ in range(20):
        await answers(stub)
    assert not any(call.done() for call in behind)
    runs.free.set()
    assert (await late).outputs
    assert [first(await call) for call in behind] == [0, 2, 4]
    assert not any(runs.taken())


async def test_on_a_stream_a_step_does_not_overtake_one_that_waits(stub: Stub, runs: Runs) -> None:
    call = stub.ModelStreamInfer()
    await call.write(step(1, start=True))
    assert first((await call.read()).infer_response) == 1
    runs.free.clear()
    await call.write(step(PAUSED, start=True))
    await until(runs.paused)
    for value in (1, 2, 3):
        await call.write(step(value))
    await call.write(request("double", 7))
    assert first((await call.read()).infer_response) == 14
    await answers(stub)
    runs.free.set()
    found = [first((await call.read()).infer_response) for _ in range(4)]
    assert found == [PAUSED, PAUSED + 1, PAUSED + 3, PAUSED + 6]
    await call.done_writing()


async def test_what_is_wrong_is_told_in_the_same_words(stub: Stub, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt() -> list[pb.ModelInferRequest]:
        made = [request("double") for _ in range(7)] + [step(1, sequence=9), request("sum", width=2)]
        made[0].inputs[0].shape[0] = -1
        made[1].inputs[0].shape[0] = 2**40
        made[2].ClearField("inputs")
        made[3].raw_input_contents.append(b"")
        made[4].inputs[0].name = "z"
        made[5].inputs[0].datatype = "FP64"
        made[6].parameters["timeout"].int64_param = -1
        return made

    async def told() -> list[tuple[str, str | None]]:
        found = []
        for one in spoilt():
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ModelInfer(one)
            found.append((caught.value.code().name, caught.value.details()))
        return found

    at_once = await told()
    monkeypatch.setattr(runner, "BRIEF", 0.0)
    assert await told() == at_once
    assert {code for code, _ in at_once} == {"INVALID_ARGUMENT"}
    assert not runs.taken()


async def test_a_strict_stream_and_one_that_is_not_tell_of_what_fails_at_once(stub: Stub, runs: Runs) -> None:
    lenient, strict = stub.ModelStreamInfer(), stub.ModelStreamInfer(metadata=(("triton_grpc_error", "true"),))
    for call in (lenient, strict):
        await call.write(request("double", 1))
        assert first((await call.read()).infer_response) == 2
        await call.write(request("double", 1, width=4))
    assert "unexpected shape" in (await lenient.read()).error_message
    await lenient.write(request("double", 3))
    assert first((await lenient.read()).infer_response) == 6
    await lenient.done_writing()
    assert await code_of(strict.read()) == "INVALID_ARGUMENT"
    assert runs.taken() == [True] * 3


async def test_a_run_that_takes_long_all_the_same_is_the_last_for_a_while(
    stub: Stub, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LONG", -1.0)
    monkeypatch.setattr(runner, "PAUSE", 60.0)
    for value in (1, 2, 3):
        assert first(await stub.ModelInfer(request("double", value))) == 2 * value
    assert runs.taken() == [True, False, False]


async def test_a_model_that_is_unloaded_or_replaced_is_asked_no_more(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brief: None
) -> None:
    assert brief is None
    root = tmp_path / "models"
    write(root / "double" / "1", scale())
    settings = replace(config, models=root, model_control="explicit")
    async with App(settings) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub, runs = Stub(channel), Runs(monkeypatch)
        assert first(await stub.ModelInfer(request("double"))) == 2
        write(root / "double" / "2", scale(3.0))
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="double"))
        runs.taken()
        assert first(await stub.ModelInfer(request("double"))) == 3
        assert runs.taken() == [True]
        await stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="double"))
        assert await code_of(stub.ModelInfer(request("double"))) == "UNAVAILABLE"
        assert not runs.taken()


async def test_a_stream_that_nobody_reads_holds_few_answers(stub: Stub, runs: Runs) -> None:
    """Where an answer cannot be written, no further request is read, whichever way it would have gone."""
    call = stub.ModelStreamInfer()
    made = request("double")
    made.id = "x" * (60 << 10)  # comes back with the answer
    written = 0
    try:
        async with asyncio.timeout(1.0):
            while True:
                await call.write(made)
                written += 1
    except TimeoutError:
        pass
    asked = len(runs.taken())
    assert asked < 200, "what the transport takes, and no more"
    await answers(stub)
    assert written < 1000
    call.cancel()


async def test_requests_that_differ_in_their_numbers_only_are_understood_once(
    stub: Stub, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    understood: list[str] = []
    honest = requests.check_names

    def counted(request: Any, *arguments: Any) -> None:
        understood.append(request.model_name)
        honest(request, *arguments)

    monkeypatch.setattr(requests, "check_names", counted)
    framing.HEADS.clear()  # of other tests
    call = stub.ModelStreamInfer()
    for value in range(1, 9):
        for made in (request("double", value), request("double", value, rows=2), request("open", value)):
            made.id = ""
            await call.write(made)
            reply = (await call.read()).infer_response
            assert first(reply) == 2 * value
            assert reply.outputs[0].shape[0] == made.inputs[0].shape[0]
    assert sorted(understood) == ["double", "double", "open"]
    spoilt = request("double", 1)
    spoilt.id = ""
    spoilt.inputs[0].shape[0] = 3  # of the same length
    await call.write(spoilt)
    assert "byte size mismatch" in (await call.read()).error_message
    await call.done_writing()
    assert len(runs.taken()) == 24


async def test_what_was_understood_holds_for_that_very_model_only(config: Config, tmp_path: Path, brief: None) -> None:
    assert brief is None
    root = tmp_path / "models"
    write(root / "m" / "1", scale())
    settings = replace(config, models=root, model_control="explicit")
    async with App(settings) as app, grpc.aio.insecure_channel(app.address) as channel:
        stub = Stub(channel)
        for _ in range(2):
            assert first(await stub.ModelInfer(request("m"))) == 2
        write(root / "m" / "2", scale(5.0, ("n", 4)))
        await stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="m"))
        assert await code_of(stub.ModelInfer(request("m"))) == "INVALID_ARGUMENT"
        assert first(await stub.ModelInfer(request("m", width=4))) == 5
