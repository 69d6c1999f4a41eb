"""The lists of the Recommender service that are for users: one, or one after each event and each look at live media."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, closing
from dataclasses import replace
from functools import partial

from matchcut.server.errors import Cancelled, InvalidInput
from matchcut.server.personal import Personal
from matchcut.server.personal.live import LiveList
from matchcut.server.records import Media, PersonalRanking
from matchcut.server.service import replies, requests
from matchcut.server.service.calls import Calls, Context
from matchcut.server.service.events_requests import EventRequests
from matchcut.server.service.media import Intent, MediaRequests, payload
from matchcut.server.service.merging import merged
from matchcut.v1 import media_pb2
from matchcut.v1 import recommender_pb2 as pb

Answer = tuple[PersonalRanking, str]  # a list, and the id of the event that it answers; "": none


class UserLists:
    """What RecommendForUser and RecommendForUserLive do; see recommender.proto."""

    def __init__(self, personal: Personal, calls: Calls, understand: EventRequests, media: MediaRequests) -> None:
        self._personal = personal
        self._calls = calls
        self._understand = understand
        self._media = media

    async def once(self, request: pb.RecommendForUserRequest, context: Context) -> pb.RecommendForUserResponse:
        """One list."""
        tenant, asked = requests.tenant(request.tenant), self._understand.asked(request)
        options = replace(requests.rank_options(request.options), frames_per_update=0)
        found = await self._calls.run(
            context,
            lambda job: self._personal.recommend(tenant, asked, options, job),
            media=asked.current if isinstance(asked.current, Media) else None,
        )
        return replies.personal(found)

    async def live(
        self, messages: AsyncIterator[pb.RecommendForUserLiveRequest], context: Context
    ) -> AsyncGenerator[pb.RecommendForUserResponse]:
        """A list, and another one after each event and each look at the media; the last one is final."""
        header = (await self._calls.first(messages)).header
        tenant, asked = requests.tenant(header.tenant), self._understand.asked(header)
        lists = self._personal.live(tenant, asked, requests.rank_options(header.options))
        watching = Watching(self._calls, context, lists, self._media, header)

        async def events() -> AsyncGenerator[Answer]:
            yield await self._calls.run(context, lists.now), ""
            async for message in messages:
                kind = message.WhichOneof("message")
                if kind == "event":
                    event = self._understand.live(message.event, asked.user_id)
                    yield await self._calls.run(context, partial(lists.after, event)), event.event_id
                elif kind == "chunk":
                    await watching.put(message.chunk)
                else:
                    raise InvalidInput("after the header a stream carries events and chunks only", field="header")
            watching.end()

        revision = 0
        with closing(watching):
            # Without media there is one source, which needs no task of its own: each list would pass two more.
            sources = merged(events(), watching.lists()) if watching.announced else events()
            async with aclosing(sources) as both:
                async for ranking, event_id in both:
                    revision += 1
                    yield replies.personal(ranking, revision=revision, final=False, event_id=event_id)
            # Only now is it known that nothing more happens, and all of it is in the last list.
            last = await self._calls.run(context, lists.now)
            yield replies.personal(last, revision=revision + 1)


class Watching:
    """The live media of one call. It takes a place, and a thread, from the first chunk on. To be closed.

    announced: whether there may be any.

    Raises:
        InvalidInput: the header's media is malformed.
    """

    def __init__(
        self,
        calls: Calls,
        context: Context,
        lists: LiveList,
        media: MediaRequests,
        header: pb.RecommendForUserLiveHeader,
    ) -> None:
        self._calls = calls
        self._context = context
        self._lists = lists
        self.announced = header.HasField("media")
        self._kind = media.kind(header.media)
        self._job = job = calls.job(context)
        self._feed = feed = calls.feed(job)
        job.idle = lambda: feed.idle
        self._media = media.media(header.media, feed, Intent.QUERY)
        self._begun = asyncio.get_running_loop().create_future()  # whether there is media, once that is known

    async def put(self, chunk: media_pb2.MediaChunk) -> None:
        """One more chunk; waits while those before it are not decoded yet."""
        if not self.announced:
            raise InvalidInput("a chunk came, but header.media is not set; say how media comes", field="header.media")
        piece, weight = payload(chunk, self._kind)
        if not self._begun.done():
            self._begun.set_result(True)
        await self._feed.put(piece, weight)

    def end(self) -> None:
        """No more chunks will come."""
        if not self._begun.done():
            self._begun.set_result(False)
        self._feed.end()

    async def lists(self) -> AsyncGenerator[Answer]:
        """A list after each look at the media, until it has ended or a limit of the caller's has."""
        if not await self._begun:
            return
        work = partial(self._lists.watch, self._media)
        try:
            async with aclosing(self._calls.each(self._context, work, media=True, job=self._job)) as rankings:
                async for ranking in rankings:
                    yield ranking, ""
        finally:
            self._feed.close()  # what comes after a limit is not kept

    def close(self) -> None:
        """The call is over: whoever waits for chunks, or for room, waits no longer."""
        self._feed.end(Cancelled("the call is over"))
        self._feed.close()
