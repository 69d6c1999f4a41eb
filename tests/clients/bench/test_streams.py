"""Requests that share a stream: each gets its own answer, whatever the order, and no failure is another's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
import pytest

from matchcut.bench.plan import Send
from matchcut.bench.prepared import Followed, Streamed
from matchcut.bench.streams import OPENING, Conversation, infer_stream, live_list
from matchcut.bench.tally import Outcome
from matchcut.inference import grpc_service_pb2 as pb
from matchcut.v1 import common_pb2, events_pb2, recommender_pb2

Simulate = Callable[[Callable[[Any], Coroutine[Any, Any, Any]]], Any]
TIMEOUT = 5.0
REQUEST = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"x"]).SerializeToString()


class Stream:
    """One call of a scripted server, as grpc.aio has it; the test answers and ends it."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.cancelled = False
        self.refuses = False
        self._answers: asyncio.Queue[Any] = asyncio.Queue()
        self._end = (grpc.StatusCode.OK, "")

    async def write(self, message: bytes) -> None:
        if self.refuses:
            raise asyncio.InvalidStateError("the call has ended")
        await asyncio.sleep(0.001)
        self.written.append(message)

    async def read(self) -> Any:
        return await self._answers.get()

    async def code(self) -> grpc.StatusCode:
        return self._end[0]

    async def details(self) -> str:
        return self._end[1]

    def cancel(self) -> None:
        self.cancelled = True

    def say(self, message: Any) -> None:
        self._answers.put_nowait(message.SerializeToString())

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "") -> None:
        self.refuses = True
        self._end = code, details
        self._answers.put_nowait(grpc.aio.EOF)


