"""Records to protobuf replies."""

from __future__ import annotations

from matchcut.server.records import (
    Counted,
    EncoderIdentity,
    EventKind,
    Forgotten,
    Ingested,
    Item,
    ItemCounts,
    Match,
    MediaReport,
    Outcome,
    PersonalMatch,
    PersonalRanking,
    Ranking,
    Recorded,
    Segment,
    StageTimes,
    TimeRange,
)
from matchcut.v1 import catalog_pb2, common_pb2, events_pb2, media_pb2, recommender_pb2

OUTCOMES = {
    Outcome.CREATED: catalog_pb2.INGEST_OUTCOME_CREATED,
    Outcome.REPLACED: catalog_pb2.INGEST_OUTCOME_REPLACED,
    Outcome.UNCHANGED: catalog_pb2.INGEST_OUTCOME_UNCHANGED,
    Outcome.UPDATED: catalog_pb2.INGEST_OUTCOME_UPDATED,
}
KINDS = {
    EventKind.IMPRESSION: events_pb2.EVENT_KIND_IMPRESSION,
    EventKind.CLICK: events_pb2.EVENT_KIND_CLICK,
    EventKind.WATCH: events_pb2.EVENT_KIND_WATCH,
    EventKind.LIKE: events_pb2.EVENT_KIND_LIKE,
    EventKind.DISLIKE: events_pb2.EVENT_KIND_DISLIKE,
    EventKind.SKIP: events_pb2.EVENT_KIND_SKIP,
    EventKind.SAVE: events_pb2.EVENT_KIND_SAVE,
    EventKind.SHARE: events_pb2.EVENT_KIND_SHARE,
    EventKind.PURCHASE: events_pb2.EVENT_KIND_PURCHASE,
}


def time_range(span: TimeRange) -> common_pb2.TimeRange:
    """A stretch of time."""
    return common_pb2.TimeRange(start_us=span.start_us, end_us=span.end_us)


def encoder(identity: EncoderIdentity) -> common_pb2.Encoder:
    """An encoder's identity."""
    return common_pb2.Encoder(
        name=identity.name, version=identity.version, digest=identity.digest, dimensions=identity.dimensions
    )


def times(taken: StageTimes) -> common_pb2.StageTimes:
    """Where the time went."""
    stages = [
        common_pb2.Stage(name=s.name, wall_us=s.wall_us, cpu_us=s.cpu_us, variant=s.variant, counts=s.counts)
        for s in taken.stages
    ]
    return common_pb2.StageTimes(stages=stages, total_us=taken.total_us)


def report(found: MediaReport | None) -> media_pb2.MediaReport | None:
    """What was found in the media."""
    if found is None:
        return None
    return media_pb2.MediaReport(
        bytes=found.bytes,
        frames_seen=found.frames_seen,
        frames_used=found.frames_used,
        frames_reused=found.frames_reused,
        frames_blank=found.frames_blank,
        frames_dropped=found.frames_dropped,
        duration_us=found.duration_us,
        truncated=found.truncated,
        container=found.container,
        codec=found.codec,
        width=found.width,
        height=found.height,
        max_time_error_us=found.max_time_error_us,
        warnings=[media_pb2.MediaWarning(reason=w.reason, message=w.message) for w in found.warnings],
    )


def item(stored: Item) -> catalog_pb2.Item:
    """An item without its segments."""
    return catalog_pb2.Item(
        item_id=stored.item_id,
        title=stored.title,
        uri=stored.uri,
        tags=stored.tags,
        attributes=stored.attributes,
        duration_us=stored.duration_us,
    )


def segment(stored: Segment, *, vector: bool) -> catalog_pb2.Segment:
    """A segment, with its vector where asked for."""
    values = stored.vector.tolist() if vector else ()
    return catalog_pb2.Segment(range=time_range(stored.range), vector=values)


def ingested(done: Ingested) -> catalog_pb2.IngestResponse:
    """What an ingest kept."""
    return catalog_pb2.IngestResponse(
        item=item(done.item),
        outcome=OUTCOMES[done.outcome],
        segment_count=done.segment_count,
        encoder=encoder(done.encoder),
        times=times(done.times),
        report=report(done.report),
    )


def match(found: Match) -> recommender_pb2.Match:
    """One ranked item."""
    return recommender_pb2.Match(
        item=item(found.item),
        score=found.score,
        item_range=time_range(found.item_range),
        query_range=time_range(found.query_range),
        query_item_id=found.query_item_id,
    )


def ranking(found: Ranking) -> recommender_pb2.RecommendResponse:
    """A ranked list."""
    return recommender_pb2.RecommendResponse(
        matches=[match(one) for one in found.matches],
        revision=found.revision,
        final=found.final,
        encoder=encoder(found.encoder),
        times=times(found.times),
        report=report(found.report),
        resume=found.resume,
    )


def user_match(found: PersonalMatch) -> recommender_pb2.UserMatch:
    """One item of a user's list."""
    why = found.reason
    shares = [recommender_pb2.SignalShare(signal=signal, share=share) for signal, share in why.shares.items()]
    return recommender_pb2.UserMatch(
        item=item(found.item),
        score=found.score,
        reason=recommender_pb2.Reason(nearest_item_id=why.nearest_item_id, similarity=why.similarity, shares=shares),
        propensity=found.propensity,
    )


def personal(
    found: PersonalRanking, *, revision: int = 1, final: bool = True, event_id: str = ""
) -> recommender_pb2.RecommendForUserResponse:
    """A user's list; its revision, whether it is the last and which event it answers are the call's to say."""
    model, assigned = found.model, found.assignment
    variant = recommender_pb2.Variant(experiment=assigned.experiment, name=assigned.variant)
    return recommender_pb2.RecommendForUserResponse(
        matches=[user_match(one) for one in found.matches],
        recommendation_id=found.recommendation_id,
        variant=variant if assigned.experiment else None,
        model=recommender_pb2.SessionModel(
            name=model.name, version=model.version, digest=model.digest, dimensions=model.dimensions
        ),
        encoder=encoder(found.encoder),
        cold=found.cold,
        events=found.events,
        revision=revision,
        final=final,
        times=times(found.times),
        report=report(found.report),
        event_id=event_id,
    )


def recorded(done: Recorded) -> events_pb2.RecordEventsResponse:
    """What became of events."""
    return events_pb2.RecordEventsResponse(
        recorded=done.recorded,
        duplicates=done.duplicates,
        unknown_items=done.unknown_items,
        expired=done.expired,
        times=times(done.times),
    )


def forgotten(done: Forgotten) -> events_pb2.ForgetUserResponse:
    """A receipt."""
    receipt = done.receipt
    return events_pb2.ForgetUserResponse(
        events=receipt.events,
        exposures=receipt.exposures,
        time_us=receipt.time_us,
        digest=receipt.digest,
        times=times(done.times),
    )


def counted(found: Counted) -> events_pb2.CountEventsResponse:
    """How many users did what."""
    return events_pb2.CountEventsResponse(
        items=[item_count(one) for one in found.items], threshold=found.threshold, times=times(found.times)
    )


def item_count(found: ItemCounts) -> events_pb2.ItemCount:
    """The same of one item; kinds that nobody did are left out."""
    kinds = [
        events_pb2.KindCount(kind=KINDS[kind], users=users)
        for kind, users in sorted(found.kinds.items(), key=_order)
        if users
    ]
    return events_pb2.ItemCount(item_id=found.item_id, users=found.users, kinds=kinds)


def _order(entry: tuple[EventKind, int]) -> int:
    return KINDS[entry[0]]
