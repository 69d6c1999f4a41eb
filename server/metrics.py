"""What an operator sees of a running server, in the terms of Prometheus; served where --metrics names an address.

matchcut_rank_rows_total         rows that rankings scanned
matchcut_rank_survivors_total    pairs (row, segment asked with) that the scan could not rule out; where their share of
                                 the rows rises, the vectors have changed since the way of coding them was chosen
matchcut_rank_pieces_total       pieces of 64 bytes of codes that were read of survivors
matchcut_rank_rescored_total     pairs that were scored exactly
matchcut_rank_seconds            histogram of the time of a ranking
matchcut_batch_rows              histogram of the rows in a run of a model, of all requests together
matchcut_batch_seconds           histogram of the time of such a run
matchcut_batch_wasted_total      runs at whose end nobody waited for them any longer
matchcut_batch_waiting_rows      rows that wait for a run
matchcut_batch_wait_seconds      histogram of how long a request waited for its run to begin
matchcut_batch_dropped_total     requests that were given up before they were computed
matchcut_catalog_segments        segments in the catalogue, all tenants together
matchcut_catalog_coded_segments  those of them that are coded for the scan
matchcut_scan_epoch_age_rows     rows that were coded in a way that had been chosen before they came

Those of rank have the label `variant`, what ranked, for example "cpu-avx2", "cpu-numpy" or "cuda-int8". Those of batch
have the label `model`, the name of the encoder or model that runs; dropped ones also the `reason`: "OVERLOADED",
"DEADLINE_TOO_SHORT" (the answer would have come too late), "DEADLINE_EXCEEDED" or "CANCELLED". The address speaks plain
HTTP and asks for no token: it tells how much there is and how busy the server is, but nothing of what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from matchcut.kernels.topk import Ranked
from matchcut.server.catalog import Sizes
from matchcut.server.errors import InvalidInput

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds
_ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)
_COUNTED = ("rows", "survivors", "pieces", "rescored")


class Metrics:
    """The metrics of one server, served over HTTP until they are closed.

    Args:
        host, port: where; port 0 takes a free one.
        sizes: how much the catalogue holds; called each time that somebody asks.

    Raises:
        InvalidInput: the port is taken, or the address is not this machine's.
    """

    def __init__(self, host: str, port: int, *, sizes: Callable[[], Sizes]) -> None:
        registry = CollectorRegistry()
        self._counters = {
            name: Counter(f"matchcut_rank_{name}", f"{name} of rankings", ["variant"], registry=registry)
            for name in _COUNTED
        }
        self._seconds = Histogram(
            "matchcut_rank_seconds", "time of a ranking", ["variant"], registry=registry, buckets=_BUCKETS
        )
        self.batches = BatchMetrics(registry)
        registry.register(_Gauges(sizes))
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

    def ranked(self, found: Ranked, seconds: float) -> None:
        """Counts a ranking."""
        for name, count in zip(_COUNTED, (found.scanned, found.survivors, found.pieces, found.rescored), strict=True):
            self._counters[name].labels(found.variant).inc(count)
        self._seconds.labels(found.variant).observe(seconds)

    def close(self) -> None:
        """Lets go of the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class BatchMetrics:
    """What batchers of any number of models tell; see batcher.Watcher."""

    def __init__(self, registry: CollectorRegistry) -> None:
        model = ["model"]
        self._rows = Histogram("matchcut_batch_rows", "rows in a run", model, registry=registry, buckets=_ROWS)
        self._seconds = Histogram("matchcut_batch_seconds", "time of a run", model, registry=registry, buckets=_BUCKETS)
        self._wasted = Counter("matchcut_batch_wasted", "runs that nobody waited for", model, registry=registry)
        self._waiting = Gauge("matchcut_batch_waiting_rows", "rows that wait for a run", model, registry=registry)
        self._waits = Histogram(
            "matchcut_batch_wait_seconds", "wait for a run to begin", model, registry=registry, buckets=_BUCKETS
        )
        self._dropped = Counter(
            "matchcut_batch_dropped", "requests given up before they ran", ["model", "reason"], registry=registry
        )

    def ran(self, model: str, rows: int, seconds: float, *, wasted: bool) -> None:
        """Counts a run."""
        self._rows.labels(model).observe(rows)
        self._seconds.labels(model).observe(seconds)
        self._wasted.labels(model).inc(wasted)

    def waited(self, model: str, seconds: float) -> None:
        """Counts a request whose run begins."""
        self._waits.labels(model).observe(seconds)

    def dropped(self, model: str, reason: str) -> None:
        """Counts a request that was given up."""
        self._dropped.labels(model, reason).inc()

    def queued(self, model: str, rows: int) -> None:
        """Remembers how many rows wait."""
        self._waiting.labels(model).set(rows)


class _Gauges(Collector):
    """The catalogue's sizes, looked up once for all three."""

    def __init__(self, sizes: Callable[[], Sizes]) -> None:
        self._sizes = sizes

    def collect(self) -> Iterator[GaugeMetricFamily]:
        sizes = self._sizes()
        yield GaugeMetricFamily("matchcut_catalog_segments", "segments in the catalogue", sizes.segments)
        yield GaugeMetricFamily("matchcut_catalog_coded_segments", "those coded for the scan", sizes.coded)
        yield GaugeMetricFamily(
            "matchcut_scan_epoch_age_rows", "rows coded in a way chosen before they came", sizes.unplanned
        )
