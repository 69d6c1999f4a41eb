"""`matchcut train image`: a classifier of pictures."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matchcut.server import config
from matchcut.server.commands.output import console, counted, print_json, printable
from matchcut.server.errors import InvalidInput, MatchcutError

if TYPE_CHECKING:
    from matchcut.server.training.image.training import Trained

NAME = "image"
SUMMARY = "a classifier of pictures, from a folder with a sub-folder for each class"
DESCRIPTION = """\
Trains a classifier on the JPEG and PNG files of FOLDER/CLASS/, or on scikit-learn's digits. Files that cannot be read,
pictures that are there twice or nearly, and copies whose classes differ are found and reported first. Copies never
stand on two sides of the split into training, validation and test pictures. Training ends when the validation loss
falls no more; its best weights are judged on the test pictures.

OUT becomes a model of a folder of models: each training adds a version, OUT/1, OUT/2 ..., with model.onnx, model.toml,
labels.txt, report.json, curves.png, confusion.png and confusion.json. It is written only if ONNX Runtime computes what
torch does. `matchcut serve --models` serves it, --tagger has it tag items, and --encoder takes it as an encoder."""
EXAMPLES = """\
examples:
  matchcut train image digits --out models/digits
  matchcut train image pictures/ --model default --out models/pictures
  matchcut train image pictures/ --model default --unfreeze 2 --out models/pictures
  matchcut serve --models models --tagger models/digits
"""
LISTED = 5  # findings of one kind that are printed; report.json has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds data, model and how it is trained."""
    parser.add_argument("data", metavar="FOLDER|digits", help="a folder with a sub-folder for each class, or digits")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the model's folder")
    parser.add_argument(
        "--model",
        choices=("small", "default"),
        default="small",
        help="small: a network for 32 x 32 pixels, from nothing; default: a last layer for the default encoder "
        "[default: small]",
    )
    parser.add_argument("--name", default="", help="of the model [default: the name of --out]")
    parser.add_argument(
        "--unfreeze", type=whole, default=0, metavar="N", help="also learn the default encoder's last N blocks, of 16"
    )
    parser.add_argument("--epochs", type=whole, default=0, help="at most [default: 30; 60 for --model default]")
    parser.add_argument(
        "--patience", type=whole, default=0, help="epochs without a lower validation loss [default: 6; 8]"
    )
    parser.add_argument("--batch", type=whole, default=0, help="pictures of a step [default: 64]")
    parser.add_argument("--rate", type=share, default=0.0, help="highest learning rate [default: 0.002; 0.02]")
    parser.add_argument("--validation", type=share, default=0.15, help="share of the pictures [default: 0.15]")
    parser.add_argument("--test", type=share, default=0.15, help="share of the pictures [default: 0.15]")
    parser.add_argument(
        "--augment", choices=("on", "off"), default="on", help="whether pictures are turned, cropped and lit otherwise"
    )
    parser.add_argument(
        "--flip", choices=("auto", "on", "off"), default="auto", help="whether they are mirrored [default: not digits]"
    )
    parser.add_argument(
        "--near",
        type=near,
        default=0.985,
        metavar="THRESHOLD",
        help="correlation from which on two pictures are nearly equal; 1 switches near copies off [default: 0.985]",
    )
    parser.add_argument("--seed", type=whole, default=0, help="of all chance [default: 0]")
    parser.add_argument("--threads", type=whole, default=0, help="0 takes all cores")
    parser.add_argument(
        "--smoke", action="store_true", help="a few pictures and epochs, to see whether all of it works"
    )
    parser.add_argument("--resume", action="store_true", help="go on with a training that was interrupted")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON document")
    config.add_flags(parser, only=("cache",))


def run(arguments: argparse.Namespace) -> int:
    """Trains, and prints what came of it."""
    from matchcut.server.training.image.training import Options, train
    from matchcut.server.training.progress import bar

    if arguments.unfreeze and arguments.model != "default":
        raise InvalidInput("--unfreeze is for --model default", reason="INVALID_OPTION", field="unfreeze")
    options = Options(
        data=arguments.data,
        out=arguments.out,
        model=arguments.model,
        name=arguments.name,
        epochs=arguments.epochs,
        batch=arguments.batch,
        rate=arguments.rate,
        patience=arguments.patience,
        seed=arguments.seed,
        validation=arguments.validation,
        test=arguments.test,
        augment=arguments.augment == "on",
        flip=None if arguments.flip == "auto" else arguments.flip == "on",
        unfreeze=arguments.unfreeze,
        near=arguments.near,
        smoke=arguments.smoke,
        resume=arguments.resume,
        threads=arguments.threads,
        cache=config.load({"cache": arguments.cache, "config": arguments.config}).cache,
    )
    told: list[dict[str, Any]] = []
    try:
        with bar(silent=arguments.json) as shown:
            trained = train(options, shown, told.append)
    except OSError as error:
        raise InvalidInput(f"{options.out} cannot be written: {error.strerror or error}", field="out") from error
    except MatchcutError:
        if not arguments.json:
            for data in told:  # they may be the reason
                show_data(data, rest="")
        raise
    if arguments.json:
        print_json({"folder": str(trained.folder), **trained.report})
    else:
        show(trained)
    return 0


def show(trained: Trained) -> None:
    """The report in a few lines."""
    data, test, model = trained.report["data"], trained.report["test"], trained.report["model"]
    show_data(data, rest="; report.json has all")
    parts = data["split"]
    say(f"{parts['train']} to learn from, {parts['validation']} to validate, {parts['test']} to test")
    for stage, told in trained.report["training"]["stages"].items():
        why = "stopped early" if told["stopped_early"] else "all of them"
        say(f"{stage}: {told['epochs']} epochs ({why}), the best {told['best_epoch']}")
    low, high = test["interval"]
    say(f"test accuracy {test['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}), {len(test['missed'])} missed")
    say(f"torch and ONNX Runtime differ by {model['parity']:.1e} at most")
    say(f"wrote {trained.folder}")


def show_data(data: dict[str, Any], *, rest: str) -> None:
    """What was found in the data. rest: said of findings that are not listed."""
    count = sum(data["classes"].values())
    say(f"{counted(count, 'pictures')} of {counted(len(data['classes']), 'classes')}")
    findings("unreadable", [f"{each['file']}: {each['why']}" for each in data["unreadable"]], rest)
    findings("equal", [f"{a} = {b}" for a, b in data["equal"]], rest)
    findings("nearly equal", [f"{a} ~ {b}" for a, b in data["nearly_equal"]], rest)
    findings("label conflicts", [f"{a}, {b}" for a, b in data["label_conflicts"]], rest)


def findings(what: str, lines: list[str], rest: str) -> None:
    """How many of a kind, and the first of them."""
    if lines:
        say(f"{what}: {len(lines)}")
        for line in lines[:LISTED]:
            say(f"  {line}")
        if len(lines) > LISTED:
            say(f"  and {len(lines) - LISTED} others{rest}")


def say(text: str) -> None:
    """One line; names in it are other people's words."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def whole(text: str) -> Any:
    """A whole number, 0 or more."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def share(text: str) -> float:
    """A number above 0 and below 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and below 1")
    return value


def near(text: str) -> float:
    """A number above 0 and at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1")
    return value
