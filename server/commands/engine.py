"""`matchcut engine`: encoders in other precisions, and TensorRT engines built ahead of time."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from matchcut.server import config
from matchcut.server.commands.output import console, print_json, printable
from matchcut.server.errors import EngineFailed, InvalidInput

if TYPE_CHECKING:
    from matchcut.server.engines.tensorrt.prepare import Built
    from matchcut.server.models import Encoder
    from matchcut.server.precision import Told

NAME = "engine"
SUMMARY = "write an encoder in another precision, build TensorRT engines"
DESCRIPTION = """\
precision: writes fp16, bf16 or int8 into an encoder's ONNX file, in a new folder with its description. As few layers as
the gate allows stay in float32. The gate is on real frames that were not calibrated with: a cosine to float32 of at
least 0.999 for fp16 and bf16; for int8 0.995, and 0.97 of each frame's ten nearest neighbours the same. The vectors of
each precision are an encoder's of their own: a catalogue has to be indexed with it.

build: builds a TensorRT engine and its manifest beside the ONNX file, in the file's precision or in another one, which
is then written first. An engine that is there and fits is left alone; one that does not is built again."""
EXAMPLES = """\
examples:
  matchcut engine precision --precision int8 --frames clips/*.mp4 --out encoders/int8
  matchcut engine build --precision fp16 --frames clips/*.mp4 --target 80,86,89,120 --batch 1:8:32 --out encoders/fp16
  matchcut engine build encoders/fp16/encoder.onnx --target 89
"""
RATE = 2.0
# Ampere in data centres and desktops, Ada, Blackwell. Turing (75) computes no matrix product in float32 or bfloat16.
TARGETS = (80, 86, 89, 120)
FRAMES = 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the two things that it does."""
    below = parser.add_subparsers(title="what to do", metavar="precision|build", required=True)
    made = below.add_parser("precision", help="write an encoder in another precision")
    made.add_argument("--precision", required=True, choices=("fp16", "bf16", "int8"))
    made.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="a new folder for the encoder")
    made.set_defaults(act=precision)
    built = below.add_parser("build", help="build a TensorRT engine")
    built.add_argument(
        "--precision", choices=("fp32", "fp16", "bf16", "int8"), help="of the engine [default: that of the ONNX file]"
    )
    built.add_argument(
        "--target",
        metavar="80,86,...",
        help="compute capabilities of the GPUs, as 10 * major + minor [default: "
        f"{','.join(map(str, TARGETS))}, or the GPU at hand where the library builds for no other]",
    )
    built.add_argument(
        "--batch",
        metavar="LEAST:USUAL:MOST",
        help="batch sizes that it takes [default: those of the engine that is there, else 1:8:32]",
    )
    built.add_argument("--out", type=Path, metavar="FOLDER", help="where to [default: beside the ONNX file]")
    built.add_argument(
        "--library",
        choices=("tensorrt", "tensorrt_rtx"),
        help="what builds it [default: the first that is installed]",
    )
    built.add_argument("--again", action="store_true", help="build also where an engine is there that fits")
    built.set_defaults(act=build)
    for each in (made, built):
        each.add_argument(
            "encoder", nargs="?", type=Path, metavar="ONNX", help="an encoder in float32 [default: EfficientNet-Lite0]"
        )
        each.add_argument(
            "--frames",
            nargs="+",
            type=Path,
            default=[],
            metavar="MEDIA",
            help="clips and pictures to calibrate with and to judge by; int8 takes at least 44 frames, fp16 and bf16 "
            "make do with the eight pictures that come with matchcut [default: those]",
        )
        each.add_argument("--rate", type=float, default=RATE, help=f"frames a second of clips [default: {RATE:g}]")
        each.add_argument("--max-frames", type=int, default=FRAMES, help=f"frames at most [default: {FRAMES}]")
        each.add_argument(
            "--calibration",
            choices=("minmax", "percentile"),
            default="minmax",
            help="how int8 ranges follow from the frames: from all values, or all but the outermost [default: minmax]",
        )
        each.add_argument("--force", action="store_true", help="keep it also where it is below the gate")
        each.add_argument("--json", action="store_true", help="print one JSON document")
        config.add_flags(each, only=("cache",))


def run(arguments: argparse.Namespace) -> int:
    """Does the one or the other."""
    for name, least in (("rate", 0.001), ("max_frames", 4)):
        if not getattr(arguments, name) >= least:
            flag = f"--{name.replace('_', '-')}"
            raise InvalidInput(f"{flag} must be at least {least:g}", reason="INVALID_OPTION", field=name)
    code: int = arguments.act(arguments)
    return code


def precision(arguments: argparse.Namespace) -> int:
    """Writes the encoder in another precision."""
    path = converted(arguments, encoder_of(arguments), arguments.out)
    show(arguments, path, None)
    return 0


def build(arguments: argparse.Namespace) -> int:
    """Builds the engine, after the encoder in its precision where there is none."""
    from matchcut.server.engines.tensorrt import library as libraries
    from matchcut.server.engines.tensorrt.manifest import Batch
    from matchcut.server.engines.tensorrt.prepare import prepare

    batch = Batch.parse(arguments.batch) if arguments.batch else None
    targets = targets_of(arguments.target)
    try:
        library = libraries.find(arguments.library or "")
    except ImportError as error:
        raise EngineFailed(
            f'TensorRT cannot be used ({error}): pip install "matchcut[tensorrt]", or tensorrt for data centre GPUs',
            reason="ENGINE_NOT_INSTALLED",
        ) from error
    if targets is None:
        targets = tuple(target for target in TARGETS if target in library.targets)
    path = placed(arguments, encoder_of(arguments))
    with progress(arguments) as told:
        built = prepare(
            path, library, targets, batch=batch, again=arguments.again, must_keep=True, phase=told, refused=note
        )
    show(arguments, path, built)
    return 0


def encoder_of(arguments: argparse.Namespace) -> Encoder:
    """The encoder that is named, or the default one."""
    from matchcut.server import models

    settings = config.load({"cache": arguments.cache, "config": arguments.config})
    return models.load(arguments.encoder or models.default_encoder(settings.cache, note))


def targets_of(text: str | None) -> tuple[int, ...] | None:
    """Compute capabilities from "80,86"."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 5 for part in parts):
        raise InvalidInput(
            f"--target {text!r}: give compute capabilities as 10 * major + minor, such as 80,86,89,120",
            reason="INVALID_OPTION",
            field="target",
        )
    return tuple(sorted({int(part) for part in parts}))


def placed(arguments: argparse.Namespace, encoder: Encoder) -> Path:
    """The ONNX file of the wanted precision, in the wanted folder; made where it is not there yet."""
    from matchcut.server import models
    from matchcut.server import precision as precisions
    from matchcut.server.models.measured import facts, sha256

    source, out = encoder.path, arguments.out or encoder.path.parent
    there = out / source.name
    has = str(facts(source).get("precision", "fp32"))
    wanted = arguments.precision or has
    if wanted == has:
        if out.resolve() == source.parent.resolve():
            return source
        if there.is_file() and models.load(there).identity.digest == encoder.identity.digest:
            return there
        return precisions.copy(encoder, out)
    if has != "fp32":
        raise InvalidInput(
            f"{source} is in {has} already; give the encoder in float32 to get {wanted}", field="precision"
        )
    if arguments.out is None:
        raise InvalidInput(f"an encoder in {wanted} needs a folder of its own; give --out", field="out")
    known = facts(there)
    if known.get("precision") == wanted and known.get("source", {}).get("onnx_sha256") == sha256(source):
        if not known.get("passed") and not arguments.force:
            raise EngineFailed(
                f"{there} is below its gate, which was forced; take it with --force", reason="BELOW_GATE"
            )
        return there
    return converted(arguments, encoder, out)


def converted(arguments: argparse.Namespace, encoder: Encoder, out: Path) -> Path:
    """Writes the encoder into a new folder in the wanted precision."""
    from matchcut.server import precision as precisions
    from matchcut.server.engines import trial

    if not arguments.frames:
        note("judged on the few pictures that come with matchcut; --frames takes clips of yours, which say more")
    if out.exists():  # said before the work, not after it
        raise InvalidInput(f"{out} is there already; give another folder, or remove it", field="out")
    try:
        with progress(arguments) as told:
            told("decoding frames", 0, 0)
            media = arguments.frames or sorted(trial.FRAMES.glob("*.jpg"))
            frames = precisions.read(media, encoder, rate=arguments.rate, most=arguments.max_frames)
            made = precisions.convert(encoder, arguments.precision, frames, method=arguments.calibration, told=told)
    except ImportError as error:
        raise EngineFailed(
            f'writing a precision needs {error.name}: pip install "matchcut[encoder]"', reason="ENGINE_NOT_INSTALLED"
        ) from error
    return precisions.write(encoder, made, frames, out, force=arguments.force)


def show(arguments: argparse.Namespace, path: Path, built: Built | None) -> None:
    """What there is now, with its figures."""
    from matchcut.server.models.measured import facts

    known = facts(path)
    if arguments.json:
        made = built and {"fresh": bool(built.why), "why": built.why, **vars_of(built)}
        print_json({"encoder": str(path), "precision": known or None, "engine": made})
        return
    if known:
        figures, left = known["figures"], known["in_float32"]
        shared = "" if figures["overlap"] is None else f", top-10 overlap {figures['overlap']:.4f}"
        say(
            f"{known['precision']} against float32 on {figures['frames']} frames held out: cosine "
            f"{figures['cosine']:.5f} at least, {figures['mean_cosine']:.5f} in the mean{shared}"
            f"{'' if known['passed'] else '; BELOW THE GATE, forced'}"
        )
        say(f"{len(left)} of {known['products']} layers in float32{': ' if left else ''}{', '.join(left)}")
    if built is None:
        say(f"wrote {path}")
        return
    manifest = built.manifest
    say(f"{'built' if built.why else 'there is'} {path.parent / manifest.engine}, {manifest.size / 1e6:.1f} MB")
    say(
        f"{manifest.library} {manifest.version}, {manifest.precision}, for compute capability "
        f"{', '.join(f'{target / 10:.1f}' for target in manifest.targets)}, batch {':'.join(map(str, manifest.batch))}"
    )


def vars_of(built: Built) -> dict[str, object]:
    """The manifest as a dict."""
    from dataclasses import asdict

    return asdict(built.manifest)


def say(text: str) -> None:
    """One line; names in it are other people's words."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def note(text: str) -> None:
    """A line that is no result."""
    print(f"matchcut: {printable(text)}", file=sys.stderr)


@contextmanager
def progress(arguments: argparse.Namespace) -> Iterator[Told]:
    """A bar that shows what is being done, on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(
        *columns, console=console, transient=True, disable=arguments.json or not console.is_terminal
    ) as shown:
        task = shown.add_task("", total=None)

        def told(what: str, done: int, steps: int) -> None:
            shown.update(task, description=printable(what), completed=done, total=steps or None)

        yield told
