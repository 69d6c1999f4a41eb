"""`matchcut reindex`: let the server's next encoder take over, once it has seen all media."""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from matchcut.client import Client, Error, FailedPrecondition, Item, NotFound, Page, Switched, Unavailable
from matchcut.server.commands.connect import UNREACHABLE, add_connection, client, positive, say, told, unreachable
from matchcut.server.commands.output import console, counted, print_json, printable, table
from matchcut.server.commands.parallel import parallel
from matchcut.server.errors import InvalidInput

NAME = "reindex"
SUMMARY = "let another encoder take over"
DESCRIPTION = """\
For a server that was started with --next-encoder. Sends it the media of every item that has no vectors of that encoder
yet; what it makes of it is kept aside, and rankings go on as before. When no item lacks any, the encoders change places
at once, for all items and without a failed request.
An item's media is the file that its uri names, if that is a file of this machine, or the file below --root that is
called as the item, as `matchcut index` calls them. It has to be the very content that the item was made of.
What is done stays done: a run that was broken off goes on where it stopped when it is started again.
The exit code is 1 if the encoders have not changed places; a table says which items are in the way, and why."""
EXAMPLES = """\
examples:
  matchcut reindex
  matchcut reindex --root clips/ --parallel 2
  matchcut reindex --dry-run
  matchcut reindex --force        # items without media stay behind, and are not ranked with the others
"""


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that the next encoder has not seen."""

    item: str
    reason: str
    error: str


@dataclass(slots=True)
class Outcome:
    """What became of the items of a run. lost: the server is of no use any more. unavailable: what was told of that."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, Failure] = field(default_factory=dict)
    lost: threading.Event = field(default_factory=threading.Event)
    unavailable: Unavailable | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds where media is, how to go about it, and the connection."""
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder in which media is called as its item")
    parser.add_argument(
        "--parallel", type=int, default=min(4, os.cpu_count() or 1), help="items at once [default: cores, 4 at most]"
    )
    parser.add_argument(
        "--force", action="store_true", help="change the encoder although items lack its vectors; they stay behind"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be sent, and what has no media")
    old = parser.add_argument_group("for items of catalogues that do not know yet how their media was read")
    old.add_argument("--rate", type=positive, help="--rate of the `matchcut index` that put them in")
    old.add_argument("--shots", choices=("exact", "coarse", "off"), help="--shots of it")
    add_connection(parser)


@told
def run(arguments: argparse.Namespace) -> int:
    """Sends what is lacking and changes the encoder; 1 if it was not changed."""
    if arguments.parallel < 1:
        raise InvalidInput("--parallel must be at least 1")
    if arguments.root is not None and not arguments.root.is_dir():
        raise InvalidInput(f"--root {arguments.root} is no folder")
    with client(arguments) as server:
        page = server.page(size=1)
        if page.next_encoder is None:
            say(f"the server answers with {page.encoder.name!r} and has no other; start it with --next-encoder FILE")
            return 1
        if arguments.dry_run:
            return look(server, page, arguments)
        outcome = Outcome()
        while todo := [one for one in server.items(lacking_next_encoder=True) if one.id not in outcome.failed]:
            work(server, todo, outcome, arguments)
            if outcome.lost.is_set():
                say(unreachable(arguments, outcome.unavailable))
                return UNREACHABLE
        state = switched(server, arguments)
    tell(page, state, outcome, arguments)
    return 0 if state.done else 1


def look(server: Client, page: Page, arguments: argparse.Namespace) -> int:
    """Tells what a run would do; 1 if items would be in the way."""
    outcome = Outcome()
    for item in server.items(lacking_next_encoder=True):
        if next(candidates(item, arguments.root), None) is not None:
            outcome.done.append(item.id)
        else:
            outcome.failed[item.id] = without_media(server, item)
    tell(page, server.switch_encoder(dry_run=True), outcome, arguments)
    return 1 if outcome.failed else 0


def work(server: Client, items: list[Item], outcome: Outcome, arguments: argparse.Namespace) -> None:
    """Sends the media of these items, so many at once."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("items"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=arguments.json) as progress:
        task = progress.add_task("reindexing", total=len(items))
        send = partial(one, server, outcome, arguments)
        # To close the client ends the calls under way; what was kept aside before stays.
        with closing(parallel(send, items, threads=arguments.parallel, stop=server.close)) as finished:
            for item, future in finished:
                future.result()
                progress.update(task, advance=1, description=f"reindexing {printable(item.id)}")


