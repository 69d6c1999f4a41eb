"""The operations of the Recommender service, and health, written once: arguments in, a described call out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Unpack

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from matchcut.client import options as wire
from matchcut.client.calls import Call, Last, Live, Unary, unary
from matchcut.client.catalog import Frames, Pictures
from matchcut.client.options import CallOptions, LiveOptions, QueryOptions
from matchcut.client.packing import FramePacker, Outgoing, Packer, PixelFormat, clip_chunks, pack_picture
from matchcut.client.results import Encoder, Ranking
from matchcut.client.retry import READ
from matchcut.client.session import Session, seconds
from matchcut.client.sources import ContainerSource, Source, container
from matchcut.v1 import media_pb2, recommender_pb2

ONE_MESSAGE = 8 * 1024 * 1024  # bytes; a larger clip is better decoded while it arrives. The server takes 64 MiB
NO_UPDATES = 2**31 - 1  # frames per update, where only the last ranking is wanted


def recommend(
    session: Session,
    *,
    items: Iterable[str] | None = None,
    include_themselves: bool = False,
    vector: Iterable[float] | None = None,
    encoder: Encoder | None = None,
    clip: ContainerSource | None = None,
    format: str = "",
    **options: Unpack[QueryOptions],
) -> Call[Ranking]:
    """Ranks the catalogue once against exactly one of: items of it, a vector, a clip (as `ingest` takes it).

    `include_themselves` lets `items` be ranked too, `encoder` says who made `vector`, `format` is for `clip`.
    A clip too large for one message, or of unknown length, goes through RecommendLive; its last ranking is returned.
    """
    wire.known(options, QueryOptions)
    if sum(source is not None for source in (items, vector, clip)) != 1:
        raise TypeError("recommend takes exactly one of items, vector and clip")
    if clip is not None:
        return _recommend_clip(session, container(clip), format, options)
    query = of_items(items, include_themselves) if items is not None else of_vector(vector, encoder)
    request = recommender_pb2.RecommendRequest(tenant=session.tenant, query=query, options=wire.rank(options))
    return unary("recommender.Recommend", request, Ranking.of, timeout=session.timeout_of(options), cheap=True)


def live(
    session: Session, source: ContainerSource, *, format: str = "", **options: Unpack[LiveOptions]
) -> Live[Ranking]:
    """Ranks again and again while a container arrives: a path, bytes, a binary file or an iterable of bytes.

    The call starts with the first step of the iteration; leaving the loop cancels it. Naming the `format`, e.g.
    "mpegts", makes the first ranking come earlier.
    """
    header = _live_header(session, options, container=media_pb2.ContainerForm(format=format))
    packer = Packer(recommender_pb2.RecommendLiveRequest, lambda: header, clip_chunks)
    return _live(Outgoing(packer, container(source).open), options)


def live_frames(
    session: Session, frames: Frames, *, pixel_format: PixelFormat = "rgb24", **options: Unpack[LiveOptions]
) -> Live[Ranking]:
    """Ranks again and again while decoded frames arrive, (seconds, array) as `ingest_frames` takes them.

    The call starts with the first step of the iteration; leaving the loop cancels it.
    """
    packer = FramePacker(recommender_pb2.RecommendLiveRequest, _live_header(session, options), pixel_format)
    return _live(Outgoing(packer, lambda: frames), options)


def live_pictures(session: Session, pictures: Pictures, **options: Unpack[LiveOptions]) -> Live[Ranking]:
    """Ranks again and again while pictures arrive: (seconds, bytes of a JPEG or PNG file).

    The call starts with the first step of the iteration; leaving the loop cancels it.
    """
    header = _live_header(session, options, pictures=media_pb2.PictureForm())
    packer = Packer(recommender_pb2.RecommendLiveRequest, lambda: header, pack_picture)
    return _live(Outgoing(packer, lambda: pictures), options)


def health(session: Session, service: str = "", **options: Unpack[CallOptions]) -> Call[str]:
    """Returns "SERVING" or "NOT_SERVING" for the server, or for one service of it; NotFound if it has no such one."""
    wire.known(options, CallOptions)
    name = health_pb2.HealthCheckResponse.ServingStatus.Name
    request = health_pb2.HealthCheckRequest(service=service)
    return unary(
        "health.Check", request, lambda reply: str(name(reply.status)), timeout=session.timeout_of(options), cheap=True
    )


def of_items(items: Iterable[str], include_themselves: bool) -> recommender_pb2.Query:
    """A query with items of the catalogue."""
    item_ids = wire.words("items", items)
    return recommender_pb2.Query(
        items=recommender_pb2.ItemsQuery(item_ids=item_ids, include_themselves=include_themselves)
    )


def of_vector(vector: Iterable[float] | None, encoder: Encoder | None) -> recommender_pb2.Query:
    """A query with a vector."""
    return recommender_pb2.Query(vector=recommender_pb2.VectorQuery(values=vector, encoder=wire.encoder(encoder)))


def _recommend_clip(session: Session, clip: Source, format: str, options: Mapping[str, Any]) -> Call[Ranking]:
    form = media_pb2.ContainerForm(format=format)
    timeout = session.timeout_of(options)
    repeatable = READ if clip.replayable else ()
    if clip.size is None or clip.size > ONE_MESSAGE:
        header = _live_header(session, {**options, "frames_per_update": NO_UPDATES}, container=form)
        packer = Packer(recommender_pb2.RecommendLiveRequest, lambda: header, clip_chunks)
        return Last(
            method="recommender.RecommendLive",
            outgoing=Outgoing(packer, clip.open),
            read=Ranking.of,
            timeout=timeout,
            repeatable=repeatable,
        )
    media, rank, temporal = wire.media(options, container=form), wire.rank(options), wire.temporal(options)

    def request() -> Message:
        chunks = [media_pb2.MediaChunk(data=piece) for piece in clip.read()]
        query = recommender_pb2.Query(clip=recommender_pb2.ClipQuery(media=media, chunks=chunks, temporal=temporal))
        return recommender_pb2.RecommendRequest(tenant=session.tenant, query=query, options=rank)

    return Unary(
        method="recommender.Recommend",
        request=request,
        read=Ranking.of,
        blocking=True,
        timeout=timeout,
        repeatable=repeatable,
    )


def _live_header(session: Session, options: Mapping[str, Any], **form: Any) -> recommender_pb2.RecommendLiveHeader:
    wire.known(options, LiveOptions)
    return recommender_pb2.RecommendLiveHeader(
        tenant=session.tenant,
        media=wire.media(options, **form),
        options=wire.rank(options),
        latest_only=options.get("latest_only", False),
        temporal=wire.temporal(options),
        resume=options.get("resume", b""),
    )


def _live(outgoing: Outgoing[Any], options: Mapping[str, Any]) -> Live[Ranking]:
    timeout = seconds(options.get("timeout"))
    return Live(method="recommender.RecommendLive", outgoing=outgoing, read=Ranking.of, timeout=timeout)
