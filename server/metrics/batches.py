"""What batchers tell."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["BUCKETS", "BatchMetrics"]

BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds
ROWS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)


class BatchMetrics:
    """What batchers of any number of models tell; see batcher.Watcher."""

    def __init__(self, registry: CollectorRegistry) -> None:
        model = ["model"]
        self._rows = Histogram("matchcut_batch_rows", "rows in a run", model, registry=registry, buckets=ROWS)
        self._seconds = Histogram("matchcut_batch_seconds", "time of a run", model, registry=registry, buckets=BUCKETS)
        self._wasted = Counter("matchcut_batch_wasted", "runs that nobody waited for", model, registry=registry)
        self._waiting = Gauge("matchcut_batch_waiting_rows", "rows that wait for a run", model, registry=registry)
        self._waits = Histogram(
            "matchcut_batch_wait_seconds", "wait for a run to begin", model, registry=registry, buckets=BUCKETS
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
