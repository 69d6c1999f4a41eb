"""`matchcut train`: models from the operator's own data.

One module for each kind of model, with NAME, SUMMARY, DESCRIPTION, EXAMPLES, add_arguments() and run() as a command
has them. They import torch, through matchcut.server.training, in run() only.
"""

from __future__ import annotations

import argparse
from importlib import import_module, util

from matchcut.server.errors import EngineFailed

NAME = "train"
SUMMARY = "train a model on data of yours"
DESCRIPTION = """\
Trains models that the server serves: cleaning, splitting, training with validation and early stopping, figures on data
held out, and the exported model with its description. Needs the extra "train": pip install "matchcut[train]"."""
EXAMPLES = """\
examples:
  matchcut train image digits --out models/digits
  matchcut train image pictures/ --model default --out models/pictures
"""
MODULES = ("image", "clip", "session", "rollback")  # in the order in which the help lists them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds each kind of model with its options."""
    kinds = parser.add_subparsers(title="what to train", metavar="WHAT", required=True)
    for name in MODULES:
        if util.find_spec(f"{__name__}.{name}") is None:
            continue
        kind = import_module(f"{__name__}.{name}")
        below = kinds.add_parser(
            kind.NAME,
            help=kind.SUMMARY,
            description=kind.DESCRIPTION,
            epilog=kind.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        kind.add_arguments(below)
        below.set_defaults(act=kind.run)


def run(arguments: argparse.Namespace) -> int:
    """Trains, with every package that it needs there."""
    try:
        code: int = arguments.act(arguments)
    except ImportError as error:
        raise EngineFailed(
            f'training needs {error.name}: pip install "matchcut[train]"', reason="TRAINING_NOT_INSTALLED"
        ) from error
    return code
