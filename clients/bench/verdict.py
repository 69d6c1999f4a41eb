"""Whether the figures of a run can be trusted, and whether the server kept up."""

from __future__ import annotations

from dataclasses import dataclass

from matchcut.bench.goal import Goal
from matchcut.bench.tally import Kind, Tally

__all__ = ["FEW", "Rules", "failures", "invalid", "met", "refused", "remarks"]

BUSY = 0.9  # share of a core that the event loop's thread may use; above, requests wait for the generator
LATE_SHARE = 0.001  # of the planned requests that may be missed since the generator was too late
OWN_SHARE = 0.25  # of the 99th percentile of latency that may be the generator's own lateness
LEAST_LATE = 0.002  # seconds of lateness that are never held against it
REFUSED_STREAM = "RST_STREAM with error code 7"  # RFC 9113, section 7, as gRPC words it
FEW = 1000  # answers below which a 99th percentile rests on fewer than ten of them


@dataclass(frozen=True, slots=True)
class Rules:
    """What a run must keep to. errors: share of the planned requests that may not be successes."""

    errors: float = 0.001


def invalid(tally: Tally) -> list[str]:
    """Why the figures are the generator's rather than the server's; empty where they are not."""
    everything = tally.all
    found = []
    if everything.planned and everything.late / everything.planned > LATE_SHARE:
        found.append(
            f"{everything.late} of {everything.planned} requests were not sent, as the generator was too late for them"
        )
    busiest = max((generator.thread for generator in tally.generators), default=0.0)
    if busiest > BUSY:
        found.append(f"a process of the generator was busy for {busiest:.0%} of the time; give it more --processes")
    lateness, latency = tally.lateness.at(99), everything.latency.at(99)
    if everything.latency.count and lateness > max(LEAST_LATE, OWN_SHARE * latency):
        found.append(
            f"requests went out {lateness * 1e3:.1f} ms late (p99), where latency was {latency * 1e3:.1f} ms (p99): "
            "the generator got no core when it needed one"
        )
    return found


def failures(tally: Tally, rules: Rules) -> str:
    """What share of the requests had no success, where that is more than allowed, or that there were none; else ""."""
    everything = tally.all
    if not everything.planned:
        return "" if tally.partial else "nothing was measured: no request was planned after the warm-up"
    if everything.bad <= rules.errors * everything.planned:
        return ""
    return f"{everything.bad} of {everything.planned} planned requests had no success ({_why(everything)})"


def refused(tally: Tally, rules: Rules) -> bool:
    """More requests than allowed had no success, and that was the server's doing."""
    everything = tally.all
    return everything.bad - everything.late > rules.errors * everything.planned


def met(tally: Tally, goal: Goal, rules: Rules) -> bool:
    """The goal's latency was kept, by answers that are successes of nearly all that was planned."""
    kind = tally.kinds.get(goal.kind) if goal.kind else tally.all
    if kind is None or not kind.latency.count or failures(tally, rules):
        return False
    return goal.value(kind.latency) < goal.most


def remarks(tally: Tally) -> list[str]:
    """What a reader should know who is about to believe the figures."""
    everything = tally.all
    found = []
    if everything.full:
        found.append(
            f"{everything.full} requests were not sent, as too many were under way (--in-flight): the server could not "
            "keep up, and the latencies leave out what those would have seen"
        )
    if everything.unfinished:
        found.append(f"{everything.unfinished} requests were still under way at the end and are in no percentile")
    if everything.errors:
        found.append(f"latencies are of successes only; not among them: {_why(everything)}")
    if any(REFUSED_STREAM in said for said in everything.why.values()):
        found.append("streams were refused, as one connection had too many at once: give the generator more --channels")
    failed = {status: count for status, count in tally.warmup.items() if status != "OK"}
    if failed:
        found.append("of the warm-up, which is not measured: " + ", ".join(f"{n} {s}" for s, n in failed.items()))
    return found


def _why(kind: Kind) -> str:
    parts = [f"{count} {status}" for status, count in kind.errors.most_common()]
    parts += [f"{kind.late} not sent, too late"] if kind.late else []
    parts += [f"{kind.full} not sent, too many under way"] if kind.full else []
    parts += [f"{kind.unfinished} unfinished"] if kind.unfinished else []
    return ", ".join(parts)
