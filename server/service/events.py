"""The Events service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from matchcut.server.job import Job
from matchcut.server.personal import Personal
from matchcut.server.records import Recorded
from matchcut.server.service import events_requests, replies, requests
from matchcut.server.service.calls import Calls, Context
from matchcut.server.service.events_requests import EventRequests
from matchcut.server.service.status import streaming, unary
from matchcut.v1 import events_pb2 as pb
from matchcut.v1 import events_pb2_grpc


class EventsService(events_pb2_grpc.EventsServicer):
    """What users do with items; see events.proto."""

    def __init__(self, personal: Personal, calls: Calls, understand: EventRequests) -> None:
        self._personal = personal
        self._calls = calls
        self._understand = understand

    @unary
    async def RecordEvents(self, request: pb.RecordEventsRequest, context: Context) -> pb.RecordEventsResponse:  # noqa: N802
        """Events in, durably."""
        return await self._record(request, context)

    @streaming
    async def RecordEventsStream(  # noqa: N802
        self, messages: AsyncIterator[pb.RecordEventsRequest], context: Context
    ) -> AsyncGenerator[pb.RecordEventsResponse]:
        """The same for each message. Between them the call takes no place: it may be open for days."""
        async for request in messages:
            yield await self._record(request, context)

    @unary
    async def ForgetUser(self, request: pb.ForgetUserRequest, context: Context) -> pb.ForgetUserResponse:  # noqa: N802
        """All that is kept of a user is gone when the reply comes."""
        tenant, user = requests.tenant(request.tenant), events_requests.user_id(request.user_id)
        done = await self._calls.run(context, lambda job: self._personal.forget(tenant, user, job))
        return replies.forgotten(done)

    @unary
    async def CountEvents(self, request: pb.CountEventsRequest, context: Context) -> pb.CountEventsResponse:  # noqa: N802
        """Anonymous numbers out."""
        tenant, items = requests.tenant(request.tenant), events_requests.counted_items(request.item_ids)
        limit = events_requests.count_limit(request.limit)
        found = await self._calls.run(context, lambda job: self._personal.count(tenant, items, limit, job))
        return replies.counted(found)

    async def _record(self, request: pb.RecordEventsRequest, context: Context) -> pb.RecordEventsResponse:
        tenant = requests.tenant(request.tenant)

        def record(job: Job) -> Recorded:  # thousands of events are not looked at on the event loop
            return self._personal.record(tenant, self._understand.events(request.events), job)

        return replies.recorded(await self._calls.run(context, record))
