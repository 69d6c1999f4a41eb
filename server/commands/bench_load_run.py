"""Carries `matchcut bench load` out: from the command line to a campaign, from its report to files and exit code."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from matchcut.bench import environment, infer
from matchcut.bench.arrivals import Arrivals, Camera, Schedule, read_trace
from matchcut.bench.campaign import Campaign, Report, carry_out, shot
from matchcut.bench.errors import BadInput
from matchcut.bench.export import About, as_csv, as_json
from matchcut.bench.goal import goal
from matchcut.bench.page import as_html
from matchcut.bench.plan import Mix, Plan, mix
from matchcut.bench.prepared import Prepared, Streamed
from matchcut.bench.tally import Tally
from matchcut.bench.target import Target
from matchcut.bench.verdict import Rules
from matchcut.bench.workloads import LIVE, OWN, Own, Settings, fresh
from matchcut.client import Client, Error
from matchcut.server.commands import bench_load_view as view
from matchcut.server.commands import connect
from matchcut.server.commands.output import counted, print_json

__all__ = ["measured"]

INFER = ("infer", "infer-stream")  # of any server of the open inference protocol
UPLOAD = "ingest"  # what puts items in
RATE = 10.0  # a second, where nothing is said
INTERRUPTED = 130


def measured(arguments: argparse.Namespace) -> int:
    """Measures, prints and writes what was asked; returns the exit code.

    Raises:
        matchcut.bench.errors.LoadError: it cannot be measured.
        matchcut.client.Error: the server refuses what is asked of it beforehand.
        OSError: a file cannot be read or written.
    """
    target = _target(arguments)
    mixed = mix(arguments.mix or (INFER[0] if arguments.model else "query"), (*OWN, *INFER))
    arrivals, rates = _schedule(arguments)
    aim = goal(arguments.find_knee) if arguments.find_knee else None
    if aim is not None and aim.kind and aim.kind not in mixed.names:
        raise BadInput(f"the goal {aim.text} is about {aim.kind}, which is not among the requests: {mixed}")
    if arguments.model and not any(name in INFER for name in mixed.names):
        raise BadInput(f"--model is of {' and '.join(INFER)}, which are not among the requests: {mixed}")
    if aim is not None and arguments.rates:
        raise BadInput("--rates and --find-knee exclude each other; --rate is where the search begins")
    for path in (arguments.csv, arguments.html):
        _writable(path)
    identity = infer.identity(target)  # which needs an answer
    about = About(shlex.join(["matchcut", *sys.argv[1:]]), identity, environment.facts())
    with _prepared(arguments, target, mixed) as (prepared, left):
        campaign = Campaign(
            target=target,
            prepared=partial(fresh, prepared),
            plan=Plan(
                arrivals=arrivals,
                mix=mixed,
                rate=rates[0],
                seconds=arguments.warmup + arguments.seconds,
                seed=arguments.seed,
                live=LIVE,
                live_seconds=arguments.live_seconds,
            ),
            rates=rates,
            goal=aim,
            rules=Rules(errors=arguments.errors),
            repeat=arguments.repeat,
            processes=arguments.processes,
            channels=arguments.channels,
            warmup=arguments.warmup,
            timeout=arguments.timeout,
            late=arguments.late,
            in_flight=arguments.in_flight,
            highest=arguments.highest,
        )
        shoot = shot(campaign)

        def noted(rate: float, number: int) -> Tally:
            left.unsure += 1
            tally = shoot(rate, number)
            left.unsure -= 1
            left.items.extend(tally.created)
            return tally

        report = carry_out(campaign, noted, _progress)
        _tell(arguments, report, about)
    return _code(report)


def _target(arguments: argparse.Namespace) -> Target:
    connect.client(arguments).close()  # which checks what belongs together
    token = arguments.client_token_file
    chain, key = ((Path(name).read_bytes() if name else None) for name in (arguments.client_cert, arguments.client_key))
    trusted = arguments.tls_ca not in ("", "system")
    return Target(
        address=arguments.server,
        tenant=arguments.tenant,
        token=Path(token).read_text(encoding="utf-8").split("\n", 1)[0].strip() if token else "",
        tls=bool(arguments.tls_ca),
        authorities=Path(arguments.tls_ca).read_bytes() if trusted else None,
        certificate=chain,
        key=key,
    )


def _schedule(arguments: argparse.Namespace) -> tuple[Arrivals, tuple[float, ...]]:
    """The schedule and the rates, of which the first is where a search begins."""
    implied: Schedule = "trace" if arguments.trace else "camera" if arguments.streams else "poisson"
    schedule: Schedule = arguments.schedule or implied
    if (schedule == "trace") != bool(arguments.trace):
        raise BadInput("--trace FILE and --schedule trace belong together; give both, or --trace alone")
    if arguments.streams and schedule != "camera":
        raise BadInput("--streams are cameras; leave --schedule out, or make it camera")
    given = [name for name in ("rate", "rates", "streams") if getattr(arguments, name)]
    if len(given) > 1:
        raise BadInput(f"--{given[0]} and --{given[1]} exclude each other; give one of them")
    trace = read_trace(arguments.trace) if arguments.trace else ()
    arrivals = Arrivals(schedule, trace, Camera(arguments.fps, arguments.jitter))
    if arguments.streams:
        return arrivals, (arguments.streams * arguments.fps,)
    return arrivals, arguments.rates or (arguments.rate or arrivals.natural or RATE,)


@dataclass(slots=True)
class _Left:
    """What runs have put in. items: their ids; unsure: runs that did not live to tell theirs."""

    items: list[str] = field(default_factory=list)
    unsure: int = 0


@contextmanager
def _prepared(arguments: argparse.Namespace, target: Target, mixed: Mix) -> Iterator[tuple[Sequence[Prepared], _Left]]:
    """The requests in the mix's order, and where to note what they put in, which is removed at the end."""
    settings = Settings(
        clips=tuple(arguments.clip),
        limit=arguments.limit,
        fps=arguments.fps,
        size=arguments.frame_size,
        latest_only=not arguments.all_frames,
        per_call=arguments.per_call,
        users=arguments.users,
    )
    left = _Left()
    with connect.client(arguments) as client:
        own = Own(client, settings, arguments.seed)
        try:
            yield list(_made(arguments, target, own, mixed)), left
        finally:
            _clean(client, own, left, uploads=UPLOAD in mixed.names)


