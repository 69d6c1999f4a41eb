"""A scripted server made of the stubs: a test says how each method answers, and reads what arrived."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from matchcut.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    common_pb2,
    events_pb2,
    events_pb2_grpc,
    recommender_pb2,
    recommender_pb2_grpc,
)

ENCODER = common_pb2.Encoder(name="lite", version="1", digest="ab" * 32, dimensions=4)


@dataclass
class Seen:
    """One call as the server saw it. `ended`: nothing more came; `gone`: the caller cancelled or was too late."""

    method: str
    metadata: dict[str, str]
    requests: list[Any] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    gone: threading.Event = field(default_factory=threading.Event)

    @property
    def data(self) -> bytes:
        """The container's bytes that arrived."""
        return b"".join(chunk.data for chunk in self.chunks)

    @property
    def chunks(self) -> list[Any]:
        """The chunks that arrived."""
        return [request.chunk for request in self.requests if request.WhichOneof("message") == "chunk"]

    @property
    def sealed(self) -> bool:
        """The end message came, and came last."""
        kinds = [request.WhichOneof("message") for request in self.requests]
        return "end" in kinds and kinds.index("end") == len(kinds) - 1


Handler = Callable[[Iterator[Any], Seen, grpc.ServicerContext], Iterable[Message]]


def ranking(revision: int, *ids: str, final: bool = False) -> recommender_pb2.RecommendResponse:
    """A reply with these items in this order."""
    matches = [recommender_pb2.Match(item=catalog_pb2.Item(item_id=i), score=1 - n / 10) for n, i in enumerate(ids)]
    return recommender_pb2.RecommendResponse(matches=matches, revision=revision, final=final, encoder=ENCODER)


def user_ranking(revision: int, *ids: str, final: bool = False) -> recommender_pb2.RecommendForUserResponse:
    """A user's list with these items in this order."""
    matches = [
        recommender_pb2.UserMatch(
            item=catalog_pb2.Item(item_id=i),
            score=0.5,
            propensity=0.25,
            reason=recommender_pb2.Reason(
                nearest_item_id="near",
                similarity=0.75,
                shares=[recommender_pb2.SignalShare(signal="history", share=1.0)],
            ),
        )
        for i in ids
    ]
    return recommender_pb2.RecommendForUserResponse(
        matches=matches,
        recommendation_id="list",
        model=recommender_pb2.SessionModel(name="mean", version="1", digest="cd" * 32, dimensions=4),
        encoder=ENCODER,
        events=len(ids),
        revision=revision,
        final=final,
    )


def fails(code: grpc.StatusCode, message: str, *details: Message) -> Handler:
    """A handler that answers with an error after the first message."""

    def handler(requests: Iterator[Any], seen: Seen, context: grpc.ServicerContext) -> Iterable[Message]:
        next(requests)
        packed = [any_pb2.Any() for _ in details]
        for wrapper, detail in zip(packed, details, strict=True):
            wrapper.Pack(detail)
        status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message, details=packed)
        context.abort_with_status(rpc_status.to_status(status))
        return ()

    return handler


class FakeServer:
    """Answers each method by its handler, and remembers what it saw.

    patient: waits a moment when nothing more comes, since gRPC may tell that a caller has cancelled only after
        the end of what it sent.
    """

    ranking = staticmethod(ranking)
    user_ranking = staticmethod(user_ranking)
    fails = staticmethod(fails)

    def __init__(self) -> None:
        self.calls: list[Seen] = []
        self.target = ""
        self.patient = False
        self._handlers: dict[str, Handler] = dict(DEFAULTS)
        self._came = threading.Condition()

    def on(self, method: str, *handlers: Handler) -> None:
        """Sets what answers `method`: the first handler its first call, and so on; the last one all later calls."""
        left = list(handlers)

        def chosen(requests: Iterator[Any], seen: Seen, context: grpc.ServicerContext) -> Iterable[Message]:
            handler = left.pop(0) if len(left) > 1 else left[0]
            return handler(requests, seen, context)

        self._handlers[method] = chosen

    def call(self, number: int = 0) -> Seen:
        """The call of that number; waits for it to arrive."""
        with self._came:
            assert self._came.wait_for(lambda: len(self.calls) > number, timeout=60)
        return self.calls[number]

    def answer(self, method: str, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Message]:
        """The replies to one call."""
        seen = Seen(method, {key: str(value) for key, value in context.invocation_metadata()})
        over = threading.Event()
        context.add_callback(lambda: None if over.is_set() else seen.gone.set())
        with self._came:
            self.calls.append(seen)
            self._came.notify_all()
        try:
            yield from self._handlers[method](self._remembered(requests, seen), seen, context)
        except grpc.RpcError:  # what gRPC raises where a caller who is gone is read from
            seen.gone.set()
            raise
        except Exception:  # what context.abort raises
            over.set()
            raise
        over.set()

    def _remembered(self, requests: Iterator[Any], seen: Seen) -> Iterator[Any]:
        for request in requests:
            seen.requests.append(request)
            yield request
        if self.patient and seen.gone.wait(1):
            raise grpc.RpcError
        seen.ended.set()


