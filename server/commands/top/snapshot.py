"""What happened between two readings of a server's metrics."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from matchcut.server.clock import ORDER
from matchcut.server.commands.top.reading import Labels, Reading

__all__ = ["Batches", "Drop", "Model", "Places", "Requests", "Snapshot", "Stage", "quantile", "snapshot"]

Buckets = Mapping[float, float]  # by upper bound, how many were at most that


@dataclass(frozen=True)
class Requests:
    """Those of one rpc: how many ended and failed, how many a second, how many have not ended; times in seconds."""

    rpc: str
    ended: float
    per_second: float | None
    failed: Mapping[str, float]
    under_way: float
    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class Places:
    """How many requests of a kind are worked on, and how many may be."""

    kind: str
    taken: float
    size: float


@dataclass(frozen=True)
class Stage:
    """How many replies of all rpcs went through a stage, and what each took there, in seconds."""

    stage: str
    replies: float
    p50: float | None
    p99: float | None
    total: float


@dataclass(frozen=True)
class Batches:
    """Runs of one model, rows in each, rows that wait now; times in seconds."""

    model: str
    runs: float
    rows_per_run: float | None
    waiting: float
    wait_p50: float | None
    wait_p99: float | None
    run_p50: float | None
    run_p99: float | None


@dataclass(frozen=True)
class Drop:
    """How much was given up, and why."""

    what: str
    reason: str
    count: float


@dataclass(frozen=True)
class Model:
    """A version of a model that is known."""

    name: str
    version: str
    ready: bool


@dataclass(frozen=True)
class Snapshot:
    """All that is shown of a server.

    since_start: the figures are of all its time; else of the time between two readings. seconds: how long that is.
    """

    address: str
    version: str
    since_start: bool
    seconds: float
    requests: tuple[Requests, ...]
    places: tuple[Places, ...]
    stages: tuple[Stage, ...]
    batches: tuple[Batches, ...]
    drops: tuple[Drop, ...]
    segments: float
    coded_segments: float
    models: tuple[Model, ...]


def snapshot(address: str, now: Reading, before: Reading | None) -> Snapshot:
    """What a server is doing.

    Args:
        before: the reading before; None, or one of before the server was started again: all since its start counts.
    """
    began = now.value("start_time_seconds", now.time)
    if before is not None and before.value("start_time_seconds") != now.value("start_time_seconds"):
        before = None
    since = Since(now, before)
    seconds = max(now.time - (began if before is None else before.time), 0.0)
    return Snapshot(
        address=address,
        version=next((labels.get("version", "") for labels, _ in now.of("info")), ""),
        since_start=before is None,
        seconds=seconds,
        requests=tuple(requests(now, since, seconds)),
        places=tuple(places(now)),
        stages=tuple(stages(since)),
        batches=tuple(batches(now, since)),
        drops=tuple(drops(since)),
        segments=now.value("catalog_segments"),
        coded_segments=now.value("catalog_coded_segments"),
        models=tuple(
            Model(labels.get("model", ""), labels.get("version", ""), ready == 1)
            for labels, ready in now.of("model_ready")
        ),
    )


class Since:
    """What counters have counted since the reading before."""

    def __init__(self, now: Reading, before: Reading | None) -> None:
        self._now = now
        self._before = before

    def __call__(self, name: str) -> Iterator[tuple[Labels, float]]:
        """Labels and count of each series; a counter that has fallen began again from 0."""
        then = {} if self._before is None else {key(labels): value for labels, value in self._before.of(name)}
        for labels, value in self._now.of(name):
            old = then.get(key(labels), 0.0)
            yield labels, value - old if value >= old else value

    def by(self, name: str, label: str) -> dict[str, float]:
        """The same, added up for each value of a label."""
        sums: dict[str, float] = defaultdict(float)
        for labels, value in self(name):
            sums[labels.get(label, "")] += value
        return sums

    def buckets(self, histogram: str, label: str) -> Callable[[str], Buckets]:
        """The buckets of a histogram for each value of a label, whatever its others are."""
        sums: dict[str, dict[float, float]] = defaultdict(lambda: defaultdict(float))
        for labels, value in self(f"{histogram}_bucket"):
            sums[labels.get(label, "")][float(labels.get("le", "inf"))] += value
        return lambda of: sums.get(of, {})


def key(labels: Labels) -> tuple[tuple[str, str], ...]:
    """The same for the same labels in any order."""
    return tuple(sorted(labels.items()))


def quantile(share: float, buckets: Buckets) -> float | None:
    """Below what so large a share of the values lie, as if they were spread evenly within each bucket.

    None where there are no values; the largest bound where it lies beyond all of them.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]] > 0:
        return None
    rank = share * buckets[bounds[-1]]
    low, below = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (rank - below) / (buckets[bound] - below) if buckets[bound] > below else bound
        low, below = bound, buckets[bound]
    return low


