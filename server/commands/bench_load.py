"""`matchcut bench load`: how a server does under load."""

from __future__ import annotations

import argparse
from pathlib import Path

from matchcut.server import errors
from matchcut.server.commands import connect
from matchcut.server.commands.bench_numbers import at_least_1, from_zero, rates, shape, size
from matchcut.server.commands.connect import positive, say

__all__ = ["DESCRIPTION", "EXAMPLES", "add_arguments", "run"]

DESCRIPTION = """\
Sends requests at planned times, whatever becomes of those before them (an open loop), and counts latency from the
planned time, so that a server that stalls cannot slow the measuring down (coordinated omission). What was planned and
not sent is counted. Latencies are of successes; what failed is told apart, by status.

Requests (--mix, by weight): query, vector, clip: Recommend by an item, a random vector, the bytes of a --clip. ingest:
a --clip under a new id, removed afterwards. live: RecommendLive with frames at --fps. events: RecordEvents. user:
RecommendForUser. user-live: RecommendForUserLive, an event in, the new list out; each user has one stream open. These
three make up users, who are forgotten afterwards; on a server in use give a --tenant of your own. infer: ModelInfer of
--model on any server of the open inference protocol; infer-stream: the same by ModelStreamInfer, one stream for each
connection.

Where the generator was the bottleneck, the result says INVALID. --timeout is each request's deadline, here 10 s unless
given."""
EXAMPLES = """\
examples:
  matchcut bench load --rate 50
  matchcut bench load --mix query=8,events=2 --rates 20,40,80 --repeat 5 --html load.html
  matchcut bench load --mix clip --clip scene.mp4 --find-knee 'p99<200ms'
  matchcut bench load --mix user-live --users 50 --rate 200
  matchcut bench load --mix live --schedule camera --streams 4 --fps 10
  matchcut bench load --server triton:8001 --model resnet --batch 8 --find-knee 'p99<50ms' --processes 4
exit codes, beside the usual ones:
  1  figures are invalid, runs were lost, or more requests failed than --errors allows
  69 the server cannot be reached, or could not at the end
"""
NEEDS = "`matchcut bench load` needs hdrhistogram; install it with: pip install 'matchcut[load]'"
TIMEOUT = 10.0  # seconds a request may take, unless told otherwise


def add_arguments(load: argparse.ArgumentParser) -> None:
    """Adds what to send, when, for how long, and where the result goes."""
    connect.add_connection(load)
    what = load.add_argument_group("requests")
    what.add_argument("--mix", metavar="KIND=WEIGHT,...", help="[default: query; with --model: infer]")
    what.add_argument("--clip", type=Path, action="append", default=[], metavar="FILE", help="a clip (repeat)")
    what.add_argument("--limit", type=at_least_1, default=10, metavar="N", help="length of the lists [default: 10]")
    what.add_argument("--per-call", type=at_least_1, default=1, metavar="N", help="events in a call [default: 1]")
    what.add_argument("--users", type=at_least_1, default=100, metavar="N", help="made-up users [default: 100]")
    what.add_argument("--fps", type=positive, default=10.0, help="frames a second of a camera [default: 10]")
    what.add_argument("--frame-size", type=size, default=(224, 224), metavar="WxH", help="[default: 224x224]")
    what.add_argument(
        "--live-seconds", type=positive, default=5.0, help="length of a live query, but with cameras [default: 5]"
    )
    what.add_argument("--all-frames", action="store_true", help="live queries drop no frame (latest_only is not set)")
    what.add_argument("--model", metavar="NAME[:VERSION]", help="of infer and infer-stream")
    what.add_argument("--batch", type=at_least_1, default=1, metavar="N", help="first dimension of inputs [default: 1]")
    what.add_argument("--shape", type=shape, action="append", default=[], metavar="INPUT=D,D", help="of an input")
    what.add_argument(
        "--input", type=Path, metavar="FILE", help="JSON with requests for --model, instead of random ones"
    )
    when = load.add_argument_group("schedule")
    when.add_argument("--rate", type=positive, help="requests a second [default: 10; a trace's own]")
    when.add_argument("--rates", type=rates, metavar="R,R,...", help="several rates, one after the other")
    when.add_argument("--find-knee", metavar="GOAL", help="find the highest rate with, e.g., 'p99<50ms'")
    when.add_argument("--highest", type=positive, default=1e6, help="rate at which the search ends [default: 1e6]")
    when.add_argument(
        "--schedule",
        choices=("constant", "poisson", "trace", "camera"),
        help="[default: poisson; with --trace: trace; with --streams: camera]",
    )
    when.add_argument(
        "--trace", type=Path, metavar="FILE", help="times in s, one a line; scaled to --rate and repeated"
    )
    when.add_argument("--streams", type=at_least_1, metavar="N", help="cameras, each with --fps, instead of --rate")
    when.add_argument("--jitter", type=from_zero, default=0.002, help="deviation of frames' times, s [default: 0.002]")
    when.add_argument("--seconds", type=positive, default=10.0, help="measured for [default: 10]")
    when.add_argument("--warmup", type=from_zero, default=2.0, help="seconds before, not measured [default: 2]")
    when.add_argument("--repeat", type=at_least_1, default=1, metavar="N", help="runs of each rate [default: 1]")
    when.add_argument("--seed", type=int, default=1, help="of the schedule and the requests [default: 1]")
    how = load.add_argument_group("generator")
    how.add_argument("--processes", type=at_least_1, default=1, metavar="N", help="[default: 1]")
    how.add_argument("--channels", type=at_least_1, default=1, metavar="N", help="connections of each [default: 1]")
    how.add_argument("--in-flight", type=at_least_1, default=1000, metavar="N", help="most under way [default: 1000]")
    how.add_argument("--late", type=positive, default=0.1, help="not sent if so many seconds late [default: 0.1]")
    how.add_argument("--errors", type=from_zero, default=0.001, help="share that may fail [default: 0.001]")
    how.add_argument("--html", type=Path, metavar="FILE", help="write a report with charts, one file")
    how.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each run and kind")


@connect.told
def run(arguments: argparse.Namespace) -> int:
    """Measures and tells; the exit code says whether the figures count."""
    try:
        from matchcut.bench.errors import BadInput, LoadError, Refused, Unreachable
        from matchcut.server.commands.bench_load_run import measured
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "hdrh":
            raise
        raise errors.InvalidInput(NEEDS) from None
    arguments.timeout = arguments.timeout or TIMEOUT
    try:
        return measured(arguments)
    except Unreachable:
        say(connect.unreachable(arguments))
        return connect.UNREACHABLE
    except Refused:
        say(connect.refused(arguments))
        return 1
    except BadInput as error:
        say(error.message)
        return 2
    except LoadError as error:
        say(error.message)
        return 1
