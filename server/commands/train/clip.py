"""`matchcut train clip`: a classifier of clips in which the order of the frames matters."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matchcut.server import config
from matchcut.server.commands.output import console, print_json, printable
from matchcut.server.errors import InvalidInput

if TYPE_CHECKING:
    from matchcut.server.training.clip.run import Trained

NAME = "clip"
SUMMARY = "a classifier of clips: a CNN for each frame and a GRU over them"
DESCRIPTION = """\
Trains a CNN and a GRU on the clips of FOLDER/CLASS/, or on digits: scikit-learn's handwritten digits that drift left or
right and then up or down, rendered to video and decoded again. The same CNN with the mean of its vectors in place of
the GRU is trained beside it, and both are judged on test clips: where the mean is as good, order does not matter in
your data. Clips that are broken, cut off or there twice are left out and reported.

OUT becomes a folder of models for `matchcut serve --models`; each training adds a version of NAME-frames (the CNN, an
encoder), NAME-sequence (vectors of whole clips to classes), NAME-step (one step of the GRU, whose state the server
keeps) and NAME-live (the same, and gives the classes after each frame). Reports and pictures are beside NAME-sequence.
They are written only if ONNX Runtime computes what torch does, stepping included."""
EXAMPLES = """\
examples:
  matchcut train clip digits --out models
  matchcut train clip clips/ --size 64 --rate 4 --frames 32 --out models
  matchcut train clip clips/ --features default --rate 2 --frames 32 --hidden 128 --out models
  matchcut serve --models models
"""
LISTED = 5  # clips left out that are printed; report.json has all


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds data, model and how it is trained; the defaults are those of the training's own options."""
    parser.add_argument("data", metavar="FOLDER|digits", help="a folder with a sub-folder for each class, or digits")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="the folder of models")
    parser.add_argument("--name", default="clip", help="begin of the models' names [default: clip]")
    parser.add_argument(
        "--features",
        choices=("small", "default"),
        default="small",
        help="small: a CNN that learns with the GRU; default: the default encoder as it is, whose vectors say what is "
        "seen and little of where [default: small]",
    )
    number = [
        ("--size", int, 32, "side of the pictures that the small CNN takes, a multiple of 32"),
        ("--rate", float, 8.0, "frames a second that are taken of a clip"),
        ("--frames", int, 12, "frames that are taken of a clip at most, from its begin"),
        ("--clips", int, 150, "clips of each class of the digits"),
        ("--dimensions", int, 64, "of the small CNN's vectors"),
        ("--hidden", int, 64, "of the GRU's state; for serve --gru as many as the vectors have"),
        ("--epochs", int, 40, "at most"),
        ("--batch", int, 32, "clips of a step"),
        ("--learning-rate", float, 0.005, "of Adam"),
        ("--patience", int, 15, "epochs without a lower validation loss after which it stops"),
        ("--seed", int, 1, "of the split, the weights and the order"),
        ("--threads", int, 0, "0 takes all cores"),
    ]  # fmt: skip
    for flag, kind, default, text in number:
        parser.add_argument(flag, type=kind, default=default, help=f"{text} [default: {default:g}]")
    parser.add_argument("--smoke", action="store_true", help="a few clips and epochs, to see whether all of it works")
    parser.add_argument("--resume", action="store_true", help="go on with a training that was interrupted")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON document")
    config.add_flags(parser, only=("cache",))


def run(arguments: argparse.Namespace) -> int:
    """Trains, and prints what came of it."""
    from matchcut.server.training.clip import fit
    from matchcut.server.training.clip.run import Options, train
    from matchcut.server.training.progress import bar

    given = vars(arguments)
    same = ("data", "out", "name", "features", "size", "rate", "frames", "clips", "dimensions", "hidden")
    options = Options(
        **{key: given[key] for key in (*same, "smoke", "resume", "threads")},
        fit=fit.Options(
            rate=arguments.learning_rate, **{key: given[key] for key in ("epochs", "batch", "patience", "seed")}
        ),
        cache=config.load({"cache": arguments.cache, "config": arguments.config}).cache,
    )
    with bar(silent=arguments.json) as shown:
        try:
            trained = train(options, shown)
        except OSError as error:
            raise InvalidInput(f"{options.out} cannot be written: {error.strerror or error}", field="out") from error
    if arguments.json:
        print_json({"folders": {kind: str(path) for kind, path in trained.placed.items()}, **trained.report})
    else:
        show(trained)
    return 0


def show(trained: Trained) -> None:
    """The report in a few lines."""
    report: dict[str, Any] = trained.report
    parts, left_out = report["clips"], report["left_out"]
    say(f"{sum(parts.values())} clips of {len(report['classes'])} classes: {parts['train']} to learn from, "
        f"{parts['validation']} to validate, {parts['test']} to test")  # fmt: skip
    if left_out:
        say(f"left out: {len(left_out)}")
        for each in left_out[:LISTED]:
            say(f"  {each['file']}: {each['why']}")
        if len(left_out) > LISTED:
            say("  and others; report.json has all")
    for kind, what in (("gru", "GRU over the frames"), ("mean", "mean of the frames")):
        found = report[kind]
        low, high = found["interval"]
        say(f"{what}: test accuracy {found['accuracy']:.4f} (95 % interval {low:.4f} to {high:.4f}), best of "
            f"{found['epochs']} epochs: {found['best_epoch']}")  # fmt: skip
    say(f"chance is {report['chance']:.4f}; the order of the frames "
        f"{'matters' if report['order_matters'] else 'was not shown to matter'}")  # fmt: skip
    say("largest differences: " + ", ".join(f"{what} {apart:.1e}" for what, apart in report["parity"].items()))
    for path in trained.placed.values():
        say(f"wrote {path}")


def say(text: str) -> None:
    """One line; names in it are other people's words."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
