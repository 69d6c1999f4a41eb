"""A caller that speaks to a running server with nothing but the stubs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

import grpc
import grpc.aio
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from matchcut.client.errors import from_rpc
from matchcut.client.status import LOST, Status
from matchcut.server.records import Pixels
from matchcut.v1 import catalog_pb2, catalog_pb2_grpc, common_pb2, media_pb2, recommender_pb2, recommender_pb2_grpc

SIDE = 32


class Wire:
    """Stubs, and short ways to make their messages."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.catalog = catalog_pb2_grpc.CatalogStub(channel)
        self.recommender = recommender_pb2_grpc.RecommenderStub(channel)

    @staticmethod
    def picture(seed: int) -> Pixels:
        """A 32x32 picture of 4x4 coloured cells, unlike any other seed's."""
        cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return np.repeat(np.repeat(cells, SIDE // 4, axis=0), SIDE // 4, axis=1)

    @staticmethod
    def frame_header(**more: Any) -> media_pb2.MediaHeader:
        """A header for 32x32 RGB frames, every one used."""
        sampling = media_pb2.Sampling(frames_per_second=1000)
        form = media_pb2.FrameForm(width=SIDE, height=SIDE)
        return media_pb2.MediaHeader(frames=form, sampling=sampling, **more)

    def chunks(self, *seeds: int, step_us: int = 1_000_000) -> list[media_pb2.MediaChunk]:
        """One frame a second, one for each seed."""
        return [
            media_pb2.MediaChunk(frame=media_pb2.Frame(pixels=self.picture(seed).tobytes(), time_us=at * step_us))
            for at, seed in enumerate(seeds)
        ]

    async def ingest(
        self, item_id: str, seeds: Iterable[int], *, tenant: str = "", sha: bytes = b"", **item: Any
    ) -> catalog_pb2.IngestResponse:
        """Puts an item in from frames."""
        header = catalog_pb2.IngestHeader(
            tenant=tenant,
            item=catalog_pb2.Item(item_id=item_id, **item),
            media=self.frame_header(),
            content_sha256=sha,
        )
        return await self.send(header, self.chunks(*seeds))

    async def send(
        self, header: catalog_pb2.IngestHeader, chunks: Iterable[media_pb2.MediaChunk]
    ) -> catalog_pb2.IngestResponse:
        """Puts an item in from any chunks."""
        messages = [catalog_pb2.IngestRequest(header=header)]
        messages += [catalog_pb2.IngestRequest(chunk=chunk) for chunk in chunks]
        messages.append(catalog_pb2.IngestRequest(end=catalog_pb2.IngestEnd()))
        call = self.catalog.Ingest(iter(messages))
        status = Status(call)
        try:
            reply: catalog_pb2.IngestResponse = await call
            return reply
        except grpc.aio.AioRpcError as error:
            # A write that comes after the server's refusal: grpc.aio tells its own error in place of the status.
            if error.details() != LOST:
                raise
            meant = await status.corrected(from_rpc(error))
            assert meant is not None, "the server said OK to a call that failed"
            assert meant.message != LOST, "the server's status did not come"
            raise grpc.aio.AioRpcError(
                status.code(), grpc.aio.Metadata(), status.trailing_metadata(), status.details()
            ) from error

    def live(
        self,
        header: recommender_pb2.RecommendLiveHeader,
        chunks: AsyncIterable[media_pb2.MediaChunk],
        timeout: float | None = None,
    ) -> Any:
        """A live query; returns the call."""

        async def messages() -> AsyncIterator[recommender_pb2.RecommendLiveRequest]:
            yield recommender_pb2.RecommendLiveRequest(header=header)
            async for chunk in chunks:
                yield recommender_pb2.RecommendLiveRequest(chunk=chunk)

        return self.recommender.RecommendLive(messages(), timeout=timeout)

    async def clip(self, *seeds: int, tenant: str = "", **options: Any) -> recommender_pb2.RecommendResponse:
        """Asks with a clip of frames."""
        query = recommender_pb2.Query(
            clip=recommender_pb2.ClipQuery(media=self.frame_header(), chunks=self.chunks(*seeds))
        )
        ranking = recommender_pb2.RankOptions(**options)
        request = recommender_pb2.RecommendRequest(tenant=tenant, query=query, options=ranking)
        reply: recommender_pb2.RecommendResponse = await self.recommender.Recommend(request)
        return reply

    async def vectors(self, item_id: str, vectors: Iterable[Iterable[float]], **item: Any) -> None:
        """Puts an item in from vectors of the server's encoder."""
        await self.catalog.IngestVectors(
            catalog_pb2.IngestVectorsRequest(
                item=catalog_pb2.Item(item_id=item_id, **item),
                segments=[catalog_pb2.Segment(vector=vector) for vector in vectors],
            )
        )

    async def ask(self, values: Iterable[float], **options: Any) -> recommender_pb2.RecommendResponse:
        """Asks with a vector."""
        query = recommender_pb2.Query(vector=recommender_pb2.VectorQuery(values=values))
        ranking = recommender_pb2.RankOptions(**options)
        reply: recommender_pb2.RecommendResponse = await self.recommender.Recommend(
            recommender_pb2.RecommendRequest(query=query, options=ranking)
        )
        return reply

    async def ranked_by(self, variant: str, values: Iterable[float]) -> common_pb2.Stage:
        """Asks with a vector until that variant ranks."""
        values = list(values)
        async with asyncio.timeout(60):
            while (stage := self.stages(await self.ask(values))["rank"]).variant != variant:
                await asyncio.sleep(0.01)
        return stage

    @staticmethod
    def stages(reply: recommender_pb2.RecommendResponse) -> dict[str, common_pb2.Stage]:
        """The stages of an answer by name."""
        return {stage.name: stage for stage in reply.times.stages}

    @staticmethod
    def told(error: grpc.aio.AioRpcError) -> tuple[str, str, str]:
        """A failed call's status name, reason and field."""
        status = rpc_status.from_call(error)
        reason = field = ""
        for detail in status.details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                assert info.domain == "matchcut"
                reason = info.reason
            elif detail.Unpack(bad):
                field = bad.field_violations[0].field
        return error.code().name, reason, field
