"""Stands for Personal where services are tested without a store: it remembers what it was asked, and obeys."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import grpc.aio

from matchcut.server.config import Config
from matchcut.server.job import Job
from matchcut.server.records import (
    Assignment,
    Counted,
    DecodedFrames,
    EncoderIdentity,
    Event,
    EventKind,
    Forgotten,
    Item,
    ItemCounts,
    Media,
    MediaReport,
    PersonalMatch,
    PersonalRanking,
    RankOptions,
    Reason,
    Receipt,
    Recorded,
    SessionIdentity,
    StageTimes,
    UserQuery,
)
from matchcut.server.service.calls import Calls
from matchcut.server.service.events import EventsService
from matchcut.server.service.events_requests import EventRequests
from matchcut.server.service.recommender import RecommenderService
from matchcut.server.service.requests import Requests
from matchcut.server.service.users import UserLists
from matchcut.v1 import events_pb2_grpc, recommender_pb2_grpc

NO_TIME = StageTimes((), 0)
NOW_US = 1_000_000_000_000_000


@dataclass
class FakePersonal:
    """Lists of a user's items, newest first, in place of rankings.

    held: where set, record() waits for it; recording: set while it does. failing: raised by record().
    looked: how many frames of live media were seen. padding: bytes that each list is made larger by.
    """

    asked: list[tuple[str, UserQuery, RankOptions]] = field(default_factory=list)
    events: dict[tuple[str, str], Event] = field(default_factory=dict)
    held: threading.Event | None = None
    recording: threading.Event = field(default_factory=threading.Event)
    failing: Exception | None = None
    looked: int = 0
    padding: int = 0

    def record(self, tenant: str, events: Sequence[Event], job: Job) -> Recorded:
        """Of one id in a tenant the first is kept."""
        self.recording.set()
        if self.held is not None:
            assert self.held.wait(30)
        if self.failing is not None:
            raise self.failing
        before = len(self.events)
        for event in events:
            self.events.setdefault((tenant, event.event_id), event)
        new = len(self.events) - before
        return Recorded(new, len(events) - new, new, job.clock.times())

    def forget(self, tenant: str, user_id: str, job: Job) -> Forgotten:
        """The user's events are gone."""
        gone = [key for key, event in self.events.items() if key[0] == tenant and event.user_id == user_id]
        for key in gone:
            del self.events[key]
        return Forgotten(Receipt(len(gone), 2, NOW_US, "ab" * 32), job.clock.times())

    def count(self, tenant: str, item_ids: Sequence[str], limit: int, job: Job) -> Counted:
        """What was asked: each item has as many users as the limit says."""
        items = [
            ItemCounts(name, limit, {EventKind.LIKE: 3, EventKind.CLICK: 2, EventKind.SKIP: 0}) for name in item_ids
        ]
        return Counted(tuple(items), 10, job.clock.times())

    def recommend(self, tenant: str, asked: UserQuery, options: RankOptions, job: Job) -> PersonalRanking:
        """A list of the history, or of what is kept."""
        self.asked.append((tenant, asked, options))
        return self.ranking(tenant, asked)

    def live(self, tenant: str, asked: UserQuery, options: RankOptions) -> FakeLive:
        """See LiveList."""
        self.asked.append((tenant, asked, options))
        return FakeLive(self, tenant, asked)

    def ranking(self, tenant: str, asked: UserQuery, report: MediaReport | None = None) -> PersonalRanking:
        """A list of items of the user's events."""
        kept = (event for (of, _), event in self.events.items() if of == tenant and event.user_id == asked.user_id)
        events = list(asked.history or kept)
        matches = tuple(
            PersonalMatch(
                Item(event.item_id), 0.5, Reason("near", 0.25, {"history": 0.75, "freshness": 0.25}), propensity=0.125
            )
            for event in reversed(events)
        )
        return PersonalRanking(
            matches=matches,
            recommendation_id="list",
            assignment=Assignment("test", "blue") if asked.user_id else Assignment(),
            model=SessionIdentity("fake", "1", "cd" * 32, 4),
            encoder=EncoderIdentity("layout", "1" * (self.padding or 1), "ef" * 32, 48),
            cold=not events,
            events=len(events),
            revision=99,
            final=False,
            times=NO_TIME,
            report=report,
        )


class FakeLive:
    """See LiveList; a look at media is a frame."""

    def __init__(self, personal: FakePersonal, tenant: str, asked: UserQuery) -> None:
        self._personal = personal
        self._tenant = tenant
        self._asked = asked
        self._report: MediaReport | None = None

    def now(self, job: Job) -> PersonalRanking:
        """A list of what there is."""
        return self._personal.ranking(self._tenant, self._asked, self._report)

    def after(self, event: Event, job: Job) -> PersonalRanking:
        """The same after one event more."""
        self._personal.record(self._tenant, [event], job)
        return self.now(job)

    def watch(self, media: Media, job: Job) -> Iterator[PersonalRanking]:
        """A list for each frame, and one at the end."""
        assert isinstance(media.form, DecodedFrames)
        for _ in media.form.stream:
            self._personal.looked += 1
            self._report = MediaReport(frames_used=self._personal.looked)
            if media.wanted is not None and self._personal.looked > media.wanted.frames:
                break
            yield self.now(job)
        yield self.now(job)


class Callers:
    """Stubs of a server whose Personal is a fake."""

    def __init__(self, address: str, channel: grpc.aio.Channel, personal: FakePersonal) -> None:
        self.personal = personal
        self.address = address
        self.events = events_pb2_grpc.EventsStub(channel)
        self.recommender = recommender_pb2_grpc.RecommenderStub(channel)


@asynccontextmanager
async def served(config: Config) -> AsyncIterator[Callers]:
    """The two services on a free port."""
    personal = FakePersonal()
    server = grpc.aio.server()
    calls, requests = Calls(config), Requests(config)
    understand = EventRequests(config, requests, now_us=lambda: NOW_US)
    stand_in = cast(Any, personal)
    events_pb2_grpc.add_EventsServicer_to_server(EventsService(stand_in, calls, understand), server)
    users = UserLists(stand_in, calls, understand, requests.media)
    recommender = RecommenderService(cast(Any, None), calls, requests, users)
    recommender_pb2_grpc.add_RecommenderServicer_to_server(recommender, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Callers(f"127.0.0.1:{port}", channel, personal)
    finally:
        await server.stop(1)
        await calls.close()
