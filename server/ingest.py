"""Items into the catalogue: the same content is no work, other content replaces the item as a whole."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import astuple, replace

from matchcut.server.errors import EncoderMismatch, InvalidInput, NotFound
from matchcut.server.intake import Intake
from matchcut.server.pipeline import Job, Pipeline
from matchcut.server.records import (
    Container,
    EncoderIdentity,
    Ingested,
    Item,
    Media,
    MediaReport,
    Segment,
)
from matchcut.server.segments import SegmentBounds
from matchcut.server.vectors import agree, unit


class Ingest:
    """Puts items into the pipeline's catalogue. Safe to be used by several threads at once.

    Args:
        bounds: of an item's segments.
    """

    def __init__(self, pipeline: Pipeline, *, bounds: SegmentBounds) -> None:
        self._pipeline = pipeline
        self._catalog = pipeline.catalog
        self._bounds = bounds

    def media(self, tenant: str, item: Item, media: Media, job: Job, *, declared: bytes = b"") -> Ingested:
        """Puts an item in from its media; what was there stays until the whole new item is durable.

        Args:
            declared: SHA-256 of the container's bytes where the caller knows it, else b"".

        Raises:
            MatchcutError: the media is unreadable or not what was declared, the disk failed, the caller is gone.
        """
        report = MediaReport()
        intake = Intake(media, job.clock, report, hashed=True)
        known = self._catalog.known(tenant, item.item_id)
        if known is not None and known.encoder.digest == self._pipeline.encoder.digest:
            # Of an item that is there the bytes are compared before any work is done on them, if memory allows it.
            if not declared and isinstance(media.form, Container) and intake.spool():
                declared = intake.digest()
            if known.content == self._content(media, declared):
                return self._same(tenant, item, job)
        for segments, _ in self._pipeline.segments(intake.media, report, job, bounds=self._bounds):
            digest = intake.digest()
            if declared and intake.whole and digest != declared:
                raise InvalidInput(
                    "the bytes are not those that content_sha256 names; send the digest of what is sent",
                    reason="CONTENT_MISMATCH",
                    field="header.content_sha256",
                )
            item = replace(item, duration_us=report.duration_us)
            content = self._content(media, digest)
            job.caller.check()
            return self._put(tenant, item, segments, self._pipeline.encoder, content, job, report)
        raise AssertionError("segments() yields at its end")

    def vectors(
        self, tenant: str, item: Item, segments: Sequence[Segment], stated: EncoderIdentity | None, job: Job
    ) -> Ingested:
        """Puts an item in from the caller's vectors, which need not be of unit length.

        Raises:
            MatchcutError: a vector has another length than the encoder's, is zero or not finite; the disk failed.
        """
        encoder = agree(stated, self._pipeline.encoder, segments[0].vector, "segments[0].vector")
        content = hashlib.sha256(b"vectors")
        ready = []
        for at, (span, vector) in enumerate((segment.range, segment.vector) for segment in segments):
            field = f"segments[{at}].vector"
            if len(vector) != encoder.dimensions:
                raise EncoderMismatch(
                    f"{field} has {len(vector)} values, the first one {encoder.dimensions}", field=field
                )
            ready.append(Segment(span, unit(vector, field)))
            content.update(repr(span).encode() + vector.tobytes())
        item = replace(item, duration_us=item.duration_us or max(segment.range.end_us for segment in segments))
        return self._put(tenant, item, ready, encoder, content.digest(), job, None)

    def _put(
        self,
        tenant: str,
        item: Item,
        segments: Sequence[Segment],
        encoder: EncoderIdentity,
        content: bytes,
        job: Job,
        report: MediaReport | None,
    ) -> Ingested:
        """Stores the whole item, durably; the catalogue sees for itself whether this very content is there."""
        with job.clock("store"):
            outcome = self._catalog.put(tenant, item, segments, encoder, content)
            job.clock.note("store", segments=len(segments))
        return Ingested(item, outcome, len(segments), encoder, job.clock.times(), report)

    def _same(self, tenant: str, item: Item, job: Job) -> Ingested:
        """The content is there already: at most the title, uri, tags and attributes are new."""
        with job.clock("store"):
            outcome = self._catalog.update(tenant, item)
            stored = self._catalog.get(tenant, item.item_id)
        if stored is None:
            raise NotFound(f"{item.item_id!r} was removed while it was sent; send it again")
        return Ingested(stored.item, outcome, len(stored.segments), stored.encoder, job.clock.times())

    def _content(self, media: Media, digest: bytes) -> bytes:
        """Names the media together with all that decides what becomes of it."""
        recipe = (
            astuple(media.sampling),
            media.segments,
            media.wanted and astuple(media.wanted),
            astuple(self._bounds),
        )
        return hashlib.sha256(digest + repr(recipe).encode()).digest()
