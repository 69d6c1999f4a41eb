"""The sentence that matchcut exists for: decode, preprocess, encode, segment, pool, rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from matchcut.kernels.device import Device
from matchcut.kernels.topk import Ranked
from matchcut.server.catalog import Edition, View
from matchcut.server.clock import Clock
from matchcut.server.encode import Encoding
from matchcut.server.engines import Engine
from matchcut.server.errors import EncoderMismatch, EngineFailed, InvalidInput, NotFound, UnreadableMedia
from matchcut.server.frames import frames_and_cuts
from matchcut.server.intake import Intake
from matchcut.server.job import Job
from matchcut.server.records import (
    Cut,
    Embedding,
    EncoderIdentity,
    Frame,
    ItemsQuery,
    Match,
    Media,
    MediaReport,
    Pixels,
    Query,
    Ranking,
    RankOptions,
    Segment,
    ShotMode,
    Temporal,
    TimeRange,
    VectorQuery,
)
from matchcut.server.recurrence import Recurrence, Stream
from matchcut.server.segments import SegmentBounds, Segmenter
from matchcut.server.sight import Sight
from matchcut.server.vectors import agree, unit


@dataclass(frozen=True, slots=True)
class Question:
    """What the catalogue is compared with, as far as it is known.

    item_ids: for each segment the item that it comes from; empty where it comes from none. resume: see Ranking.
    """

    segments: tuple[Segment, ...]
    final: bool
    report: MediaReport | None = None
    item_ids: tuple[str, ...] = ()
    resume: bytes = b""


Questions = Generator[Question, None, None]


def showing(
    events: Generator[Frame | Cut, None, None], shown: Callable[[Pixels], None], clock: Clock
) -> Generator[Frame | Cut, None, None]:
    """The same events; each frame is shown first."""
    with closing(events):
        for event in events:
            if isinstance(event, Frame):
                with clock("tag"):
                    shown(event.rgb)
            yield event


def once(question: Question) -> Questions:
    """A question that is known at once."""
    yield question


class Pipeline:
    """Takes media in and gives ranked items out. Safe to be used by several threads at once.

    Args:
        sight: of the engine, which all requests share.
        recurrence: of its embeddings.
        catalog: the edition that its encoder belongs to.
        batch: frames of one request in one run of the engine at most.
        still: see stills.StillGate.
        bounds: of the segments of a clip that is asked with.
        item_segments: most segments, together, of items that are asked with.
        ranked: told of each ranking and how many seconds it took.
    """

    def __init__(
        self,
        engine: Engine,
        sight: Sight,
        recurrence: Recurrence,
        device: Device,
        catalog: Edition,
        *,
        batch: int,
        still: float,
        bounds: SegmentBounds,
        item_segments: int,
        ranked: Callable[[Ranked, float], None] | None = None,
    ) -> None:
        self.catalog = catalog
        self.encoder = engine.encoder.identity
        self._size = engine.encoder.input
        self._device = device
        self._recurrence = recurrence
        self._bounds = bounds
        self._item_segments = item_segments
        self._ranked = ranked
        self._encode = Encoding(sight, batch=batch, still=still)

    def recommend(self, tenant: str, query: Query, options: RankOptions, job: Job) -> Iterator[Ranking]:
        """Ranked lists that improve while media arrives; the last is final. One catalogue version throughout.

        Raises:
            MatchcutError: the query is malformed, its media unreadable, an item missing, the caller gone.
        """
        encoder, questions = self.understand(tenant, query, options, job)
        view = self.catalog.view(tenant, encoder)
        if not view.count and encoder.digest != self.encoder.digest:
            raise EncoderMismatch(
                f"the catalogue holds no vectors of the encoder {encoder.name!r}; name one that made some of its items",
                field="query.vector.encoder",
            )
        if isinstance(query, ItemsQuery) and not query.include_themselves:
            options = replace(options, exclude=options.exclude | frozenset(query.item_ids))
        with closing(questions):  # what they hold is freed with the request, not when the garbage is collected
            for revision, question in enumerate(questions, start=1):
                matches = self._rank(question, view, options, job)
                times = job.clock.times()
                yield Ranking(matches, revision, question.final, encoder, times, question.report, question.resume)

    def segments(
        self,
        media: Media,
        report: MediaReport,
        job: Job,
        *,
        bounds: SegmentBounds,
        every: int = 0,
        shown: Callable[[Pixels], None] | None = None,
    ) -> Generator[tuple[tuple[Segment, ...], bool], None, None]:
        """The media's pooled segments so far: after its first frame and every so many more, and at the end (True).

        Args:
            report: filled while the media is read.
            every: frames between two looks at what there is; 0: only at the end.
            shown: is given each frame that is used, (height, width, 3) uint8 of the encoder's size; counts as "tag".

        Raises:
            MatchcutError: the media is unreadable or exceeds a limit, the engine failed, the caller is gone.
        """
        segmenter = Segmenter(bounds, media.segments)
        frames = 0
        with closing(self._see(media, report, job, shown)) as seen:
            for event in seen:
                job.check()
                with job.clock("segment"):
                    if isinstance(event, Cut):
                        segmenter.cut(event.time_us)
                        continue
                    segmenter.frame(event.time_us, event.vector)
                frames += 1
                report.frames_dropped = job.dropped()
                if every and frames % every == 1 % every:
                    yield self._pool(segmenter, event.time_us + 1, job.clock), False
        if not frames:
            raise UnreadableMedia("no frame came in; send at least one")
        report.frames_dropped = job.dropped()
        pooled = self._pool(segmenter, report.duration_us, job.clock)
        if not pooled:
            raise UnreadableMedia("no frame lies in the given segments; check their times", field="media.segments")
        yield pooled, True

    def understand(
        self, tenant: str, query: Query, options: RankOptions, job: Job, *, field: str = "query"
    ) -> tuple[EncoderIdentity, Questions]:
        """In which encoder's vectors the query is answered, and what to compare with as it becomes known.

        The questions are to be closed. Of the options only frames_per_update is looked at. `field` is where the request
        has the query, for messages.

        Raises:
            MatchcutError: the query is malformed or an item missing; and as the questions come, as `recommend`.
        """
        if isinstance(query, ItemsQuery):
            return self._stored(tenant, query, f"{field}.items.item_ids")
        if isinstance(query, VectorQuery):
            encoder = agree(query.encoder, self.encoder, query.values, f"{field}.vector.values")
            segment = Segment(range=TimeRange(), vector=unit(query.values, f"{field}.vector.values"))
            return encoder, once(Question((segment,), final=True))
        report = MediaReport()
        media = Intake(query, job.clock, report).media
        if media.temporal is Temporal.GRU:
            return self.encoder, self._states(media, report, job, every=options.frames_per_update)
        return self.encoder, self._looks(media, report, job, every=options.frames_per_update)

    def _looks(self, media: Media, report: MediaReport, job: Job, *, every: int) -> Questions:
        """What the media has shown so far, segment by segment."""
        with closing(self.segments(media, report, job, bounds=self._bounds, every=every)) as looks:
            for segments, final in looks:
                yield Question(segments, final, report)

    def _states(self, media: Media, report: MediaReport, job: Job, *, every: int) -> Questions:
        """What the media has shown so far in one vector, as often as `segments` looks at it."""
        media = replace(media, sampling=replace(media.sampling, shots=ShotMode.OFF))
        with (
            self._recurrence.stream(job.caller, media.resume) as stream,
            closing(self._see(media, report, job)) as seen,
        ):
            before = stream.frames
            for event in seen:
                job.check()
                if isinstance(event, Cut):
                    continue
                with job.clock("pool"):
                    stream.add(event.vector)
                report.frames_dropped = job.dropped()
                if every and (stream.frames - before) % every == 1 % every:
                    yield self._shown(stream, event.time_us + 1, report, final=False)
            if stream.frames == before:
                raise UnreadableMedia("no frame came in; send at least one")
            report.frames_dropped = job.dropped()
            yield self._shown(stream, report.duration_us, report, final=True)

    @staticmethod
    def _shown(stream: Stream, end_us: int, report: MediaReport, *, final: bool) -> Question:
        segment = Segment(TimeRange(0, end_us), stream.vector())
        return Question((segment,), final, report, resume=stream.token())

    def _see(
        self, media: Media, report: MediaReport, job: Job, shown: Callable[[Pixels], None] | None = None
    ) -> Generator[Embedding | Cut, None, None]:
        """The media's frames as embeddings, and the cuts between them."""
        events = frames_and_cuts(media, self._size, report, job.clock, check=job.check)
        if shown is not None:
            events = showing(events, shown, job.clock)
        client = job.client or job.caller
        return self._encode(events, idle=job.idle, clock=job.clock, report=report, caller=job.caller, client=client)

    def _stored(self, tenant: str, query: ItemsQuery, field: str) -> tuple[EncoderIdentity, Questions]:
        """The segments of catalogue items, which must all be of one encoder."""
        segments: list[Segment] = []
        item_ids: list[str] = []
        encoder: EncoderIdentity | None = None
        for item_id in query.item_ids:
            stored = self.catalog.get(tenant, item_id)
            if stored is None:
                raise NotFound(f"there is no item {item_id!r} to compare with", field=field)
            encoder = encoder or stored.encoder
            if stored.encoder.digest != encoder.digest:
                raise EncoderMismatch(
                    f"{item_id!r} has vectors of {stored.encoder.name!r}, {query.item_ids[0]!r} of {encoder.name!r}; "
                    "ask for each alone, or ingest again what the old encoder made",
                    field=field,
                )
            segments += stored.segments
            item_ids += [item_id] * len(stored.segments)
            if len(segments) > self._item_segments:
                raise InvalidInput(
                    f"these items have more than {self._item_segments} segments together; name fewer, or send a vector",
                    field=field,
                )
        assert encoder is not None, "the service lets no empty query in"
        return encoder, once(Question(tuple(segments), final=True, item_ids=tuple(item_ids)))

    def _pool(self, segmenter: Segmenter, end_us: int, clock: Clock) -> tuple[Segment, ...]:
        """One vector of unit length for each segment so far."""
        with clock("pool"):
            parts = segmenter.parts(end_us)
            if not parts:
                return ()
            offsets = np.cumsum([0, *(len(part.vectors) for part in parts)], dtype=np.int64)
            vectors = np.concatenate([part.vectors for part in parts])
            weights = np.concatenate([part.weights for part in parts])
            try:
                pooled = self._device.pool(vectors, offsets, weights=weights)
            except ValueError as error:
                raise EngineFailed(f"the encoder's vectors cannot be pooled: {error}") from error
            clock.note("pool", variant=self._device.variant, segments=len(parts))
        return tuple(Segment(part.range, vector) for part, vector in zip(parts, pooled, strict=True))

    def _rank(self, question: Question, view: View, options: RankOptions, job: Job) -> tuple[Match, ...]:
        """The best items of the view, each by its best segment against the best of the question's."""
        clock, check = job.clock, job.caller.check
        with clock("rank"):
            began = time.perf_counter()
            found = self._device.search(
                np.stack([segment.vector for segment in question.segments]),
                view.rows,
                groups=view.groups,
                eligible=view.eligible(options.exclude, options.tags),
                k=options.limit,
                minimum=options.minimum_score,
                radius=view.radius,
                coded=view.coded,
                check=check,
            )
            if self._ranked is not None:
                self._ranked(found, time.perf_counter() - began)
            clock.note(
                "rank",
                variant=found.variant,
                rows=found.scanned,
                survivors=found.survivors,
                pieces=found.pieces,
                rescored=found.rescored,
            )
            return tuple(
                Match(
                    item=view.item(int(group)),
                    score=float(score),
                    item_range=view.range(int(row)),
                    query_range=question.segments[at].range,
                    query_item_id=question.item_ids[at] if question.item_ids else "",
                )
                for score, group, row, at in found
            )
