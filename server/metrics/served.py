"""All metrics of a server, and the port where they can be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib import metadata

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, start_http_server

from matchcut.kernels.topk import Ranked
from matchcut.server.catalog import Sizes
from matchcut.server.errors import InvalidInput
from matchcut.server.metrics.batches import BUCKETS, BatchMetrics
from matchcut.server.metrics.gauges import CatalogGauges, ModelGauges, Models
from matchcut.server.metrics.requests import RequestMetrics
from matchcut.server.metrics.users import UserGauges
from matchcut.server.records import UserNumbers

__all__ = ["Metrics"]

COUNTED = ("rows", "survivors", "pieces", "rescored")


class Metrics:
    """The metrics of one server, served over HTTP until they are closed.

    address: where they are served. batches, requests: what batchers and calls tell.

    Args:
        host, port: where; port 0 takes a free one.
        sizes: how much the catalogue holds; called each time that somebody asks.
        places: by kind, how many requests are worked on at once.

    Raises:
        InvalidInput: the port is taken, or the address is not this machine's.
    """

    def __init__(
        self, host: str, port: int, *, sizes: Callable[[], Sizes], places: Mapping[str, int] | None = None
    ) -> None:
        registry = CollectorRegistry()
        self._counters = {
            name: Counter(f"matchcut_rank_{name}", f"{name} of rankings", ["variant"], registry=registry)
            for name in COUNTED
        }
        self._seconds = Histogram(
            "matchcut_rank_seconds", "time of a ranking", ["variant"], registry=registry, buckets=BUCKETS
        )
        self.batches = BatchMetrics(registry)
        self.requests = RequestMetrics(registry, places or {})
        self._models = ModelGauges()
        registry.register(CatalogGauges(sizes))
        registry.register(self._models)
        self._users = UserGauges()
        registry.register(self._users)
        Info("matchcut", "the server", registry=registry).info({"version": metadata.version("matchcut")})
        Gauge("matchcut_start_time_seconds", "when the server began", registry=registry).set(time.time())
        try:
            self._server, self._thread = start_http_server(port, host.strip("[]"), registry)
        except OSError as error:
            raise InvalidInput(
                f"cannot serve metrics on {host}:{port}: the port is taken or the address is not this machine's; "
                "choose another with --metrics",
                reason="ADDRESS_UNAVAILABLE",
                field="metrics",
            ) from error
        self.address = f"{host}:{self._server.server_port}"

    def follow(self, models: Models) -> None:
        """Tells of models, too; `models` is called, in a thread, each time that somebody asks."""
        self._models.models = models

    def follow_users(self, numbers: Callable[[], UserNumbers]) -> None:
        """Tells of users, too; `numbers` is called, in a thread, each time that somebody asks."""
        self._users.numbers = numbers

    def ranked(self, found: Ranked, seconds: float) -> None:
        """Counts a ranking."""
        for name, count in zip(COUNTED, (found.scanned, found.survivors, found.pieces, found.rescored), strict=True):
            self._counters[name].labels(found.variant).inc(count)
        self._seconds.labels(found.variant).observe(seconds)

    def close(self) -> None:
        """Lets go of the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
