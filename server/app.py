"""Puts the server together and takes it down again: encoder, engine, catalogue, services, health, signals."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import grpc.aio
from grpc_reflection.v1alpha import reflection

from matchcut.server import device, engines, health, listener, models, oip, process, sight, tagging
from matchcut.server.batcher import Batcher
from matchcut.server.catalog import Catalog, Edition, open_catalog
from matchcut.server.config import NOT_GIVEN, Config
from matchcut.server.engines import Engine
from matchcut.server.engines.freeing import Freeing
from matchcut.server.ingest import Ingest, Pipelines, taken_over, warn_of_others
from matchcut.server.models import Encoder, temporal
from matchcut.server.models.graph import Graph
from matchcut.server.personal import opening
from matchcut.server.pipeline import Pipeline
from matchcut.server.records import EncoderIdentity, MediaLimits
from matchcut.server.recurrence import Recurrence
from matchcut.server.segments import SegmentBounds
from matchcut.server.service import SERVICES, add_services, watching
from matchcut.server.service.access import interceptors, warn_of_clear_text
from matchcut.server.serving import Model, ModelState, Repository
from matchcut.server.serving.encoder_model import EncoderModel, MediaModel
from matchcut.server.serving.on_demand import OnDemand, recurrent
from matchcut.server.serving.repository import FolderRepository
from matchcut.server.serving.served import Limits
from matchcut.server.tracing import Tracer

if TYPE_CHECKING:
    from matchcut.server.metrics import Metrics

Own = WeakKeyDictionary[Pipeline, tuple[Model, ...]]  # what an encoder is to clients of the inference protocol
CLOSING = 0.5  # seconds after the grace period in which all is closed
log = logging.getLogger("matchcut")


class App:
    """A matchcut server. Use as an async context manager: serving inside, stopped in good order outside.

    address: where it serves. metrics: where it serves metrics, "" where it does not.

    Raises on entering:
        MatchcutError: the encoder, the catalogue, an address, the device or the scan that is asked for cannot be used;
            the message says what to do.
    """

    def __init__(self, config: Config, *, progress: Callable[[str], None] | None = None) -> None:
        self._config = config
        self._progress = progress
        self._opened = AsyncExitStack()
        self.address = self.metrics = ""

    async def __aenter__(self) -> App:
        config, began = self._config, time.perf_counter()
        listener.parse(config.listen)
        watched_at = listener.parse(config.metrics, "metrics") if config.metrics else None
        async with AsyncExitStack() as opened:
            tracer = Tracer(config.otel_endpoint, grace=config.grace) if config.otel_endpoint else None
            if tracer is not None:
                opened.push_async_callback(asyncio.to_thread, tracer.close)  # it sends the last spans
            services = (*SERVICES, oip.SERVICE) if config.oip == "on" else SERVICES
            watched = health.Health(services)
            choice = device.chosen(config)
            processor = device.Guarded(choice.device, watched.fail)
            opened.callback(processor.close)
            device.tell(choice)
            encoder, following = self._encoders()
            catalog = open_catalog(
                None if config.data == Path(":memory:") else config.data,
                coding=processor,
                scan_from=config.scan_from,
                in_file=config.vectors == "file",
                gone=watched.fail,
            )
            opened.callback(catalog.close)
            if following is not None and taken_over(catalog, encoder.identity, following.identity):
                encoder, following = following, None
            warn_of_others(catalog, encoder.identity)
            self._check_gru(encoder, following)
            metrics = None if watched_at is None else self._watch(watched_at, catalog)
            if metrics is not None:
                opened.push_async_callback(asyncio.to_thread, metrics.close)  # it waits for its thread
            edition, freeing = catalog.edition(), Freeing()
            opened.callback(freeing.close)
            own: Own = WeakKeyDictionary()
            now = self._pipeline(encoder, processor, edition, metrics, freeing, own)
            then = None if following is None else self._pipeline(following, processor, edition, metrics, freeing, own)
            pipelines = Pipelines(catalog, now, then)
            tagger = tagging.load(config.tagger, threads=config.threads) if config.tagger else None
            if tagger is not None:
                opened.callback(tagger.close)
                log.info("items are tagged by %s", tagger.name)
            ingest = Ingest(pipelines, bounds=self._bounds(config.max_segments), tagger=tagger)
            server = grpc.aio.server(
                options=listener.channel_options(config),
                interceptors=[*watching.interceptors(metrics, tracer), *interceptors(config)],
            )
            personal = opened.enter_context(opening.opened(config, pipelines, processor, gone=watched.fail))
            if metrics is not None:
                metrics.follow_users(personal.numbers)
            calls = add_services(server, pipelines, ingest, config, personal)
            if config.oip == "on":
                repository = self._repository(pipelines, own, metrics, opened)
                regions = oip.add_service(server, repository, calls, config, ready=lambda: watched.ready)
                opened.callback(regions.close)
                watched.follow(repository.index)
                if metrics is not None:
                    metrics.follow(partial(listed, repository))
            elif config.models != NOT_GIVEN:
                log.warning("nobody can use the models of %s: --oip is off", config.models)
            opened.push_async_callback(calls.close)
            watched.add_to(server)
            reflection.enable_server_reflection((*services, health.NAME, reflection.SERVICE_NAME), server)
            address = listener.bind(server, config)
            await server.start()
            opened.push_async_callback(server.stop, config.grace)
            await watched.serve()
            opened.push_async_callback(watched.end)
            self._opened = opened.pop_all()
        self.address = str(address)
        listener.quieten()
        warn_of_clear_text(config)
        log.info("serving on %s, %.2f s after the start", self.address, time.perf_counter() - began)
        if self.metrics:
            log.info("metrics on http://%s/metrics", self.metrics)
        return self

    async def __aexit__(self, *_: object) -> None:
        """NOT_SERVING, no new calls, those under way get the grace period, then everything is closed."""
        await self._opened.aclose()
        log.info("stopped")

    def _encoders(self) -> tuple[Encoder, Encoder | None]:
        """The encoder that answers, and the one that is to take over; neither is loaded yet."""
        config = self._config
        path = config.encoder
        if path == NOT_GIVEN:
            path = models.default_encoder(config.cache, self._progress, bits=models.bits(config.precision))
        return models.load(path), None if config.next_encoder == NOT_GIVEN else models.load(config.next_encoder)

    def _engine(self, encoder: Encoder, processor: device.Guarded) -> Engine:
        config, context = self._config, processor.context
        gpu = None if context is None else engines.OpenGpu(context, processor.failed)
        return engines.load(encoder, engine=config.engine, threads=config.threads, cache=config.cache, gpu=gpu)

    def _pipeline(
        self,
        encoder: Encoder,
        processor: device.Guarded,
        edition: Edition,
        metrics: Metrics | None,
        freeing: Freeing,
        own: Own,
    ) -> Pipeline:
        """All that an encoder needs to answer, loaded; its models are put into `own`.

        Nothing else holds it: the encoder's engine is closed when the last request that uses it is over.
        """
        config = self._config
        engine = self._engine(encoder, processor)
        batcher = self._batcher(engine, metrics, freeing)
        see = sight.Sight(engine, batcher, processor)
        recurrence = self._recurrence(engine, metrics)
        freeing.watch(recurrence, nothing)
        pipeline = Pipeline(
            engine,
            see,
            recurrence,
            processor,
            edition,
            batch=config.batch,
            still=config.still,
            bounds=self._bounds(config.max_query_segments),
            item_segments=config.max_item_segments,
            ranked=None if metrics is None else metrics.ranked,
        )
        if config.oip == "on":
            model = EncoderModel(engine, batcher)
            media = MediaLimits(pixels=config.max_pixels, bytes=config.max_message, buffered=config.max_buffered)
            own[pipeline] = model, MediaModel(model, engine, see, limits=media)
        return pipeline

    def _repository(
        self, pipelines: Pipelines, own: Own, metrics: Metrics | None, opened: AsyncExitStack
    ) -> Repository:
        """The models of the encoder that answers and those of the folder, for clients of the inference protocol."""
        config = self._config
        limits = Limits(
            threads=config.threads,
            queue=config.max_queue,
            sequences=config.models_sequences,
            watcher=None if metrics is None else metrics.batches,
        )
        gru = OnDemand("gru", "1", lambda: recurrent(self._step(pipelines.now.encoder)(), limits))
        opened.callback(gru.close)

        def fixed() -> tuple[Model, ...]:
            return own[pipelines.now]

        if config.models == NOT_GIVEN:
            return oip.Together(fixed, gru)
        folder = FolderRepository(
            config.models, limits=limits, load=config.models_load, poll=config.models_poll, read=oip.read_config
        )
        opened.callback(folder.close)
        return oip.Together(fixed, gru, folder)

    def _batcher(self, engine: Engine, metrics: Metrics | None, freeing: Freeing) -> Batcher:
        """What all requests share the engine by; it runs as often at once as cores, or the options, allow."""
        config = self._config
        watched = None if metrics is None else metrics.batches
        workers = config.runs or (max(1, engines.cores() // config.threads) if config.threads else 1)
        batcher = sight.shared(engine, most=config.max_batch, queue=config.max_queue, workers=workers, watcher=watched)
        freeing.watch(batcher, engine.close)
        size = sight.tune(batcher, engine, threads=config.threads, cache=config.cache)
        log.info("up to %d frames of all requests go into one run of %s, %d at once", size, engine.variant, workers)
        return batcher

    def _recurrence(self, engine: Engine, metrics: Metrics | None) -> Recurrence:
        """What live queries with a state share; its GRU is loaded with the first of them."""
        watched = None if metrics is None else metrics.batches
        return Recurrence(engine.encoder.identity, self._step(engine.encoder.identity), watcher=watched)

    def _step(self, encoder: EncoderIdentity) -> Callable[[], Graph]:
        """Makes the graph of the GRU's step."""
        given = None if self._config.gru == NOT_GIVEN else self._config.gru
        return partial(temporal.step, given, dimensions=encoder.dimensions, half_life=self._config.gru_half_life)

    def _check_gru(self, encoder: Encoder, following: Encoder | None) -> None:
        """Raises EngineFailed where --gru does not suit the encoder; it cannot suit two of different dimensions."""
        if self._config.gru == NOT_GIVEN:
            return
        temporal.check(self._config.gru, dimensions=encoder.identity.dimensions)
        if following is not None and following.identity.dimensions != encoder.identity.dimensions:
            log.warning(
                "--gru does not suit the next encoder: give another with it when %r has taken over",
                following.identity.name,
            )

    def _watch(self, address: listener.Address, catalog: Catalog) -> Metrics:
        from matchcut.server.metrics import Metrics  # a tenth of a second that others need not wait for

        places = {"media": self._config.max_media_requests, "quick": self._config.max_requests}
        metrics = Metrics(address.host, address.port, sizes=catalog.sizes, places=places)
        self.metrics = metrics.address
        return metrics

    def _bounds(self, count: int) -> SegmentBounds:
        config = self._config
        return SegmentBounds(
            minimum_us=round(config.min_segment * 1e6), maximum_us=round(config.max_segment * 1e6), count=count
        )


def nothing() -> None:
    """There is nothing left to close."""


def listed(repository: Repository) -> Iterator[tuple[str, str, bool]]:
    """Name and version of each model, and whether it can be used."""
    return ((one.name, one.version, one.state is ModelState.READY) for one in repository.index())


async def serve(config: Config, *, progress: Callable[[str], None] | None = None, ready: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT; `ready` is told the address once calls are taken.

    Until then a signal ends it at once, as there is nobody to wait for: to load and to warm up may take minutes.

    Calls under way get the grace period. All that has to be kept was on the disk before it was acknowledged, so that
    nothing that takes longer after it is waited for: the process ends CLOSING seconds later at the latest.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stopping() -> None:
        if not stop.is_set():
            stop.set()
            process.end_within(config.grace + CLOSING, unfinished)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio's own waits for the event loop
    async with App(config, progress=progress) as app:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping)
        ready(app.address)
        await stop.wait()
    process.end_quickly()


def unfinished() -> None:
    """The last words of a server whose work took too long to end."""
    log.warning("stopped in the midst of work that did not end in time; whatever was acknowledged is kept")
