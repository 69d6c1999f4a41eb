"""Models whose run is shorter than the way to a thread are run on the event loop, and no others."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio

from matchcut.inference import grpc_service_pb2 as pb
from matchcut.server.oip.service import BRIEF, SMALL
from matchcut.server.tensors import Tensor, Tensors
from support.fake_models import FakeModel

QUICK = BRIEF / 5


def request_of(rows: int = 1, *, model: str = "double", name: str = "x", width: int = 4) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=model)
    made.inputs.add(name=name, datatype="FP32", shape=[rows, width])
    made.raw_input_contents.append(np.ones((rows, width), np.float32).tobytes())
    return made


class Seen:
    """Where a model ran: whether on the event loop, run by run."""

    def __init__(self, model: FakeModel) -> None:
        self.on_loop: list[bool] = []
        self._loop = threading.get_ident()
        self._function: Callable[[Tensors], dict[str, Tensor]] = model._function
        model._function = self._call

    def _call(self, inputs: Tensors) -> dict[str, Tensor]:
        self.on_loop.append(threading.get_ident() == self._loop)
        return self._function(inputs)


@pytest_asyncio.fixture
async def seen(served: Any) -> Seen:
    """What the model "double" does."""
    return Seen(served.models["double"])


async def test_a_quick_model_is_run_where_it_is_asked_for(served: Any, seen: Seen) -> None:
    served.models["double"].seconds = QUICK
    for _ in range(3):
        reply = await served.stub.ModelInfer(request_of())
        assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [2, 2, 2, 2]
    assert seen.on_loop == [False, True, True], "the first time it might have had to be loaded"


@pytest.mark.parametrize("seconds", [None, BRIEF, 1.0])
async def test_others_are_run_in_threads(served: Any, seen: Seen, seconds: float | None) -> None:
    served.models["double"].seconds = seconds
    for _ in range(3):
        await served.stub.ModelInfer(request_of())
    assert seen.on_loop == [False] * 3


async def test_so_is_what_is_large_or_has_its_elements_one_by_one(served: Any, seen: Seen) -> None:
    served.models["double"].seconds = QUICK
    await served.stub.ModelInfer(request_of())
    one_by_one = request_of()
    del one_by_one.raw_input_contents[:]
    one_by_one.inputs[0].contents.fp32_contents.extend([1.0] * 4)
    await served.stub.ModelInfer(one_by_one)
    with pytest.raises(grpc.aio.AioRpcError):  # it takes four values a row
        await served.stub.ModelInfer(request_of(width=SMALL // 4 + 1))
    assert seen.on_loop == [False, False]


async def test_what_is_wrong_is_refused_all_the_same(served: Any, seen: Seen) -> None:
    model = served.models["double"]
    model.seconds = QUICK
    await served.stub.ModelInfer(request_of())
    for spoil in (
        lambda request: request.inputs[0].shape.__setitem__(0, -1),
        lambda request: request.inputs[0].shape.__setitem__(0, 2**40),
        lambda request: request.ClearField("inputs"),
        lambda request: request.raw_input_contents.append(b""),
    ):
        request = request_of()
        spoil(request)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.ModelInfer(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    served.models.unload("double")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.ModelInfer(request_of())
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert seen.on_loop == [False]


async def test_a_quick_model_of_sequences_keeps_their_states(served: Any) -> None:
    total = served.models["total"]
    total.seconds = QUICK
    sums = []
    for number in range(4):
        request = request_of(model="total", name="value", width=1)
        request.parameters["sequence_id"].int64_param = 5
        request.parameters["sequence_start"].bool_param = number == 0
        reply = await served.stub.ModelInfer(request)
        sums.append(np.frombuffer(reply.raw_output_contents[0], np.float32)[0])
    assert sums == [1, 2, 3, 4]