def requests(now: Reading, since: Since, seconds: float) -> Iterator[Requests]:
    """Those of each rpc, the most called first."""
    codes: dict[str, dict[str, float]] = defaultdict(dict)
    for labels, count in since("requests_total"):
        codes[labels.get("rpc", "")][labels.get("code", "")] = count
    under_way = {labels.get("rpc", ""): value for labels, value in now.of("requests_under_way")}
    times = since.buckets("request_seconds", "rpc")
    ended = {rpc: sum(codes[rpc].values()) for rpc in {*codes, *under_way}}
    for rpc in sorted(ended, key=lambda rpc: (-ended[rpc], rpc)):
        yield Requests(
            rpc=rpc,
            ended=ended[rpc],
            per_second=ended[rpc] / seconds if seconds else None,
            failed={code: count for code, count in sorted(codes[rpc].items()) if code != "OK" and count},
            under_way=under_way.get(rpc, 0.0),
            p50=quantile(0.5, times(rpc)),
            p99=quantile(0.99, times(rpc)),
        )


def places(now: Reading) -> Iterator[Places]:
    """Those of each kind."""
    taken = {labels.get("kind", ""): value for labels, value in now.of("places_taken")}
    for labels, size in now.of("places"):
        yield Places(labels.get("kind", ""), taken.get(labels.get("kind", ""), 0.0), size)


def stages(since: Since) -> Iterator[Stage]:
    """Those that were passed through, in the order of the pipeline."""
    times, totals = since.buckets("stage_seconds", "stage"), since.by("stage_seconds_sum", "stage")
    replies = since.by("stage_seconds_count", "stage")
    for stage in sorted(replies, key=lambda stage: (ORDER.index(stage) if stage in ORDER else len(ORDER), stage)):
        if replies[stage]:
            yield Stage(stage, replies[stage], quantile(0.5, times(stage)), quantile(0.99, times(stage)), totals[stage])


def batches(now: Reading, since: Since) -> Iterator[Batches]:
    """Those of each model that has run or for which rows wait."""
    waiting = {labels.get("model", ""): value for labels, value in now.of("batch_waiting_rows")}
    runs, rows = since.by("batch_rows_count", "model"), since.by("batch_rows_sum", "model")
    waits, times = since.buckets("batch_wait_seconds", "model"), since.buckets("batch_seconds", "model")
    for model in sorted({*waiting, *runs}):
        count = runs.get(model, 0.0)
        yield Batches(
            model=model,
            runs=count,
            rows_per_run=rows.get(model, 0.0) / count if count else None,
            waiting=waiting.get(model, 0.0),
            wait_p50=quantile(0.5, waits(model)),
            wait_p99=quantile(0.99, waits(model)),
            run_p50=quantile(0.5, times(model)),
            run_p99=quantile(0.99, times(model)),
        )


def drops(since: Since) -> Iterator[Drop]:
    """All that was given up, as far as anything was."""
    for labels, count in since("requests_refused_total"):
        if count:
            yield Drop(f"{labels.get('kind', '')} requests", "no place was free", count)
    for labels, count in since("batch_dropped_total"):
        if count:
            yield Drop(f"waited for {labels.get('model', '')}", labels.get("reason", ""), count)
    for labels, count in since("live_frames_dropped_total"):
        if count:
            yield Drop(f"frames of {labels.get('rpc', '').rpartition('/')[2]}", "came too fast", count)
    for labels, count in since("batch_wasted_total"):
        if count:
            yield Drop(f"runs of {labels.get('model', '')}", "nobody waited any longer", count)
