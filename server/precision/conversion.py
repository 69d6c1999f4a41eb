"""From an encoder in float32 to one in another precision, judged on frames that it was not made with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.models import Encoder
from matchcut.server.precision import casts, network, quantize, search
from matchcut.server.precision.frames import Frames
from matchcut.server.precision.gate import FEWEST, GATES, Figures, Gate, judge
from matchcut.server.records import Floats

__all__ = ["PRECISIONS", "Converted", "Precision", "Told", "convert"]

Precision = Literal["fp16", "bf16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16", "int8")
# Told what is being done, how many steps of it are done, and how many there are (0: unknown).
Told = Callable[[str, int, int], None]

# On the frames that it is tuned with, this share of the deviation is let through that the gate allows on the others.
TUNED_COSINE = 0.5
TUNED_OVERLAP = 0.75
SEARCHED = 8  # frames that tell how sensitive a layer is


@dataclass(frozen=True, slots=True)
class Converted:
    """The ONNX file's bytes, what of it stayed in float32, and how well it does.

    left: names of products that stay in float32. products: how many there are altogether.
    faults: what of the gate is not kept; empty where all is.
    """

    model: bytes
    precision: Precision
    left: tuple[str, ...]
    products: int
    figures: Figures
    faults: tuple[str, ...]


def convert(
    encoder: Encoder,
    precision: Precision,
    frames: Frames,
    *,
    method: quantize.Method = "minmax",
    told: Told = lambda what, done, steps: None,
) -> Converted:
    """Writes the precision into the graph, leaving as few layers in float32 as the gate allows.

    Which layers: for fp16 and bf16 the first ones, since a rounding error grows on its way; for int8 those that do the
    most damage alone. How many is found on the calibration frames, with less tolerance than the gate has; the figures
    are those of the frames held out. Without a number that is enough, all are reduced, and the figures say what that
    costs.

    Args:
        encoder: of float32.
        method: see quantize.ranges.

    Raises:
        EngineFailed: the graph cannot be converted; the message says why.
        InvalidInput: there are too few frames.
        ImportError: onnx or onnxruntime is missing.
    """
    model = network.read(encoder.path)
    names = network.products(model)
    if not names:
        raise EngineFailed(f"{encoder.path} has no layer with weights to convert", reason="PRECISION_FAILED")
    for what, given in (("calibrate", frames.calibration), ("are held out", frames.held_out)):
        if GATES[precision].overlap and len(given) < FEWEST:
            raise InvalidInput(
                f"{len(given)} frames {what}, and the overlap of neighbours takes {FEWEST}; give more media with "
                "--frames, or a higher --rate",
                field="frames",
            )
    told("vectors in float32", 0, 0)
    exact, judged = network.run(model, frames.calibration), network.run(model, frames.held_out)
    if precision == "int8":
        write, order = int8(model, names, frames.calibration, exact, method, told)
    else:
        write, order = half(model, precision), names
    left = order[: layers_left(precision, order, write, frames.calibration, exact, told)]
    made = write(left)
    told("judging on frames held out", 0, 0)
    figures = judge(vectors(made, frames.held_out), judged)
    return Converted(
        model=network.serialised(made),
        precision=precision,
        left=tuple(name for name in names if name in left),
        products=len(names),
        figures=figures,
        faults=tuple(GATES[precision].faults(figures)),
    )


Write = Callable[[list[str]], Any]


def layers_left(precision: Precision, order: list[str], write: Write, frames: Floats, exact: Floats, told: Told) -> int:
    """How many of the layers, in their order, have to stay in float32; 0 where no number is enough.

    First by the cosine, which grows steadily. The overlap is counted in neighbours that are often nearly equal, and
    goes up and down from one number to the next: it is looked at one by one from there on.
    """
    gate, tried = GATES[precision], 0

    def figures(count: int) -> Figures:
        nonlocal tried
        tried += 1
        told(f"{count} of {len(order)} layers in float32", tried, 0)
        return judge(vectors(write(order[:count]), frames), exact)

    cosine = Gate(gate.narrowed(TUNED_COSINE).cosine)
    start = search.fewest(len(order), lambda count: not cosine.faults(figures(count)))
    if start is None or not gate.overlap:
        return start or 0
    both = Gate(cosine.cosine, gate.narrowed(TUNED_OVERLAP).overlap)
    return search.onwards(start, len(order), lambda count: not both.faults(figures(count))) or 0


def half(model: Any, precision: casts.Half) -> Write:
    """What makes a model of that precision, given what stays in float32."""
    return lambda left: casts.lowered(model, precision, left)


def int8(
    model: Any, names: list[str], frames: Floats, exact: Floats, method: quantize.Method, told: Told
) -> tuple[Write, list[str]]:
    """What makes a model in int8, given what stays in float32; and the layers by how much they suffer."""
    told("calibrating", 0, 0)
    seen = quantize.ranges(model, frames, method)
    step = -(-len(frames) // SEARCHED)

    def alone(name: str) -> Floats:
        return network.run(quantize.quantised(model, seen, [name]), frames[::step], exactly=False)

    def done(count: int) -> None:
        told("each layer alone in int8", count, len(names))

    order = search.by_damage(names, alone, exact[::step], done)
    return lambda left: quantize.quantised(model, seen, [name for name in names if name not in left]), order


def vectors(model: Any, frames: Floats) -> Floats:
    """What the model gives for frames, with every rounding that it stands for, on whichever CPU."""
    return network.run(casts.emulated(model), frames)
