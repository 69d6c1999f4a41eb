"""What an operator sees of a running server, in the terms of Prometheus; served where --metrics names an address.

matchcut_rank_rows_total         rows that rankings scanned
matchcut_rank_survivors_total    pairs (row, segment asked with) that the scan could not rule out; where their share of
                                 the rows rises, the vectors have changed since the way of coding them was chosen
matchcut_rank_pieces_total       pieces of 64 bytes of codes that were read of survivors
matchcut_rank_rescored_total     pairs that were scored exactly
matchcut_rank_seconds            histogram of the time of a ranking
matchcut_catalog_segments        segments in the catalogue, all tenants together
matchcut_catalog_coded_segments  those of them that are coded for the scan
matchcut_scan_epoch_age_rows     rows that were coded in a way that had been chosen before they came

Those of rank have the label `variant`, what ranked, for example "cpu-avx2", "cpu-numpy" or "cuda-int8". The address
speaks plain HTTP and asks for no token: it tells how much there is and how busy the server is, but nothing of what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from matchcut.kernels.topk import Ranked
from matchcut.server.catalog import Sizes
from matchcut.server.errors import InvalidInput

_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds
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
