"""What was counted in one run, by kind of request; what several processes counted adds up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from matchcut.bench.histogram import Durations

__all__ = ["Generator", "Kind", "Outcome", "Sample", "Tally"]

MOST_SAID = 200  # characters that are kept of what a server says of a failure
COUNTS = ("planned", "sent", "ok", "late", "full", "unfinished", "frames", "dropped")


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer: when its request was to be sent, when it was, and when the answer was there; the loop's seconds."""

    due: float
    sent: float
    arrived: float


@dataclass(slots=True)
class Outcome:
    """What became of one request.

    status: "OK", or the name of gRPC's status code. samples: one for a unary call or an upload, many for a stream.
    why: what the server says of a failure.
    stages: seconds by stage as the server tells them, with "total"; empty where it does not or nobody looked.
    frames, dropped: of a stream, how many were sent, and how many of those the server says that it left out.
    """

    status: str
    samples: list[Sample] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    frames: int = 0
    dropped: int = 0
    why: str = ""

    @property
    def ok(self) -> bool:
        """It succeeded."""
        return self.status == "OK"


@dataclass(slots=True)
class Kind:
    """Counts of one kind of request.

    late, full: planned but not sent, since the generator was too late or too many were under way.
    unfinished: sent, but neither answered nor failed when the run was ended.
    latency: from the planned time, service: from the actual send, both of successes only; failed: of the others,
    from the planned time. stages: what the server says of successes, a sample of them. why: what it said of the first
    failure of each status.
    """

    planned: int = 0
    sent: int = 0
    ok: int = 0
    late: int = 0
    full: int = 0
    unfinished: int = 0
    frames: int = 0
    dropped: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latency: Durations = field(default_factory=Durations)
    service: Durations = field(default_factory=Durations)
    failed: Durations = field(default_factory=Durations)
    stages: dict[str, Durations] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    @property
    def missed(self) -> int:
        """Planned but not sent."""
        return self.late + self.full

    @property
    def bad(self) -> int:
        """Planned, and not a success."""
        return self.missed + self.errors.total() + self.unfinished

    def add(self, outcome: Outcome) -> None:
        """One request that has come to an end."""
        self.frames += outcome.frames
        self.dropped += outcome.dropped
        if not outcome.ok:
            self.errors[outcome.status] += 1
            self.why.setdefault(outcome.status, outcome.why[:MOST_SAID])
            for sample in outcome.samples:
                self.failed.add(sample.arrived - sample.due)
            return
        self.ok += 1
        for sample in outcome.samples:
            self.latency.add(sample.arrived - sample.due)
            self.service.add(sample.arrived - sample.sent)
        for name, seconds in outcome.stages.items():
            self._stage(name).add(seconds)

    def merge(self, other: Kind) -> None:
        """All of another's."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.errors += other.errors
        self.why = {**other.why, **self.why}
        self.latency.merge(other.latency)
        self.service.merge(other.service)
        self.failed.merge(other.failed)
        for name, durations in other.stages.items():
            self._stage(name).merge(durations)

    def _stage(self, name: str) -> Durations:
        found = self.stages.get(name)
        if found is None:  # not setdefault(): a histogram takes longer to make than many an answer
            found = self.stages[name] = Durations()
        return found

    def encoded(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            **{name: getattr(self, name) for name in COUNTS},
            "errors": dict(self.errors),
            "why": dict(self.why),
            **{name: getattr(self, name).encoded() for name in ("latency", "service", "failed")},
            "stages": {name: durations.encoded() for name, durations in self.stages.items()},
        }

    @classmethod
    def decoded(cls, given: Mapping[str, Any]) -> Self:
        """What encoded() made."""
        return cls(
            **{name: given[name] for name in COUNTS},
            errors=Counter(given["errors"]),
            why=dict(given["why"]),
            latency=Durations.decoded(given["latency"]),
            service=Durations.decoded(given["service"]),
            failed=Durations.decoded(given["failed"]),
            stages={name: Durations.decoded(one) for name, one in given["stages"].items()},
        )


@dataclass(slots=True)
class Generator:
    """How one process of the generator did.

    cpu, thread: share of a core that the process and its event loop's thread used; lag: by how much the loop woke up
    late, looked at all the time; lateness: by how much requests went out after their planned time.
    """

    cpu: float = 0.0
    thread: float = 0.0
    lag: Durations = field(default_factory=Durations)
    lateness: Durations = field(default_factory=Durations)

    def encoded(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            "cpu": self.cpu,
            "thread": self.thread,
            "lag": self.lag.encoded(),
            "lateness": self.lateness.encoded(),
        }

    @classmethod
    def decoded(cls, given: Mapping[str, Any]) -> Self:
        """What encoded() made."""
        lag, lateness = Durations.decoded(given["lag"]), Durations.decoded(given["lateness"])
        return cls(given["cpu"], given["thread"], lag, lateness)


@dataclass(slots=True)
class Tally:
    """What was counted in one run at one rate.

    seconds: how long it was measured for, without the warm-up, to the last answer. warmup: what came of the requests
    of the warm-up by status, "OK" among them. timeline: for each second of the plan, successes, failures and misses.
    partial: it was interrupted. created: items that were put in and may be removed again.
    """

    kinds: dict[str, Kind] = field(default_factory=dict)
    generators: list[Generator] = field(default_factory=list)
    seconds: float = 0.0
    warmup: Counter[str] = field(default_factory=Counter)
    timeline: dict[int, list[int]] = field(default_factory=dict)
    partial: bool = False
    created: list[str] = field(default_factory=list)

    @property
    def all(self) -> Kind:
        """All kinds together; to be read only."""
        if len(self.kinds) == 1:
            return next(iter(self.kinds.values()))
        together = Kind()
        for kind in self.kinds.values():
            together.merge(kind)
        return together

    @property
    def throughput(self) -> float:
        """Answers of successes a second: as many as successes, but for streams, which have many."""
        return self.all.latency.count / self.seconds if self.seconds else 0.0

    @property
    def lateness(self) -> Durations:
        """How late requests went out, of all processes."""
        together = Durations()
        for generator in self.generators:
            together.merge(generator.lateness)
        return together

    def mark(self, second: int, column: int) -> None:
        """Counts in the timeline: column 0 a success, 1 a failure, 2 a miss."""
        self.timeline.setdefault(second, [0, 0, 0])[column] += 1

    def merge(self, other: Tally) -> None:
        """What another process counted in the same run."""
        for name, kind in other.kinds.items():
            self.kinds.setdefault(name, Kind()).merge(kind)
        self.generators += other.generators
        self.seconds = max(self.seconds, other.seconds)
        self.warmup += other.warmup
        for second, counts in other.timeline.items():
            mine = self.timeline.setdefault(second, [0, 0, 0])
            self.timeline[second] = [a + b for a, b in zip(mine, counts, strict=True)]
        self.partial |= other.partial
        self.created += other.created

    def encoded(self) -> dict[str, Any]:
        """Fit for JSON."""
        return {
            "kinds": {name: kind.encoded() for name, kind in self.kinds.items()},
            "generators": [generator.encoded() for generator in self.generators],
            "seconds": self.seconds,
            "warmup": dict(self.warmup),
            "timeline": {str(second): counts for second, counts in sorted(self.timeline.items())},
            "partial": self.partial,
            "created": self.created,
        }

    @classmethod
    def decoded(cls, given: Mapping[str, Any]) -> Self:
        """What encoded() made."""
        return cls(
            kinds={name: Kind.decoded(one) for name, one in given["kinds"].items()},
            generators=[Generator.decoded(one) for one in given["generators"]],
            seconds=given["seconds"],
            warmup=Counter(given["warmup"]),
            timeline={int(second): list(counts) for second, counts in given["timeline"].items()},
            partial=given["partial"],
            created=list(given["created"]),
        )

    @classmethod
    def merged(cls, tallies: Iterable[Tally]) -> Self:
        """What several processes counted."""
        together = cls()
        for tally in tallies:
            together.merge(tally)
        return together
