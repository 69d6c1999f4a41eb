"""Items into the catalogue: the same content is no work, other content replaces the item as a whole."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace

from matchcut.server.catalog import Known
from matchcut.server.errors import EncoderMismatch, InvalidInput, NotFound, Unavailable
from matchcut.server.ingest.recipe import VECTORS, Recipe
from matchcut.server.ingest.takeover import Pipelines
from matchcut.server.intake import Intake
from matchcut.server.job import Job
from matchcut.server.pipeline import Pipeline
from matchcut.server.records import (
    Container,
    EncoderIdentity,
    Ingested,
    Item,
    Media,
    MediaReport,
    Outcome,
    Segment,
)
from matchcut.server.segments import SegmentBounds
from matchcut.server.tagging import Tagger, Tags, kept, merged
from matchcut.server.vectors import agree, unit

__all__ = ["Ingest"]

log = logging.getLogger("matchcut.catalog")


class Ingest:
    """Puts items into the catalogue. Safe to be used by several threads at once.

    Args:
        bounds: of an item's segments.
        tagger: gives items tags from what their media shows, beside those that callers give. Items whose content is
            there already keep the tags that were found then.
    """

    def __init__(self, pipelines: Pipelines, *, bounds: SegmentBounds, tagger: Tagger | None = None) -> None:
        self._pipelines = pipelines
        self._catalog = pipelines.catalog
        self._bounds = bounds
        self._tagger = tagger

    def media(self, tenant: str, item: Item, media: Media, job: Job, *, declared: bytes = b"") -> Ingested:
        """Puts an item in from its media; what was there stays until the whole new item is durable.

        Args:
            declared: SHA-256 of the container's bytes where the caller knows it, else b"".

        Raises:
            MatchcutError: the media is unreadable or not what was declared, the disk failed, the caller is gone.
        """
        pipeline, recipe, report = self._pipelines.now, Recipe.of(media, self._bounds), MediaReport()
        intake = Intake(media, job.clock, report, hashed=True)
        known = self._catalog.known(tenant, item.item_id)
        if known is not None and known.encoder.digest == pipeline.encoder.digest:
            # Of an item that is there the bytes are compared before any work is done on them, if memory allows it.
            if not declared and isinstance(media.form, Container) and intake.spool():
                declared = intake.digest()
            if known.content == recipe.content(declared):
                if self._tagger is not None:
                    item = replace(item, tags=merged(item.tags, kept(known.item.tags)))
                return self._same(tenant, item, job)
        tags = None if self._tagger is None else self._tagger.begin()
        segments = _segments(pipeline, intake, recipe, report, job, tags)
        digest = intake.digest()
        if declared and intake.whole and digest != declared:
            raise InvalidInput(
                "the bytes are not those that content_sha256 names; send the digest of what is sent",
                reason="CONTENT_MISMATCH",
                field="header.content_sha256",
            )
        job.caller.check()
        if tags is not None:
            with job.clock("tag"):
                item = replace(item, tags=merged(item.tags, tags.result()))
                job.clock.note("tag", frames=tags.frames)
        known = Known(replace(item, duration_us=report.duration_us), pipeline.encoder, recipe.content(digest))
        return self._put(tenant, replace(known, recipe=recipe.text()), segments, job, report)

    def media_ahead(self, tenant: str, item_id: str, media: Media, job: Job, *, declared: bytes = b"") -> Ingested:
        """Keeps aside what the next encoder makes of an item's media, which is read as it was for the item.

        Args:
            declared: as in media().

        Raises:
            NotFound: there is no such item.
            EncoderMismatch: there is no next encoder (NO_NEXT_ENCODER), the item came as vectors
                (ITEM_WITHOUT_MEDIA), this is not its media (OTHER_MEDIA), or it was replaced meanwhile (ITEM_CHANGED).
            MatchcutError: as in media().
        """
        pipeline, known, report = self._pipelines.following(), self._known(tenant, item_id), MediaReport()
        if known.recipe == VECTORS:
            raise EncoderMismatch(
                f"{item_id!r} came as vectors, so that there is no media to encode anew; send vectors of "
                f"{pipeline.encoder.name!r} for it",
                reason="ITEM_WITHOUT_MEDIA",
                field="header.item.item_id",
            )
        recipe = Recipe.parse(known.recipe) or Recipe.of(media, self._bounds)  # of older items it is not known
        media = recipe.applied(media)
        intake = Intake(media, job.clock, report, hashed=True)
        if media.wanted is not None and media.wanted.bytes:
            declared = b""  # it would be of all the bytes, the item is of some
        if not declared and isinstance(media.form, Container) and intake.spool():
            declared = intake.digest()
        if declared:
            _agree(item_id, recipe.content(declared), known)
            if not self._catalog.lacks(tenant, item_id, pipeline.encoder):
                return _ahead(known, Outcome.UNCHANGED, 0, pipeline.encoder, job)
        segments = _segments(pipeline, intake, recipe, report, job)
        _agree(item_id, recipe.content(intake.digest()), known)
        job.caller.check()
        made = replace(known, encoder=pipeline.encoder, recipe=recipe.text())
        return self._stage(tenant, made, known, segments, job, report)

    def vectors(
        self,
        tenant: str,
        item: Item,
        segments: Sequence[Segment],
        stated: EncoderIdentity | None,
        job: Job,
        *,
        ahead: bool = False,
    ) -> Ingested:
        """Puts an item in from the caller's vectors, which need not be of unit length.

        Args:
            ahead: they are the next encoder's, and kept aside for an item that is there.

        Raises:
            MatchcutError: a vector has another length than the encoder's, is zero or not finite; the disk failed;
                there is no such item or no next encoder.
        """
        pipeline = self._pipelines.following() if ahead else self._pipelines.now
        encoder = agree(stated, pipeline.encoder, segments[0].vector, "segments[0].vector")
        if ahead and encoder != pipeline.encoder:
            raise EncoderMismatch(
                f"these are vectors of {encoder.name!r}; the next encoder is {pipeline.encoder.name!r}: send its own",
                field="encoder",
            )
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
        made = Known(item, encoder, content.digest(), VECTORS)
        if ahead:
            return self._stage(tenant, made, self._known(tenant, item.item_id), ready, job, None)
        return self._put(tenant, made, ready, job, None)

    def _known(self, tenant: str, item_id: str) -> Known:
        known = self._catalog.known(tenant, item_id)
        if known is None:
            raise NotFound(f"there is no item {item_id!r}; ingest it first", field="item.item_id")
        return known

    def _put(
        self, tenant: str, made: Known, segments: Sequence[Segment], job: Job, report: MediaReport | None
    ) -> Ingested:
        """Stores the whole item, durably; the catalogue sees for itself whether this very content is there."""
        if report is not None and made.encoder != self._pipelines.now.encoder:
            taken = self._pipelines.now.encoder.name
            raise Unavailable(
                f"the encoder {taken!r} took over while {made.item.item_id!r} was on its way; send it again",
                reason="ENCODER_SWITCHED",
            )
        job.end_turn()
        with job.clock("store"):
            outcome = self._catalog.put(tenant, made.item, segments, made.encoder, made.content, made.recipe)
            job.clock.note("store", segments=len(segments))
        if report is not None and made.encoder != self._pipelines.now.encoder:
            log.warning(
                "%r of tenant %r was on its way while %r took over: its vectors are of %r, and it is not ranked until "
                "it is put in again",
                *(made.item.item_id, tenant, self._pipelines.now.encoder.name, made.encoder.name),
            )
        return Ingested(made.item, outcome, len(segments), made.encoder, job.clock.times(), report)

    def _stage(
        self,
        tenant: str,
        made: Known,
        present: Known,
        segments: Sequence[Segment],
        job: Job,
        report: MediaReport | None,
    ) -> Ingested:
        """Keeps vectors aside, durably, for the item as it is."""
        item_id, encoder = present.item.item_id, made.encoder
        job.end_turn()
        with job.clock("store"):
            outcome = self._catalog.stage(
                tenant, item_id, segments, encoder, made.content, made.recipe, of=present.content
            )
            job.clock.note("store", segments=len(segments))
        return _ahead(present, outcome, len(segments), encoder, job, report)

    def _same(self, tenant: str, item: Item, job: Job) -> Ingested:
        """The content is there already: at most the title, uri, tags and attributes are new."""
        with job.clock("store"):
            outcome = self._catalog.update(tenant, item)
            stored = self._catalog.get(tenant, item.item_id)
        if stored is None:
            raise NotFound(f"{item.item_id!r} was removed while it was sent; send it again")
        return Ingested(stored.item, outcome, len(stored.segments), stored.encoder, job.clock.times())


def _segments(
    pipeline: Pipeline, intake: Intake, recipe: Recipe, report: MediaReport, job: Job, tags: Tags | None = None
) -> tuple[Segment, ...]:
    """All of the media's segments."""
    shown = None if tags is None else tags.add
    for segments, _ in pipeline.segments(intake.media, report, job, bounds=recipe.bounds, shown=shown):
        return segments
    raise AssertionError("segments() yields at its end")


def _agree(item_id: str, content: bytes, known: Known) -> None:
    """Refuses media that is not the item's own."""
    if content != known.content:
        asked = "" if known.recipe else ", read with the options with which it was put in"
        raise EncoderMismatch(
            f"this is not the media that {item_id!r} was made of; send that{asked}, or put the item in anew",
            reason="OTHER_MEDIA",
            field="header.item.item_id",
        )


def _ahead(
    known: Known, outcome: Outcome, count: int, encoder: EncoderIdentity, job: Job, report: MediaReport | None = None
) -> Ingested:
    return Ingested(known.item, outcome, count, encoder, job.clock.times(), report)
