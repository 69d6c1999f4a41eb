"""`matchcut query`: what goes with a clip, or with items of the catalogue?"""

from __future__ import annotations

import argparse

from matchcut.client import Ranking
from matchcut.server.commands.connect import add_connection, add_tag_filter, client, positive, told
from matchcut.server.commands.output import print_json, print_ranking
from matchcut.server.errors import InvalidInput

NAME = "query"
SUMMARY = "ask what goes with a clip or an item"
DESCRIPTION = """\
Sends a clip to the server, or names items of its catalogue, and prints the items that go with it best: the score
(cosine, 1 is equal), where in the query and where in the item they match, and what each stage took."""
EXAMPLES = """\
examples:
  matchcut query clip.mp4
  matchcut query clip.mp4 --limit 3 --tag sport --not-tag draft
  matchcut query clip.mp4 --live         print each list as it improves while the clip is sent
  matchcut query clip.mp4 --live --temporal gru    what goes with what is shown at each moment
  matchcut query --item tour/bikes.mp4   ask with an item of the catalogue
  matchcut query clip.mp4 --json | jq '.matches[0].item.id'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the query, the ranking's options and the connection."""
    parser.add_argument("file", nargs="?", help="video file to ask with")
    parser.add_argument("--item", action="append", default=[], help="item of the catalogue to ask with (repeat)")
    parser.add_argument("--live", action="store_true", help="print every list, not only the last")
    parser.add_argument("--limit", type=int, default=10, help="how many items [default: 10]")
    parser.add_argument("--exclude", action="append", default=[], metavar="ITEM", help="leave this item out (repeat)")
    parser.add_argument("--minimum-score", type=float, help="only items that score at least this")
    parser.add_argument(
        "--temporal",
        choices=("segments", "gru"),
        default="segments",
        help="compare each segment of the clip, or with what it shows last: a GRU's state [default: segments]",
    )
    parser.add_argument("--rate", type=positive, help="frames per second to use [default: the server's]")
    add_tag_filter(parser)
    add_connection(parser)


@told
def run(arguments: argparse.Namespace) -> int:
    """Asks and prints."""
    if bool(arguments.file) == bool(arguments.item):
        raise InvalidInput("name either a file or --item; `matchcut query --help` shows how")
    if arguments.live and not arguments.file:
        raise InvalidInput("--live needs a file")
    options = {
        "limit": arguments.limit,
        "exclude": arguments.exclude,
        "all_of": arguments.tag,
        "any_of": arguments.any_tag,
        "none_of": arguments.not_tag,
        "minimum_score": arguments.minimum_score,
    }
    media = {"rate": arguments.rate, "temporal": arguments.temporal}
    title = arguments.file or ", ".join(arguments.item)
    with client(arguments) as server:
        if arguments.live:
            for ranking in server.live(arguments.file, **media, **options):
                show(ranking, f"{title}, list {ranking.revision}", arguments)
        elif arguments.file:
            show(server.recommend(clip=arguments.file, **media, **options), title, arguments)
        else:
            show(server.recommend(items=arguments.item, **options), title, arguments)
    return 0


def show(ranking: Ranking, title: str, arguments: argparse.Namespace) -> None:
    """Prints one list."""
    if arguments.json:
        print_json(ranking)
    else:
        print_ranking(ranking, title)
