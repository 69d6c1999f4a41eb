"""The operations on events and users, written once: arguments in, a described call out."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Unpack

from google.protobuf.message import Message

from matchcut.client import options as wire
from matchcut.client.calls import Batches, Call, Unary, unary
from matchcut.client.catalog import Frames, Pictures
from matchcut.client.event_packing import Events, each, pack
from matchcut.client.options import CallOptions, UserLiveOptions, UserQueryOptions
from matchcut.client.packing import FramePacker, Outgoing, Packer, PixelFormat, clip_chunks, pack_picture
from matchcut.client.recommender import of_items, of_vector
from matchcut.client.results import Encoder
from matchcut.client.retry import READ, REFUSED
from matchcut.client.session import Session, seconds
from matchcut.client.sources import ContainerSource, Source, container
from matchcut.client.user_results import Event, EventCounts, Receipt, Recorded, UserRanking
from matchcut.v1 import events_pb2, media_pb2, recommender_pb2

BATCH = 500  # events a call


def record(
    session: Session,
    events: Events,
    *,
    progress: Callable[[Recorded], object] | None = None,
    **options: Unpack[CallOptions],
) -> Batches[Recorded]:
    """Records events, each an Event or a mapping of its fields; returns how many are new, known, of unknown items.

    One event may come without a list around it. They go out in calls of 500, each durable when it is
    answered; `progress(so_far)` is told after each. Where one fails, those before it are kept. All of them may be
    recorded again: what is there already changes nothing.
    """
    wire.known(options, CallOptions)
    timeout, tenant = session.timeout_of(options), session.tenant

    def calls() -> Iterator[Call[Recorded]]:
        packed = map(pack, each(events))
        while batch := list(islice(packed, BATCH)):
            request = events_pb2.RecordEventsRequest(tenant=tenant, events=batch)
            yield unary("events.RecordEvents", request, Recorded.of, timeout=timeout)

    return Batches(calls(), Recorded(), progress)


def forget(session: Session, user: str, **options: Unpack[CallOptions]) -> Call[Receipt]:
    """Deletes all that the server keeps of a user. Counts of 0 tell that there was nothing."""
    wire.known(options, CallOptions)
    request = events_pb2.ForgetUserRequest(tenant=session.tenant, user_id=user)
    timeout = session.timeout_of(options)
    return unary("events.ForgetUser", request, Receipt.of, timeout=timeout, repeatable=REFUSED)


def count_events(
    session: Session, items: Iterable[str] | None = None, *, limit: int = 0, **options: Unpack[CallOptions]
) -> Call[EventCounts]:
    """Returns how many users did what with these items, or with the `limit` items that have the most users."""
    wire.known(options, CallOptions)
    item_ids = wire.words("items", () if items is None else items)
    request = events_pb2.CountEventsRequest(tenant=session.tenant, item_ids=item_ids, limit=limit)
    return unary("events.CountEvents", request, EventCounts.of, timeout=session.timeout_of(options), cheap=True)


def recommend_for(
    session: Session,
    user: str = "",
    *,
    history: Events = (),
    items: Iterable[str] | None = None,
    include_themselves: bool = False,
    vector: Iterable[float] | None = None,
    encoder: Encoder | None = None,
    clip: ContainerSource | None = None,
    format: str = "",
    **options: Unpack[UserQueryOptions],
) -> Call[UserRanking]:
    """Returns what a user should see now, of what the user did and of what is of interest right now.

    The current interest is at most one of `items`, `vector` and `clip`, as `recommend` takes them; a clip goes in one
    message. With a `history`, events whose `user` may be "" or, in a mapping, left out, nothing that the server keeps
    of the user is used and nothing of the call is kept.
    """
    wire.known(options, UserQueryOptions)
    if sum(source is not None for source in (items, vector, clip)) > 1:
        raise TypeError("recommend_for takes at most one of items, vector and clip")
    request = recommender_pb2.RecommendForUserRequest(
        tenant=session.tenant,
        user_id=user,
        options=wire.rank(options),
        user_options=wire.user(options),
        history=(pack(event, anonymous=True) for event in each(history)),
    )
    timeout = session.timeout_of(options)
    if clip is not None:
        source = container(clip)
        return Unary(
            method="recommender.RecommendForUser",
            request=_with_clip(request, source, format, options),
            read=UserRanking.of,
            blocking=True,
            timeout=timeout,
            repeatable=READ if source.replayable else (),
        )
    if items is not None:
        request.current.CopyFrom(of_items(items, include_themselves))
    elif vector is not None:
        request.current.CopyFrom(of_vector(vector, encoder))
    return unary("recommender.RecommendForUser", request, UserRanking.of, timeout=timeout)


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A live list: messages go out as things happen, lists come back.

    outgoing: the header, and where there is live media all of it. media: whether there is.
    """

    method: str
    outgoing: Outgoing[Any]
    media: bool
    timeout: float | None

    def event(self, event: Event) -> tuple[Message, str]:
        """The message that tells of an event, and its id: each has one, by which its answer is told from others."""
        named = event if event.id else replace(event, id=uuid.uuid4().hex)
        return recommender_pb2.RecommendForUserLiveRequest(event=pack(named)), named.id


