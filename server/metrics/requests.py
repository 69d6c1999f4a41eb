"""What is told of requests: how many, how they ended, and where their time went."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["RequestMetrics"]

# Seconds, from what a small ranking takes to an hour's upload; each is 2 to 2.5 times the one before where most lie.
BUCKETS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0),
)


class RequestMetrics:
    """Requests by the rpc that was called. Safe to be used by several threads at once.

    Args:
        places: by kind, how many requests are worked on at once.
    """

    def __init__(self, registry: CollectorRegistry, places: Mapping[str, int]) -> None:
        rpc, kind = ["rpc"], ["kind"]
        ended = Counter("matchcut_requests", "requests that ended", ["rpc", "code"], registry=registry)
        seconds = Histogram("matchcut_request_seconds", "time of a request", rpc, registry=registry, buckets=BUCKETS)
        under_way = Gauge("matchcut_requests_under_way", "requests that have not ended", rpc, registry=registry)
        stages = Histogram(
            "matchcut_stage_seconds",
            "time that a reply took in a stage",
            ["rpc", "stage"],
            registry=registry,
            buckets=BUCKETS,
        )
        taken = Gauge("matchcut_places_taken", "requests that are worked on", kind, registry=registry)
        refused = Counter("matchcut_requests_refused", "refused for want of a place", kind, registry=registry)
        frames = Counter("matchcut_live_frames_dropped", "frames that came too fast", rpc, registry=registry)
        sizes = Gauge("matchcut_places", "requests that may be worked on at once", kind, registry=registry)
        # Looking a series up by its labels takes longer than counting in it, and there are few.
        self._ended, self._seconds, self._under_way = (
            cache(ended.labels),
            cache(seconds.labels),
            cache(under_way.labels),
        )
        self._stages, self._taken, self._refused = cache(stages.labels), cache(taken.labels), cache(refused.labels)
        self._frames = cache(frames.labels)
        for name, size in places.items():
            sizes.labels(name).set(size)
            self._taken(name).set(0)
            self._refused(name)

    def began(self, rpc: str) -> None:
        """A request came in."""
        self._under_way(rpc).inc()

    def ended(self, rpc: str, code: str, seconds: float) -> None:
        """It ended.

        Args:
            code: the name of its gRPC status.
        """
        self._under_way(rpc).dec()
        self._ended(rpc, code).inc()
        self._seconds(rpc).observe(seconds)

    def stage(self, rpc: str, stage: str, seconds: float) -> None:
        """A reply took so long in a stage."""
        self._stages(rpc, stage).observe(seconds)

    def taken(self, kind: str, places: int) -> None:
        """So many places are taken now."""
        self._taken(kind).set(places)

    def refused(self, kind: str) -> None:
        """A request found no place."""
        self._refused(kind).inc()

    def frames_dropped(self, rpc: str, frames: int) -> None:
        """So many more frames came too fast to be used."""
        self._frames(rpc).inc(frames)
