"""The Recommender service: one body for one ranking and for many. Users' lists are in users.py."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace

from matchcut.server.ingest import Pipelines
from matchcut.server.records import Media
from matchcut.server.service import replies, requests
from matchcut.server.service.calls import Calls, Context, receiving
from matchcut.server.service.media import payload
from matchcut.server.service.requests import Requests
from matchcut.server.service.status import streaming, unary
from matchcut.server.service.users import UserLists
from matchcut.v1 import recommender_pb2 as pb
from matchcut.v1 import recommender_pb2_grpc


class RecommenderService(recommender_pb2_grpc.RecommenderServicer):
    """Rankings; see recommender.proto."""

    def __init__(self, pipelines: Pipelines, calls: Calls, understand: Requests, users: UserLists) -> None:
        self._pipelines = pipelines
        self._calls = calls
        self._understand = understand
        self._users = users

    @unary
    async def Recommend(self, request: pb.RecommendRequest, context: Context) -> pb.RecommendResponse:  # noqa: N802
        """Ranks once: the final list of what would be a stream."""
        tenant, query = requests.tenant(request.tenant), self._understand.query(request.query)
        options = replace(requests.rank_options(request.options), frames_per_update=0)
        final = await self._calls.run(
            context,
            lambda job: list(self._pipelines.now.recommend(tenant, query, options, job))[-1],
            media=query if isinstance(query, Media) else None,
        )
        return replies.ranking(final)

    @streaming
    async def RecommendLive(  # noqa: N802
        self, messages: AsyncIterator[pb.RecommendLiveRequest], context: Context
    ) -> AsyncGenerator[pb.RecommendResponse]:
        """Ranks again and again while media arrives."""
        header = (await self._calls.first(messages)).header
        tenant, options = requests.tenant(header.tenant), requests.rank_options(header.options)
        kind = self._understand.media.kind(header.media)
        job = self._calls.job(context)
        feed = self._calls.feed(job, latest=self._understand.media.latest(header))
        job.idle, job.dropped = lambda: feed.idle, lambda: feed.dropped
        media = self._understand.media.live(header, feed)
        async with (
            receiving(messages, feed, lambda message: payload(message.chunk, kind)),
            aclosing(
                self._calls.each(
                    context, lambda job: self._pipelines.now.recommend(tenant, media, options, job), media=True, job=job
                )
            ) as rankings,
        ):
            async for ranking in rankings:
                yield replies.ranking(ranking)

    @unary
    async def RecommendForUser(  # noqa: N802
        self, request: pb.RecommendForUserRequest, context: Context
    ) -> pb.RecommendForUserResponse:
        """One list for a user."""
        return await self._users.once(request, context)

    @streaming
    async def RecommendForUserLive(  # noqa: N802
        self, messages: AsyncIterator[pb.RecommendForUserLiveRequest], context: Context
    ) -> AsyncGenerator[pb.RecommendForUserResponse]:
        """Lists that follow what a user does and sees."""
        async with aclosing(self._users.live(messages, context)) as lists:
            async for one in lists:
                yield one