def ingested(requests: Iterator[Any], seen: Seen, context: grpc.ServicerContext) -> Iterable[Message]:
    """Takes everything and says so."""
    first, *_ = requests
    item = first.header.item if isinstance(first, catalog_pb2.IngestRequest) else first.item
    outcome = catalog_pb2.INGEST_OUTCOME_CREATED
    yield catalog_pb2.IngestResponse(item=item, outcome=outcome, segment_count=2, encoder=ENCODER)


def ranked_live(requests: Iterator[Any], seen: Seen, context: grpc.ServicerContext) -> Iterable[Message]:
    """A ranking for each chunk, then the final one."""
    revision = 0
    for request in requests:
        if request.HasField("chunk"):
            revision += 1
            yield ranking(revision, "a")
    yield ranking(revision + 1, "a", "b", final=True)


def recorded(requests: Iterator[Any], seen: Seen, context: grpc.ServicerContext) -> Iterable[Message]:
    """All are new, and of unknown items."""
    count = len(next(requests).events)
    times = common_pb2.StageTimes(total_us=500_000)
    yield events_pb2.RecordEventsResponse(recorded=count, duplicates=1, unknown_items=count, times=times)


def followed(requests: Iterator[Any], seen: Seen, context: grpc.ServicerContext) -> Iterable[Message]:
    """A list of the items so far after each message, then the final one; a chunk is the item "seen"."""
    items: list[str] = []
    revision = 0
    for request in requests:
        kind = request.WhichOneof("message")
        items += {"header": [], "event": [request.event.item_id], "chunk": ["seen"]}[kind]
        revision += 1
        reply = user_ranking(revision, *items)
        reply.event_id = request.event.event_id
        yield reply
    yield user_ranking(revision + 1, *items, final=True)


DEFAULTS: dict[str, Handler] = {
    "Ingest": ingested,
    "IngestVectors": ingested,
    "GetItem": lambda r, s, c: [catalog_pb2.GetItemResponse(item=catalog_pb2.Item(item_id=next(r).item_id))],
    "ListItems": lambda r, s, c: [catalog_pb2.ListItemsResponse(items=[catalog_pb2.Item(item_id=next(r).tenant)])],
    "RemoveItem": lambda r, s, c: [catalog_pb2.RemoveItemResponse(removed=bool(next(r)))],
    "SwitchEncoder": lambda r, s, c: [catalog_pb2.SwitchEncoderResponse(encoder=ENCODER, switched=not next(r).dry_run)],
    "Recommend": lambda r, s, c: [ranking(1, "a", "b", final=bool(next(r)))],
    "RecommendLive": ranked_live,
    "RecordEvents": recorded,
    "ForgetUser": lambda r, s, c: [
        events_pb2.ForgetUserResponse(events=len(next(r).user_id), exposures=2, time_us=1_500_000, digest="ab" * 32)
    ],
    "CountEvents": lambda r, s, c: [
        events_pb2.CountEventsResponse(
            items=[
                events_pb2.ItemCount(
                    item_id=item_id,
                    users=12,
                    kinds=[
                        events_pb2.KindCount(kind=events_pb2.EVENT_KIND_LIKE, users=11),
                        events_pb2.KindCount(kind=99, users=10),  # type: ignore[arg-type]
                    ],
                )
                for item_id in next(r).item_ids
            ],
            threshold=10,
        )
    ],
    "RecommendForUser": lambda r, s, c: [user_ranking(1, "a", next(r).user_id, final=True)],
    "RecommendForUserLive": followed,
    "Check": lambda r, s, c: [health_pb2.HealthCheckResponse(status=1 if next(r) is not None else 0)],
}


SERVICES = [
    (catalog_pb2_grpc, "Catalog"),
    (recommender_pb2_grpc, "Recommender"),
    (events_pb2_grpc, "Events"),
    (health_pb2_grpc, "Health"),
]


def _servicer(fake: FakeServer, base: type) -> Any:
    """An implementation of a service by its stub's base class."""

    def method(name: str) -> Callable[[Any, Any, grpc.ServicerContext], Any]:
        streams = name in ("Ingest", "RecommendLive", "RecommendForUserLive")

        def many(self: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
            yield from fake.answer(name, request if streams else iter([request]), context)

        def one(self: Any, request: Any, context: grpc.ServicerContext) -> Message:
            (reply,) = many(self, request, context)
            return reply

        return many if name.endswith("Live") else one

    return type("Servicer", (base,), {name: method(name) for name in DEFAULTS if hasattr(base, name)})()


@contextmanager
def serving(fake: FakeServer, *credentials: grpc.ServerCredentials) -> Iterator[list[str]]:
    """Runs a fake server on a free port of this machine for each of the credentials, or one in plaintext."""
    with ThreadPoolExecutor(16) as pool:
        server = grpc.server(pool)
        for module, name in SERVICES:
            servicer = _servicer(fake, getattr(module, f"{name}Servicer"))
            getattr(module, f"add_{name}Servicer_to_server")(servicer, server)
        ports = [server.add_secure_port("localhost:0", each) for each in credentials]
        ports = ports or [server.add_insecure_port("localhost:0")]
        server.start()
        yield [f"localhost:{port}" for port in ports]
        server.stop(None).wait()


class SecureServer(FakeServer):
    """A fake server with TLS at `target`; at `mutual` it asks for a certificate, too."""

    mutual: str
    authorities: Path
    certificate: tuple[Path, Path]