def one(server: Client, outcome: Outcome, arguments: argparse.Namespace, item: Item) -> None:
    """Sends one item's media and notes how it went."""
    if outcome.lost.is_set():
        return
    try:
        failure = attempt(server, item, arguments)
    except NotFound:  # it was removed meanwhile
        return
    except Unavailable as error:
        outcome.unavailable = outcome.unavailable or error
        outcome.lost.set()
        return
    if failure is None:
        outcome.done.append(item.id)
    elif failure.reason != "ITEM_CHANGED":  # it was replaced meanwhile: it is found again with its new media
        outcome.failed[item.id] = failure


def attempt(server: Client, item: Item, arguments: argparse.Namespace) -> Failure | None:
    """Sends the first file that is the item's media; None where one was taken."""
    failure: Failure | None = None
    for path in candidates(item, arguments.root):
        try:
            server.ingest(item.id, path, for_next_encoder=True, rate=arguments.rate, shots=arguments.shots)
            return None
        except (NotFound, Unavailable):
            raise
        except Error as error:
            failure = Failure(item.id, error.reason, f"{path}: {error.message}")
            if error.reason != "OTHER_MEDIA":
                return failure
        except OSError as error:
            failure = Failure(item.id, "FILE", f"{path}: {error.strerror or error}")
    return failure or without_media(server, item)


def candidates(item: Item, root: Path | None) -> Iterator[Path]:
    """The files of this machine that may be the item's media.

    Uris and ids are other people's words: only plain files are opened, and below the root only what really lies there.
    """
    named = local(item.uri)
    if named is not None and is_file(named):
        yield named
    if root is not None and is_file(root / item.id) and (root / item.id).resolve().is_relative_to(root.resolve()):
        yield root / item.id


def local(uri: str) -> Path | None:
    """The path that a uri names on this machine; None where it names none."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return None
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    return Path(uri) if uri.startswith("/") else None


def is_file(path: Path) -> bool:
    """Whether it is a plain file; a name that no file can have names none."""
    try:
        return path.is_file()
    except OSError:
        return False


def without_media(server: Client, item: Item) -> Failure:
    """Why there is nothing to send for an item."""
    if server.get(item.id).from_vectors:
        return Failure(
            item.id, "VECTORS", "it came as vectors; send the next encoder's with ingest_vectors(for_next_encoder=True)"
        )
    where = f"its uri {item.uri} is no file of this machine" if item.uri else "it has no uri"
    return Failure(item.id, "NO_MEDIA", f"{where}; put its media below --root, called as the item")


def switched(server: Client, arguments: argparse.Namespace) -> Switched:
    """Changes the encoder if nothing is in the way; how it stands where something is."""
    try:
        return server.switch_encoder(force=arguments.force)
    except FailedPrecondition as error:
        if error.reason != "ITEMS_LACKING":
            raise
    return server.switch_encoder(dry_run=True)


def tell(before: Page, state: Switched, outcome: Outcome, arguments: argparse.Namespace) -> None:
    """What was done, what was not and why, and which encoder answers."""
    failures = list(outcome.failed.values())
    if arguments.json:
        shown = {"before": before.encoder, "next": state.encoder, "switched": state.done, "ready": state.ready}
        print_json({**shown, "total": state.total, "done": outcome.done, "failed": failures})
        return
    verb = "would send" if arguments.dry_run else "sent"
    console.print(f"{verb} the media of {counted(len(outcome.done), 'items')}", highlight=False)
    if failures:
        rows = [(failure.item, failure.reason, failure.error) for failure in failures]
        console.print(table("in the way", {"item": "left", "reason": "left", "why": "left"}, rows))
    have = f"{state.ready} of {counted(state.total, 'items')} have vectors of {printable(state.encoder.name)}"
    if state.done:
        console.print(f"{have}, which answers from now on", highlight=False)
        return
    console.print(f"{have}; {printable(before.encoder.name)} goes on answering", highlight=False)
    others = sorted({tenant for tenant, _ in state.lacking} - {arguments.tenant})
    if others:
        names = ", ".join(repr(printable(tenant)) for tenant in others)
        console.print(f"items of other tenants lack some, too: run it with --tenant for {names}", highlight=False)
