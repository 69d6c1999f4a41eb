"""`matchcut recommend`: what should a user see now?"""

from __future__ import annotations

import argparse
from collections import deque
from contextlib import closing
from pathlib import Path
from typing import Any

from matchcut.client import Event, NotAllowed, UserRanking
from matchcut.server.commands.connect import add_connection, add_tag_filter, client, say, told
from matchcut.server.commands.event_rows import Rows
from matchcut.server.commands.output import console, counted, print_json, print_report, print_times, printable, table
from matchcut.server.errors import InvalidInput

NAME = "recommend"
SUMMARY = "ask what a user should see now"
DESCRIPTION = """\
Prints the list that the server makes for a user of all that the user did (`matchcut events`) and, if it is told, of
what is of interest right now: items like these, or a clip. With --explain also what each score is made of, and the
chance with which the item came to its place."""
EXAMPLES = """\
examples:
  matchcut recommend ann
  matchcut recommend ann --limit 5 --explain
  matchcut recommend ann --like tour/bikes.mp4 --current-weight 0.8
  matchcut recommend ann --clip clip.mp4 --tag sport --json
  matchcut recommend ann --history january.csv
"""
HISTORY = 1000  # events that the server takes with a request
SIGNALS = ("history", "current", "freshness", "popularity")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the user, the list's options and the connection."""
    parser.add_argument("user", metavar="USER", help="id of the user, as events name it")
    parser.add_argument("--like", action="append", default=[], metavar="ITEM", help="of interest right now (repeat)")
    parser.add_argument("--clip", metavar="FILE", help="video file that is of interest right now")
    parser.add_argument(
        "--history",
        type=Path,
        metavar="FILE",
        help="in place of what the server keeps of the user, the user's events in this file (.csv or .jsonl, as for "
        "`matchcut events`); the newest rows come last",
    )
    parser.add_argument("--limit", type=int, default=10, help="how many items [default: 10]")
    parser.add_argument("--exclude", action="append", default=[], metavar="ITEM", help="leave this item out (repeat)")
    parser.add_argument("--minimum-score", type=float, help="only items that score at least this")
    parser.add_argument("--explain", action="store_true", help="show what each score is made of, and the chance")
    blend = parser.add_argument_group("blend", "how the list is made; what is left out is the server's to say")
    blend.add_argument("--include-seen", action="store_true", default=None, help="items that the user knows, too")
    blend.add_argument("--mmr-lambda", type=float, help="1: relevance alone; less: more diverse")
    blend.add_argument("--current-weight", type=float, help="0 to 1: of what is of interest against the history")
    blend.add_argument("--freshness", type=float, help="weight of how new an item is; relevance weighs 1")
    blend.add_argument("--freshness-half-life", type=float, metavar="SECONDS", help="after which it is half as new")
    blend.add_argument("--popularity", type=float, help="weight of how many users took to an item")
    blend.add_argument("--cap", type=int, help="most items with one value of --cap-attribute; 0: any number")
    blend.add_argument("--cap-attribute", metavar="NAME", help="attribute of items that --cap is about")
    blend.add_argument("--exploration", type=float, help="0 to 1: chance that a position is filled at random")
    add_tag_filter(parser)
    add_connection(parser)


@told
def run(arguments: argparse.Namespace) -> int:
    """Asks and prints."""
    if arguments.like and arguments.clip:
        raise InvalidInput("give either --like or --clip")
    blend = (
        *("include_seen", "mmr_lambda", "current_weight", "freshness", "freshness_half_life"),
        *("popularity", "cap", "cap_attribute", "exploration"),
    )
    options: dict[str, Any] = {name: getattr(arguments, name) for name in blend}
    options |= {
        "limit": arguments.limit,
        "exclude": arguments.exclude,
        "minimum_score": arguments.minimum_score,
        "all_of": arguments.tag,
        "any_of": arguments.any_tag,
        "none_of": arguments.not_tag,
    }
    history = events_of(arguments.user, arguments.history) if arguments.history else ()
    try:
        with client(arguments) as server:
            ranking = server.recommend_for(
                arguments.user, history=history, items=arguments.like or None, clip=arguments.clip, **options
            )
    except NotAllowed as error:
        if error.reason != "USERS_OFF":
            raise
        say(f"{error.message} (here: --history FILE)")
        return 1
    if arguments.json:
        print_json(ranking)
    else:
        show(ranking, arguments.user, explain=arguments.explain)
    return 0


def events_of(user: str, file: Path) -> deque[Event]:
    """The last events of the user in a file, as many as a history may have.

    Raises:
        InvalidInput: a row is wrong, or none is of the user.
        OSError: the file cannot be read.
    """
    found: deque[Event] = deque(maxlen=HISTORY)
    with closing(Rows(file)) as rows:
        for line, event in rows:
            if isinstance(event, str):
                raise InvalidInput(f"line {line} of {file}: {event}")
            if event.user == user:
                found.append(event)
    if not found:
        raise InvalidInput(f"{file} has no event of {user!r}")
    return found


def show(ranking: UserRanking, title: str, *, explain: bool) -> None:
    """The list, who made it of what, then the time of each stage."""
    columns = {"#": "right", "item": "left", "score": "right", "like": "left", "cosine": "right"}
    if explain:
        columns |= {"made of": "left", "chance": "right"}
    shown = table(title, columns, (cells(ranking, place, explain) for place in range(len(ranking))))
    for column in shown.columns:
        column.overflow = "fold"  # ids are there to be copied
        column.no_wrap = column.justify == "right"
    console.print(shown)
    scores = [match.score for match in ranking]
    if scores != sorted(scores, reverse=True):
        console.print("diversity, caps and exploration decide the order beside the score: see --mmr-lambda, --cap")
    if not ranking.matches:
        console.print(
            "no item is eligible: the catalogue is empty, the user knows all of it, the filters leave nothing, or its "
            "items were put in with another encoder (the server's log says so when it starts)"
        )
    console.print(made_of(ranking), highlight=False, markup=False)
    if ranking.report is not None:
        print_report(ranking.report)
    print_times(ranking.times, ranking.encoder)


def cells(ranking: UserRanking, place: int, explain: bool) -> tuple[str, ...]:
    """One row of the table."""
    match = ranking.matches[place]
    why = match.reason
    near = (why.nearest, f"{why.similarity:.3f}") if why.nearest else ("", "")
    shown = (str(place + 1), match.item.id, f"{match.score:.4f}", *near)
    if not explain:
        return shown
    made = ", ".join(f"{signal} {why.shares[signal]:.0%}" for signal in SIGNALS if why.shares.get(signal))
    return (*shown, made, f"{match.propensity:.3g}")


def made_of(ranking: UserRanking) -> str:
    """What is behind the list, in a line."""
    known = f"made of {counted(ranking.events, 'events')}" if ranking.events else "no event of the user counts yet"
    if ranking.cold and ranking.events:
        known += ", none of which tells what the user likes: what is popular and new"
    elif ranking.cold:
        known += ", nothing else is known: what is popular and new"
    said = f"{known}; session model {ranking.model.name} {ranking.model.version}; list {ranking.recommendation_id}"
    if ranking.variant is not None:
        said += f"; experiment {ranking.variant.experiment}: {ranking.variant.name}"
    return printable(said)