def recommend_live_for(
    session: Session,
    user: str,
    *,
    clip: ContainerSource | None = None,
    format: str = "",
    frames: Frames | None = None,
    pixel_format: PixelFormat = "rgb24",
    pictures: Pictures | None = None,
    **options: Unpack[UserLiveOptions],
) -> Dialogue:
    """A user's list that follows what the user does; use it in a `with` statement (AsyncClient: `async with`).

    `event()` tells what the user did and returns the list after it; iterating gives all other lists. Live media may be
    of interest meanwhile: one of `clip`, `frames` and `pictures`, as `live`, `live_frames` and `live_pictures` take
    them. Its end is the end of the call.
    """
    wire.known(options, UserLiveOptions)
    if sum(media is not None for media in (clip, frames, pictures)) > 1:
        raise TypeError("recommend_live_for takes at most one of clip, frames and pictures")
    header = recommender_pb2.RecommendForUserLiveHeader(
        tenant=session.tenant, user_id=user, options=wire.rank(options), user_options=wire.user(options)
    )
    request = recommender_pb2.RecommendForUserLiveRequest
    if frames is not None:
        header.media.CopyFrom(wire.media(options))
        outgoing: Outgoing[Any] = Outgoing(FramePacker(request, header, pixel_format), lambda: frames)
    elif pictures is not None:
        header.media.CopyFrom(wire.media(options, pictures=media_pb2.PictureForm()))
        outgoing = Outgoing(Packer(request, lambda: header, pack_picture), lambda: pictures)
    elif clip is not None:
        header.media.CopyFrom(wire.media(options, container=media_pb2.ContainerForm(format=format)))
        outgoing = Outgoing(Packer(request, lambda: header, clip_chunks), container(clip).open)
    else:
        outgoing = Outgoing(Packer(request, lambda: header, clip_chunks), tuple)
    media = frames is not None or pictures is not None or clip is not None
    return Dialogue("recommender.RecommendForUserLive", outgoing, media, seconds(options.get("timeout")))


def _with_clip(
    request: recommender_pb2.RecommendForUserRequest, clip: Source, format: str, options: Mapping[str, Any]
) -> Callable[[], Message]:
    """Makes the request with a clip, which reads it."""
    media, temporal = wire.media(options, container=media_pb2.ContainerForm(format=format)), wire.temporal(options)

    def made() -> Message:
        pieces = clip.open()
        if not isinstance(pieces, Iterable):
            raise TypeError("the clip of recommend_for comes from an ordinary iterable")
        chunks = [chunk for piece in pieces for chunk in clip_chunks(piece)]
        query = recommender_pb2.ClipQuery(media=media, chunks=chunks, temporal=temporal)
        whole = recommender_pb2.RecommendForUserRequest(current=recommender_pb2.Query(clip=query))
        whole.MergeFrom(request)
        return whole

    return made