def _made(arguments: argparse.Namespace, target: Target, own: Own, mixed: Mix) -> Iterator[Prepared]:
    for name in mixed.names:
        if name not in INFER:
            yield from own.prepare([name])
            continue
        if not arguments.model:
            raise BadInput(f"{name} needs a model; name it with --model NAME")
        if arguments.input:
            made = infer.from_file(arguments.input, arguments.model)
        else:
            shapes = dict(arguments.shape)
            made = infer.from_metadata(
                target, arguments.model, batch=arguments.batch, shapes=shapes, seed=arguments.seed
            )
        yield made if name == made.name else Streamed(name, made.requests)


def _clean(client: Client, own: Own, left: _Left, *, uploads: bool) -> None:
    items = uploads and bool(left.items or left.unsure)
    what = " and ".join(["items"] * items + ["users"] * own.written)
    stay = f"; {what} whose ids begin with {own.prefix} are left" if what else ""
    try:
        removed = own.clean(left.items, search=uploads and left.unsure > 0)
    except Error as error:
        connect.say(f"what the run has put in could not be removed: {error.message}{stay}")
    except KeyboardInterrupt:
        if stay:
            connect.say(f"interrupted while what the run has put in was removed{stay}")
        raise
    else:
        if items:
            _progress(f"removed the {counted(removed, 'items')} that were put in")


def _progress(line: str) -> None:
    connect.say(line)


def _tell(arguments: argparse.Namespace, report: Report, about: About) -> None:
    if arguments.json:
        print_json(as_json(report, about))
    else:
        view.show(report, about)
    if arguments.csv:
        arguments.csv.write_text(as_csv(report), encoding="utf-8")
    if arguments.html:
        arguments.html.write_text(as_html(report, about), encoding="utf-8")


def _writable(path: Path | None) -> None:
    """Raises OSError where a file cannot be written: before anything is measured, which may take hours."""
    if path is not None:
        there = path.exists()
        path.open("ab").close()
        if not there:
            path.unlink()


def _code(report: Report) -> int:
    if report.partial:
        return INTERRUPTED
    if report.gone:
        return connect.UNREACHABLE
    nothing = report.knee is not None and not report.knee.rate
    return 1 if report.lost or report.invalid or report.failed or nothing else 0
