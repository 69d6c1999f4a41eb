"""The Catalog service."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator

from matchcut.server.errors import InvalidInput, NotFound
from matchcut.server.ingest import VECTORS, Ingest, Pipelines
from matchcut.server.job import Job
from matchcut.server.records import Ingested
from matchcut.server.service import replies, requests
from matchcut.server.service.calls import Calls, Context, receiving
from matchcut.server.service.media import Intent, payload
from matchcut.server.service.requests import Requests
from matchcut.server.service.status import unary
from matchcut.server.turns import Purpose
from matchcut.v1 import catalog_pb2 as pb
from matchcut.v1 import catalog_pb2_grpc

PAGE_BYTES = 3 << 20  # clients take messages of 4 MiB unless they were told otherwise


class CatalogService(catalog_pb2_grpc.CatalogServicer):
    """Items in and out of the catalogue; see catalog.proto."""

    def __init__(self, pipelines: Pipelines, ingest: Ingest, calls: Calls, understand: Requests) -> None:
        self._pipelines = pipelines
        self._catalog = pipelines.catalog
        self._ingest = ingest
        self._calls = calls
        self._understand = understand

    @unary
    async def Ingest(self, messages: AsyncIterator[pb.IngestRequest], context: Context) -> pb.IngestResponse:  # noqa: N802
        """Media in, item stored."""
        header = (await self._calls.first(messages)).header
        kind = self._understand.media.kind(header.media)
        if header.content_sha256 and (len(header.content_sha256) != 32 or kind != "data"):
            raise InvalidInput(
                "content_sha256 must be the 32 bytes of a container's SHA-256", field="header.content_sha256"
            )
        tenant, item = requests.tenant(header.tenant), requests.item(header.item, "header.item")
        declared = header.content_sha256
        job = self._calls.job(context)
        feed = self._calls.feed(job)
        media = self._understand.media.media(header.media, feed, Intent.INGEST)

        def put(job: Job) -> Ingested:
            if header.for_next_encoder:
                return self._ingest.media_ahead(tenant, item.item_id, media, job, declared=declared)
            return self._ingest.media(tenant, item, media, job, declared=declared)

        async with receiving(messages, feed, lambda message: payload(message.chunk, kind), sealed=True):
            done = await self._calls.run(context, put, media=media, purpose=Purpose.PUT, job=job)
        return replies.ingested(done)

    @unary
    async def IngestVectors(self, request: pb.IngestVectorsRequest, context: Context) -> pb.IngestResponse:  # noqa: N802
        """The caller's vectors in, item stored."""
        tenant, item = requests.tenant(request.tenant), requests.item(request.item)
        segments, encoder = requests.segments(request.segments), requests.encoder(request.encoder)
        ahead = request.for_next_encoder
        done = await self._calls.run(
            context, lambda job: self._ingest.vectors(tenant, item, segments, encoder, job, ahead=ahead)
        )
        return replies.ingested(done)

    @unary
    async def GetItem(self, request: pb.GetItemRequest, context: Context) -> pb.GetItemResponse:  # noqa: N802
        """One item out."""
        tenant, item_id = requests.tenant(request.tenant), requests.item_id(request.item_id)

        def get(job: Job) -> pb.GetItemResponse:
            with job.clock("store"):
                stored, known = self._catalog.get(tenant, item_id), self._catalog.known(tenant, item_id)
            if stored is None:
                raise NotFound(f"there is no item {item_id!r}", field="item_id")
            return pb.GetItemResponse(
                item=replies.item(stored.item),
                segments=[replies.segment(one, vector=request.include_vectors) for one in stored.segments],
                encoder=replies.encoder(stored.encoder),
                times=replies.times(job.clock.times()),
                from_vectors=known is not None and known.recipe == VECTORS,
            )

        return await self._calls.run(context, get)

    @unary
    async def ListItems(self, request: pb.ListItemsRequest, context: Context) -> pb.ListItemsResponse:  # noqa: N802
        """A page of items out."""
        tenant, size = requests.tenant(request.tenant), requests.page_size(request)
        tags, after = requests.tag_filter(request.tags, "tags"), token_to_id(request.page_token)

        def page(job: Job) -> pb.ListItemsResponse:
            following = self._pipelines.following() if request.lacking_next_encoder else self._pipelines.next
            encoder = None if following is None else following.encoder
            lacking = encoder if request.lacking_next_encoder else None
            with job.clock("store"):
                items, more = self._catalog.page(tenant, after=after, size=size, tags=tags, lacking=lacking)
                total = self._catalog.count(tenant)
                ready = 0 if encoder is None else self._catalog.readiness(encoder, tenant).ready
            shown = fitting([replies.item(item) for item in items])
            return pb.ListItemsResponse(
                items=shown,
                next_page_token=id_to_token(shown[-1].item_id) if more or len(shown) < len(items) else "",
                total_size=total,
                encoder=replies.encoder(self._pipelines.now.encoder),
                times=replies.times(job.clock.times()),
                next_encoder=None if encoder is None else replies.encoder(encoder),
                ready_size=ready,
            )

        return await self._calls.run(context, page)

    @unary
    async def RemoveItem(self, request: pb.RemoveItemRequest, context: Context) -> pb.RemoveItemResponse:  # noqa: N802
        """One item gone, durably."""
        tenant, item_id = requests.tenant(request.tenant), requests.item_id(request.item_id)

        def remove(job: Job) -> pb.RemoveItemResponse:
            with job.clock("store"):
                removed = self._catalog.remove(tenant, item_id)
            if not removed and not request.allow_missing:
                raise NotFound(f"there is no item {item_id!r}", field="item_id")
            return pb.RemoveItemResponse(
                removed=removed,
                encoder=replies.encoder(self._pipelines.now.encoder),
                times=replies.times(job.clock.times()),
            )

        return await self._calls.run(context, remove)

    @unary
    async def SwitchEncoder(  # noqa: N802
        self, request: pb.SwitchEncoderRequest, context: Context
    ) -> pb.SwitchEncoderResponse:
        """The next encoder takes over."""

        def switch(job: Job) -> pb.SwitchEncoderResponse:
            following = self._pipelines.following().encoder
            with job.clock("store"):
                if not request.dry_run:
                    self._pipelines.switch(force=request.force)
                lacking = self._catalog.lacking(following)
            return pb.SwitchEncoderResponse(
                encoder=replies.encoder(following),
                total_size=lacking.items,
                ready_size=lacking.items - lacking.count,
                lacking=[pb.ItemKey(tenant=tenant, item_id=item_id) for tenant, item_id in lacking.first],
                switched=not request.dry_run,
                times=replies.times(job.clock.times()),
            )

        return await self._calls.run(context, switch)


def fitting(items: list[pb.Item]) -> list[pb.Item]:
    """As many of the items as fit into a message of the size that every gRPC client takes; at least one."""
    room, count = PAGE_BYTES, 0
    for item in items:
        room -= item.ByteSize()
        if room < 0 and count:
            break
        count += 1
    return items[:count]


def id_to_token(item_id: str) -> str:
    """The page token that stands for "after this item"."""
    return base64.urlsafe_b64encode(item_id.encode()).decode()


def token_to_id(token: str) -> str:
    """The item that a page token of ours stands for; "" before the first."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidInput(
            "page_token is none that this server gave out; begin again without one", field="page_token"
        ) from None
