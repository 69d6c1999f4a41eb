"""`matchcut evaluate`: how good recommendations are, with all that a number depends on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from matchcut.server import config
from matchcut.server.commands.output import print_json, printable
from matchcut.server.errors import InvalidInput

if TYPE_CHECKING:
    from matchcut.server.evaluation.interactions import Interactions
    from matchcut.server.evaluation.report import Report
    from matchcut.server.records import Floats

NAME = "evaluate"
SUMMARY = "measure how good recommendations are"
DESCRIPTION = """\
movielens: evaluates baselines on MovieLens-100K and prints each beside what others published in the same setting. The
data set is fetched on first use with pip, from the wheel recbole==1.2.1, which is not installed. Two splits: "random",
75 % of each user's ratings to learn from; "last", each user's last rating to be found.

Coverage, diversity (of genres), popularity and Gini coefficient of the lists stand below their accuracy. Every number
comes with split, candidates, seen filter, tie rule, seed and a confidence interval over users.
Exit code 1: a published number was not reproduced.

exposures: judges the lists that a server showed by what their users then did, for each variant of each experiment: as
shown, and as they would have been without exploration (IPS and SNIPS, by the propensities in the log). Reads the
server's data folder, also while it serves, and changes nothing there. Numbers are over all users of a variant; how
many they are is told as a server would tell it, with --anonymity: not at all below it, else rounded down."""
EXAMPLES = """\
examples:
  matchcut evaluate movielens
  matchcut evaluate movielens --split last --seen removed --sampled 100
  matchcut evaluate movielens --model sar --seed 1 --json
  matchcut evaluate exposures /srv/matchcut --window 6
"""
MODELS = ("sar", "popular")
LEGEND = """\
Numbers are mean rewards of an item shown. An item earns 1 where its user then did something that speaks for it: a
click, like, save, share, purchase, or watch of more than nothing; else 0 (impression, dislike, skip, or no event). An
event counts that names the list, or else came within {window:g} hours after the last list that its item was in.
The mean weight should be near 1, with 1 in its interval; else IPS and SNIPS do not tell what would have been."""
LONGEST_WINDOW = 24 * 366.0  # hours
SPLITS = ("random", "last")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what can be evaluated."""
    below = parser.add_subparsers(title="what to evaluate", metavar="WHAT", required=True)
    films = below.add_parser("movielens", help="baselines on MovieLens-100K, beside published numbers")
    films.add_argument("--model", action="append", choices=MODELS, help="only this one; may be given again")
    films.add_argument("--split", action="append", choices=SPLITS, help="only this one; may be given again")
    films.add_argument(
        "--seen",
        choices=("kept", "removed"),
        help="whether items of the history can be recommended [default: removed for random, kept for last]",
    )
    films.add_argument("--k", type=int, default=10, metavar="N", help="length of the lists [default: 10]")
    films.add_argument(
        "--sampled",
        type=int,
        default=0,
        metavar="N",
        help="for last: rank the target among N random items only; flatters [default: all items]",
    )
    films.add_argument(
        "--ties",
        choices=("expected", "lower", "worst"),
        default="expected",
        help="for last: the rank of a target that scores as others do [default: expected]",
    )
    films.add_argument("--seed", type=int, default=0, metavar="N", help="of split, sample and intervals [default: 0]")
    films.add_argument("--wheel", type=Path, metavar="FILE", help="the wheel, where it is not to be fetched")
    films.add_argument("--json", action="store_true", help="print one JSON document")
    config.add_flags(films, only=("cache",))
    films.set_defaults(act=movielens)
    shown = below.add_parser("exposures", help="lists that were shown, by what their users then did")
    shown.add_argument(
        "folder", nargs="?", type=Path, metavar="DATA", help="data folder of the server [default: --data]"
    )
    shown.add_argument("--tenant", help="only of this one; '' is the default one [default: all]")
    shown.add_argument(
        "--window",
        type=float,
        default=24.0,
        metavar="HOURS",
        help="how long after a list what a user does counts for it; what names a list always does [default: 24]",
    )
    shown.add_argument("--clip", type=float, metavar="W", help="the most that a weight may be [default: any]")
    shown.add_argument("--json", action="store_true", help="print one JSON document")
    config.add_flags(shown, only=("data", "anonymity"))
    shown.set_defaults(act=exposures)


