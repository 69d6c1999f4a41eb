"""Records to protobuf replies."""

from __future__ import annotations

from matchcut.server.records import (
    EncoderIdentity,
    Ingested,
    Item,
    Match,
    MediaReport,
    Outcome,
    Ranking,
    Segment,
    StageTimes,
    TimeRange,
)
from matchcut.v1 import catalog_pb2, common_pb2, media_pb2, recommender_pb2

OUTCOMES = {
    Outcome.CREATED: catalog_pb2.INGEST_OUTCOME_CREATED,
    Outcome.REPLACED: catalog_pb2.INGEST_OUTCOME_REPLACED,
    Outcome.UNCHANGED: catalog_pb2.INGEST_OUTCOME_UNCHANGED,
    Outcome.UPDATED: catalog_pb2.INGEST_OUTCOME_UPDATED,
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
