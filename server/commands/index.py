"""`matchcut index`: put video files into the catalogue."""

from __future__ import annotations

import argparse
import errno
import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from matchcut.client import Client, Error, Ingested, Item, NotFound, Unavailable
from matchcut.server.commands.connect import UNREACHABLE, add_connection, client, positive, say, told, unreachable
from matchcut.server.commands.output import console, print_json, print_warning, printable, table
from matchcut.server.commands.parallel import parallel
from matchcut.server.errors import InvalidInput

NAME = "index"
SUMMARY = "put video files into the catalogue"
DESCRIPTION = """\
Sends video files to the server, several at once. A file is named directly or found below a folder by its ending; its
item id is its name, below a folder its path from there. Files that are in the catalogue with the same content are
skipped before they are sent, so a run that was interrupted goes on where it stopped when it is started again.
At the end a summary says what failed and why; other files are not held up by one that fails."""
EXAMPLES = """\
examples:
  matchcut index clips/
  matchcut index a.mp4 b.mkv --tag demo
  matchcut index clips/ --prefix tour/ --jobs 4 --json
"""
ENDINGS = frozenset(
    [
        ".mp4",
        ".m4v",
        ".mov",
        ".mkv",
        ".webm",
        ".ts",
        ".mts",
        ".m2ts",
        ".mpg",
        ".mpeg",
        ".vob",
        ".avi",
        ".flv",
        ".ogv",
        ".ogg",
        ".h264",
        ".264",
        ".h265",
        ".265",
        ".hevc",
    ]
)


@dataclass(frozen=True, slots=True)
class Clip:
    """A file and the item that it becomes."""

    path: Path
    item_id: str


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that did not become an item."""

    item: str
    file: str
    error: str
    reason: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the files, what is said of them, and the connection."""
    parser.add_argument("paths", nargs="+", metavar="FILE|FOLDER", help="video files, or folders to search for them")
    parser.add_argument("--prefix", default="", help="put this before every item id")
    parser.add_argument(
        "--tag", action="append", default=[], help="tag for every item (repeat) [default: those that it has already]"
    )
    parser.add_argument("--rate", type=positive, help="frames per second to use [default: the server's]")
    parser.add_argument("--shots", choices=("exact", "coarse", "off"), help="how to find segments [default: exact]")
    parser.add_argument(
        "--jobs", type=int, default=min(4, os.cpu_count() or 1), help="files at once [default: cores, 4 at most]"
    )
    add_connection(parser)


@told
def run(arguments: argparse.Namespace) -> int:
    """Indexes everything; 1 if any file failed."""
    if arguments.jobs < 1:
        raise InvalidInput("--jobs must be at least 1")
    clips = list(find(arguments.paths, arguments.prefix))
    if not clips:
        looked = ", ".join(arguments.paths)
        raise InvalidInput(f"no video file found below {looked}; files are found by their ending, or named directly")
    with client(arguments) as server:
        server.health()  # one clear line where no server is, not one for each file
        done, failures = ingest(server, clips, arguments)
    if arguments.json:
        print_json({"done": done, "failed": failures})
    else:
        summarise(done, failures)
    if any(failure.reason == "UNAVAILABLE" for failure in failures):
        say(unreachable(arguments))
        return UNREACHABLE
    return 1 if failures else 0


def find(paths: list[str], prefix: str) -> Iterator[Clip]:
    """The clips that the paths name, each item id once."""
    seen: dict[str, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            below = sorted(one for one in path.rglob("*") if one.suffix.lower() in ENDINGS and one.is_file())
            found = [Clip(one, prefix + one.relative_to(path).as_posix()) for one in below]
        elif path.exists():
            found = [Clip(path, prefix + path.name)]
        else:
            raise InvalidInput(f"{path} does not exist")
        for clip in found:
            other = seen.setdefault(clip.item_id, clip.path)
            if other.resolve() != clip.path.resolve():
                raise InvalidInput(f"{other} and {clip.path} would both be the item {clip.item_id!r}; use --prefix")
            if other is clip.path:
                yield clip


def ingest(server: Client, clips: list[Clip], arguments: argparse.Namespace) -> tuple[list[Ingested], list[Failure]]:
    """Sends the clips, so many at once; returns what was kept and what failed."""
    done: list[Ingested] = []
    failures: list[Failure] = []
    lost = threading.Event()
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=arguments.json) as progress:
        task = progress.add_task("indexing", total=len(clips))
        # To close the client ends the calls under way; the server keeps nothing of them.
        work = partial(send, server, arguments, lost)
        with closing(parallel(work, clips, threads=arguments.jobs, stop=server.close)) as finished:
            for clip, future in finished:
                collect(future, clip, done, failures)
                progress.update(task, advance=1, description=f"indexing {printable(clip.item_id)}")
    return done, failures


def send(server: Client, arguments: argparse.Namespace, lost: threading.Event, clip: Clip) -> Ingested:
    """Sends one clip, unless the server was lost with another; an item that is there keeps what is said of it."""
    if lost.is_set():
        raise Unavailable("not sent", code="UNAVAILABLE")
    known: Item | None = None
    try:
        clip.item_id.encode()
        known = server.get(clip.item_id).item
    except UnicodeEncodeError:
        raise OSError(errno.EILSEQ, "its name is not UTF-8; rename it") from None
    except NotFound:
        pass
    except Unavailable:
        lost.set()
        raise
    return server.ingest(
        clip.item_id,
        clip.path,
        title=(known and known.title) or clip.path.stem,
        uri=clip.path.resolve().as_uri(),
        tags=arguments.tag or (known.tags if known else ()),
        attributes=known.attributes if known else {},
        rate=arguments.rate,
        shots=arguments.shots,
    )


def collect(future: Future[Ingested], clip: Clip, done: list[Ingested], failures: list[Failure]) -> None:
    """Notes how one clip ended; only what no other clip can survive goes on upwards."""
    try:
        done.append(future.result())
    except Unavailable as error:
        failures.append(Failure(clip.item_id, str(clip.path), error.message, error.reason or "UNAVAILABLE"))
    except Error as error:
        failures.append(Failure(clip.item_id, str(clip.path), error.message, error.reason))
    except OSError as error:
        why = error.strerror or str(error)
        failures.append(Failure(printable(clip.item_id), printable(str(clip.path)), why, "FILE"))


def summarise(done: list[Ingested], failures: list[Failure]) -> None:
    """How many of each outcome, every warning, every failure."""
    outcomes = Counter(one.outcome.name.lower() for one in done)
    console.print(
        f"{len(done)} of {len(done) + len(failures)} files are in the catalogue"
        + (": " if done else "")
        + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()),
        highlight=False,
    )
    for one in done:
        for warning in one.report.warnings if one.report else ():
            print_warning(f"{one.item.id}: {warning.reason}: {warning.message}")
    if failures:
        rows = [(failure.item, failure.reason, failure.error) for failure in failures]
        console.print(table("failed", {"file": "left", "reason": "left", "why": "left"}, rows))