def run(arguments: argparse.Namespace) -> int:
    """Evaluates what was asked for."""
    code: int = arguments.act(arguments)
    return code


def movielens(arguments: argparse.Namespace) -> int:
    """Evaluates and prints; 1 where a published number was not reproduced."""
    for name, least in (("k", 1), ("sampled", 0), ("seed", 0)):
        if getattr(arguments, name) < least:
            raise InvalidInput(f"--{name} must be at least {least}", reason="INVALID_OPTION", field=name)
    from matchcut.server.evaluation import movielens as films  # numpy takes a while, which --help should not

    wheel = arguments.wheel
    if wheel is None:
        settings = config.load({"cache": arguments.cache, "config": arguments.config})
        wheel = films.fetch(settings.cache, lambda text: print(f"matchcut: {text}", file=sys.stderr))
    data = films.interactions(wheel)
    genres = films.genres(wheel, data.item_ids)
    reports: list[Report] = []
    for split in arguments.split or SPLITS:
        made = made_of(split, data, genres, arguments)
        reports += made
        if not arguments.json:
            print("\n\n".join(report.text() for report in made))
            print(f"\n{films.PUBLISHED['sar' if split == 'random' else 'gru4rec'].text()}\n")
    if arguments.json:
        print_json([report.plain() for report in reports])
    return 1 if any(row.reproduced is False for report in reports for row in report.rows) else 0


def made_of(split: str, data: Interactions, genres: Floats, arguments: argparse.Namespace) -> list[Report]:
    """A report of each model, on that split."""
    from matchcut.server.evaluation import baselines

    models = dict.fromkeys(arguments.model or MODELS)
    k, seed = arguments.k, arguments.seed
    if split == "random":
        removed = arguments.seen != "kept"
        return [baselines.at_random(model, data, genres, k=k, seed=seed, removed=removed) for model in models]
    removed, asked = arguments.seen == "removed", {"candidates": arguments.sampled, "ties": arguments.ties}
    return [baselines.the_last(model, data, genres, k=k, seed=seed, removed=removed, **asked) for model in models]


def exposures(arguments: argparse.Namespace) -> int:
    """Judges and prints."""
    if not 0 < arguments.window <= LONGEST_WINDOW:
        message = f"--window must be above 0 and at most {LONGEST_WINDOW:g} hours"
        raise InvalidInput(message, reason="INVALID_OPTION", field="window")
    if arguments.clip is not None and not arguments.clip > 0:
        raise InvalidInput("--clip must be above 0", reason="INVALID_OPTION", field="clip")
    from matchcut.server import events
    from matchcut.server.evaluation.exposures import by_variant, judge

    given = {name: getattr(arguments, name) for name in ("data", "anonymity", "config")}
    settings = config.load(given)
    folder = arguments.folder or settings.data
    log = folder / events.FILE

    def mine(tenant: str) -> bool:
        return arguments.tenant is None or tenant == arguments.tenant

    judged = judge(
        (one for one in events.read_exposures(log) if mine(one[0])),
        (one for one in events.read_log(log) if mine(one[0])),
        (one for one in events.read_answers(log) if mine(one[0])),
        window_us=max(1, round(arguments.window * 3600e6)),
    )
    reports = by_variant(judged, clip=arguments.clip, threshold=settings.anonymity)
    if arguments.json:
        print_json([report.plain() for report in reports])
    elif reports:
        print(
            "\n\n".join([LEGEND.format(window=arguments.window), *(printable_lines(each.text()) for each in reports)])
        )
    else:
        print(f"no list was shown to anyone yet, as far as {log} knows")
    return 0


def printable_lines(text: str) -> str:
    """Lines that a terminal only shows: names of experiments are other people's words."""
    return "\n".join(printable(line) for line in text.splitlines())
