"""The operations of the Catalog service, written once: arguments in, a described call out."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias, Unpack

from google.protobuf.message import Message

from matchcut.client import options as wire
from matchcut.client.calls import Call, Pages, Upload, unary
from matchcut.client.options import CallOptions, IngestOptions, ListOptions, VectorOptions
from matchcut.client.packing import FramePacker, Outgoing, Packer, PixelFormat, clip_chunks, pack_picture
from matchcut.client.results import Encoder, Ingested, Item, Page, StoredItem, Switched
from matchcut.client.retry import READ, REFUSED, Repeatable
from matchcut.client.session import Session
from matchcut.client.sources import ContainerSource, Meter, Progress, container
from matchcut.v1 import catalog_pb2, media_pb2

Frames: TypeAlias = Iterable[tuple[float, Any]] | AsyncIterable[tuple[float, Any]]
Pictures: TypeAlias = Iterable[tuple[float, bytes]] | AsyncIterable[tuple[float, bytes]]


def ingest(
    session: Session,
    item_id: str,
    source: ContainerSource,
    *,
    format: str = "",
    progress: Progress | None = None,
    **options: Unpack[IngestOptions],
) -> Call[Ingested]:
    """Puts one item in from a container: a path, bytes, a binary file or an iterable of bytes.

    Paths and bytes are hashed first, so an item that is there already costs no upload. `format` is the container's
    short name, "" to detect it. `progress(sent, total)` is called as bytes leave; total is None where it is unknown.
    """
    media = container(source)
    header = _header(session, item_id, options, container=media_pb2.ContainerForm(format=format))

    def with_digest() -> Message:
        if not options.get("max_bytes"):  # of a part the server could not tell whether the digest is right
            header.content_sha256 = media.sha256()
        return header

    packer = Packer(catalog_pb2.IngestRequest, with_digest, clip_chunks)
    outgoing = Outgoing(packer, media.open, Meter(progress, media.size))
    return _upload(session, outgoing, options, repeatable=READ if media.replayable else ())


def ingest_frames(
    session: Session,
    item_id: str,
    frames: Frames,
    *,
    pixel_format: PixelFormat = "rgb24",
    **options: Unpack[IngestOptions],
) -> Call[Ingested]:
    """Puts one item in from decoded frames: (seconds, uint8 array), all of one size.

    The arrays have the shape (height, width, 3) for rgb24 and bgr24, (height, width) for gray8 and
    (height * 3 / 2, width) for i420 and nv12.
    """
    packer = FramePacker(catalog_pb2.IngestRequest, _header(session, item_id, options), pixel_format)
    return _upload(session, Outgoing(packer, lambda: frames), options)


def ingest_pictures(
    session: Session, item_id: str, pictures: Pictures, **options: Unpack[IngestOptions]
) -> Call[Ingested]:
    """Puts one item in from pictures: (seconds, bytes of a JPEG or PNG file)."""
    header = _header(session, item_id, options, pictures=media_pb2.PictureForm())
    packer = Packer(catalog_pb2.IngestRequest, lambda: header, pack_picture)
    return _upload(session, Outgoing(packer, lambda: pictures), options)


def ingest_vectors(
    session: Session,
    item_id: str,
    segments: Iterable[tuple[tuple[float, float] | None, Iterable[float]]],
    *,
    encoder: Encoder | None = None,
    **options: Unpack[VectorOptions],
) -> Call[Ingested]:
    """Puts one item in from vectors: ((start, end) in seconds or None where unknown, vector) for each segment."""
    wire.known(options, VectorOptions)
    request = catalog_pb2.IngestVectorsRequest(
        tenant=session.tenant,
        item=wire.item(item_id, options),
        segments=[
            catalog_pb2.Segment(range=wire.time_range(*ends) if ends else None, vector=vector)
            for ends, vector in segments
        ],
        encoder=wire.encoder(encoder),
        for_next_encoder=options.get("for_next_encoder", False),
    )
    return unary("catalog.IngestVectors", request, Ingested.of, timeout=session.timeout_of(options))


def get(session: Session, item_id: str, *, vectors: bool = False, **options: Unpack[CallOptions]) -> Call[StoredItem]:
    """Returns one item with its segments, and their vectors if asked for. NotFound if there is none."""
    wire.known(options, CallOptions)
    request = catalog_pb2.GetItemRequest(tenant=session.tenant, item_id=item_id, include_vectors=vectors)
    return unary("catalog.GetItem", request, StoredItem.of, timeout=session.timeout_of(options), cheap=True)


def page(session: Session, *, size: int = 0, token: str = "", **options: Unpack[ListOptions]) -> Call[Page]:
    """Returns some of the tenant's items in the order of their ids; `token` is the `next` of the page before."""
    return _page(_listing(session, size, options), token, session.timeout_of(options))