class Channel:
    """Remembers the streams that were opened."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []

    def stream_stream(self, method: str) -> Callable[..., Stream]:
        assert method == self.method

        def start(*, metadata: Any) -> Stream:
            assert metadata == (("authorization", "Bearer secret"),)
            self.streams.append(Stream())
            return self.streams[-1]

        return start

    method = "/inference.GRPCInferenceService/ModelStreamInfer"


class Scene:
    """A stream of inference under test."""

    def __init__(self) -> None:
        self.channel = Channel()
        options: Any = {"timeout": TIMEOUT, "metadata": (("authorization", "Bearer secret"),)}
        prepared = Streamed("infer-stream", (REQUEST,))
        channel: Any = self.channel
        self.conversation: Conversation
        self.conversation, self._call = infer_stream(prepared, channel, **options)

    def ask(self, number: int) -> asyncio.Task[Outcome]:
        due = asyncio.get_running_loop().time() - 1  # the generator is a second late
        return asyncio.ensure_future(self._call(Send(0.0, 0, number), due))

    @property
    def stream(self) -> Stream:
        return self.channel.streams[-1]


def answer(name: str, error: str = "") -> pb.ModelStreamInferResponse:
    return pb.ModelStreamInferResponse(error_message=error, infer_response=pb.ModelInferResponse(id=name))


def test_each_gets_the_answer_with_its_id_in_whatever_order(simulate: Simulate) -> None:
    async def run(loop: Any) -> None:
        scene = Scene()
        first, second = scene.ask(1), scene.ask(2)
        await asyncio.sleep(0.1)
        asked = [pb.ModelInferRequest.FromString(message) for message in scene.stream.written]
        assert [request.id for request in asked] == ["1", "2"]
        assert {(request.model_name, *request.raw_input_contents) for request in asked} == {("m", b"x")}
        scene.stream.say(answer("2"))
        scene.stream.say(answer("7"))  # of nobody here
        scene.stream.say(pb.ModelStreamInferResponse())
        await asyncio.sleep(1)
        assert second.done()
        assert not first.done()
        scene.stream.say(answer("1"))
        scene.stream.say(answer("1"))  # another part of the same answer: the first one counts
        outcomes = [await first, await second]
        assert [outcome.status for outcome in outcomes] == ["OK", "OK"]
        (late,), (soon,) = (outcome.samples for outcome in outcomes)
        assert late.arrived - late.due == pytest.approx(2.1)  # from the planned time, not from the sending
        assert late.arrived - late.sent == pytest.approx(1.1)
        assert soon.arrived - soon.sent == pytest.approx(0.1)
        assert len(scene.channel.streams) == 1
        await scene.conversation.close()
        assert scene.stream.cancelled

    simulate(run)


def test_an_error_is_of_the_request_that_it_names_or_else_of_the_oldest(simulate: Simulate) -> None:
    async def run(loop: Any) -> None:
        scene = Scene()
        first, second, third = (scene.ask(number) for number in range(3))
        await asyncio.sleep(0.1)
        scene.stream.say(answer("1", "no such input"))
        scene.stream.say(answer("", "busy"))
        scene.stream.say(answer("2"))
        outcomes = [await first, await second, await third]
        assert [(outcome.status, outcome.why) for outcome in outcomes] == [
            ("UNKNOWN", "busy"),
            ("UNKNOWN", "no such input"),
            ("OK", ""),
        ]
        await scene.conversation.close()

    simulate(run)


def test_a_deadline_is_one_requests_and_leaves_the_stream(simulate: Simulate) -> None:
    async def run(loop: Any) -> None:
        scene = Scene()
        slow = scene.ask(1)
        await asyncio.sleep(TIMEOUT - 1)
        quick = scene.ask(2)
        await asyncio.sleep(2)
        outcome = await slow
        assert outcome.status == "DEADLINE_EXCEEDED"
        assert outcome.samples[0].arrived - outcome.samples[0].sent == pytest.approx(TIMEOUT)
        scene.stream.say(answer("1"))  # too late
        scene.stream.say(answer("2"))
        assert (await quick).ok
        assert len(scene.channel.streams) == 1
        assert not scene.stream.cancelled
        await scene.conversation.close()

    simulate(run)


@pytest.mark.parametrize(
    ("code", "status", "why"),
    [
        (grpc.StatusCode.UNAVAILABLE, "UNAVAILABLE", "gone"),
        (grpc.StatusCode.OK, "UNKNOWN", "the server has ended the stream"),
    ],
)
def test_a_stream_that_ends_fails_what_is_under_way_and_is_opened_anew(
    simulate: Simulate, code: grpc.StatusCode, status: str, why: str
) -> None:
    async def run(loop: Any) -> None:
        scene = Scene()
        first = scene.ask(1)
        await asyncio.sleep(0.1)
        scene.stream.end(code, "gone")
        outcome = await first
        assert (outcome.status, outcome.why, len(outcome.samples)) == (status, why, 1)
        again = scene.ask(2)
        await asyncio.sleep(0.1)
        assert len(scene.channel.streams) == 2
        scene.stream.say(answer("2"))
        assert (await again).ok
        await scene.conversation.close()

    simulate(run)


def test_a_failing_read_and_what_is_cancelled(simulate: Simulate) -> None:
    async def run(loop: Any) -> None:
        scene = Scene()
        first, given_up = scene.ask(1), scene.ask(2)
        await asyncio.sleep(0.1)
        given_up.cancel()
        nothing = grpc.aio.Metadata()
        error = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, nothing, nothing, details="oh")

        async def failing() -> Any:
            raise error

        scene.stream.read = failing  # type: ignore[method-assign]
        scene.stream.say(answer("7"))
        outcome = await first
        assert (outcome.status, outcome.why) == ("INTERNAL", "oh")
        with pytest.raises(asyncio.CancelledError):
            await given_up

    simulate(run)


HEADER = recommender_pb2.RecommendForUserLiveRequest(
    header=recommender_pb2.RecommendForUserLiveHeader(user_id="u")
).SerializeToString()


def test_an_event_is_answered_by_the_list_that_names_it(simulate: Simulate) -> None:
    async def run(loop: Any) -> None:
        channel: Any = Channel()
        channel.method = "/matchcut.v1.Recommender/RecommendForUserLive"
        like = events_pb2.Event(item_id="a", kind=events_pb2.EVENT_KIND_LIKE).SerializeToString()
        prepared = Followed("user-live", "bench-1-", (HEADER,), (like,))
        options: Any = {"timeout": TIMEOUT, "metadata": (("authorization", "Bearer secret"),)}
        conversation, call = live_list(prepared, HEADER, channel, **options)
        opening = asyncio.ensure_future(conversation.open())
        await asyncio.sleep(0.1)
        stream = channel.streams[0]
        assert stream.written == [HEADER]
        assert not opening.done()
        stream.say(recommender_pb2.RecommendForUserResponse(revision=1))
        await opening
        asked = asyncio.ensure_future(call(Send(0.0, 0, 3), loop.time()))
        await asyncio.sleep(0.5)
        event = recommender_pb2.RecommendForUserLiveRequest.FromString(stream.written[1]).event
        assert (event.event_id, event.item_id, event.user_id) == ("bench-1-3", "a", "")
        stream.say(recommender_pb2.RecommendForUserResponse(revision=2))  # of a look at media, or of nobody
        times = common_pb2.StageTimes(stages=[common_pb2.Stage(name="rank", wall_us=1000)], total_us=3000)
        stream.say(recommender_pb2.RecommendForUserResponse(revision=3, event_id="bench-1-3", times=times))
        outcome = await asked
        assert outcome.ok
        assert outcome.stages == pytest.approx({"rank": 0.001, "total": 0.003, "elsewhere": 0.497}, abs=0.002)
        assert len(channel.streams) == 1
        await conversation.close()

    simulate(run)


def test_opening_gives_up_and_leaves_it_to_the_requests(simulate: Simulate) -> None:
    async def run(loop: Any) -> None:
        channel: Any = Channel()
        channel.method = "/matchcut.v1.Recommender/RecommendForUserLive"
        options: Any = {"timeout": TIMEOUT, "metadata": (("authorization", "Bearer secret"),)}
        prepared = Followed("user-live", "bench-1-", (HEADER,), (b"",))
        conversation, _ = live_list(prepared, HEADER, channel, **options)
        began = loop.time()
        await conversation.open()  # nothing comes
        assert loop.time() - began == pytest.approx(OPENING)
        channel.streams[0].end(grpc.StatusCode.UNAUTHENTICATED, "no token")
        await asyncio.sleep(0.1)
        opening = asyncio.ensure_future(conversation.open())
        await asyncio.sleep(0.1)
        assert len(channel.streams) == 2
        channel.streams[1].end(grpc.StatusCode.UNAUTHENTICATED, "no token")
        await opening
        await conversation.close()
        unopened, _ = live_list(prepared, HEADER, channel, **options)
        await unopened.close()

    simulate(run)