def items(session: Session, *, page_size: int = 0, **options: Unpack[ListOptions]) -> Pages[Item]:
    """Iterates over the tenant's items in the order of their ids, asking for pages as they are needed."""
    listing = _listing(session, page_size, options)
    return Pages(lambda token: _page(listing, token, session.timeout_of(options)))


def remove(session: Session, item_id: str, *, missing_ok: bool = False, **options: Unpack[CallOptions]) -> Call[bool]:
    """Removes one item and returns True. NotFound if there is none; with `missing_ok` False is returned instead."""
    wire.known(options, CallOptions)
    request = catalog_pb2.RemoveItemRequest(tenant=session.tenant, item_id=item_id, allow_missing=missing_ok)
    timeout = session.timeout_of(options)
    return unary("catalog.RemoveItem", request, lambda reply: bool(reply.removed), timeout=timeout, repeatable=REFUSED)


def switch_encoder(
    session: Session, *, force: bool = False, dry_run: bool = False, **options: Unpack[CallOptions]
) -> Call[Switched]:
    """Lets the server's next encoder take over, for the items of all tenants; with `dry_run` only tells how it stands.

    FailedPrecondition if there is no next encoder, or if items lack its vectors; with `force` those stay as they are.
    """
    wire.known(options, CallOptions)
    request = catalog_pb2.SwitchEncoderRequest(force=force, dry_run=dry_run)
    timeout, repeatable = session.timeout_of(options), READ if dry_run else REFUSED
    return unary("catalog.SwitchEncoder", request, Switched.of, timeout=timeout, repeatable=repeatable)


def _header(session: Session, item_id: str, options: Mapping[str, Any], **form: Any) -> catalog_pb2.IngestHeader:
    wire.known(options, IngestOptions)
    item = wire.item(item_id, options)
    media, ahead = wire.media(options, **form), options.get("for_next_encoder", False)
    return catalog_pb2.IngestHeader(tenant=session.tenant, item=item, media=media, for_next_encoder=ahead)


def _upload(
    session: Session, outgoing: Outgoing[Any], options: Mapping[str, Any], repeatable: Repeatable = ()
) -> Call[Ingested]:
    timeout = session.timeout_of(options)
    outgoing = replace(outgoing, end=(catalog_pb2.IngestRequest(end=catalog_pb2.IngestEnd()),))
    return Upload(method="catalog.Ingest", outgoing=outgoing, read=Ingested.of, timeout=timeout, repeatable=repeatable)


def _listing(session: Session, size: int, options: Mapping[str, Any]) -> catalog_pb2.ListItemsRequest:
    wire.known(options, ListOptions)
    tags, lacking = wire.tag_filter(options), options.get("lacking_next_encoder", False)
    return catalog_pb2.ListItemsRequest(tenant=session.tenant, page_size=size, tags=tags, lacking_next_encoder=lacking)


def _page(listing: catalog_pb2.ListItemsRequest, token: str, timeout: float | None) -> Call[Page]:
    request = catalog_pb2.ListItemsRequest(page_token=token)
    request.MergeFrom(listing)
    return unary("catalog.ListItems", request, Page.of, timeout=timeout, cheap=True)
