"""`matchcut train clip` without its command line: read the clips, fit a GRU and a mean, judge both, publish."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from matchcut.server.errors import InvalidInput
from matchcut.server.records import Floats, InputSize, Pixels
from matchcut.server.training import curves
from matchcut.server.training.clip import clips as clip_sets
from matchcut.server.training.clip import drift, fit, publish, reading
from matchcut.server.training.clip.clips import Clips
from matchcut.server.training.clip.model import STEP, ClipNet, FrameNet, Pooled, Recurrent, seeded
from matchcut.server.training.image.judging import confusion, draw_confusion, interval
from matchcut.server.training.progress import Bar

__all__ = ["DEFAULT", "SMALL", "Options", "Trained", "train"]

SMALL, DEFAULT = "small", "default"
KINDS = {"gru": Recurrent, "mean": Pooled}
SIDE = 64  # of the digits' video where the default encoder looks at it
JUDGED = 32  # clips on which parity is measured
LIBRARIES = ("matchcut", "av", "numpy", "onnx", "onnxruntime", "torch")

Encode = Callable[[Pixels], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Options:
    """What is trained on what; see the command's help.

    data: a folder, or "digits". clips: of each class of the digits.
    size: of the square pictures that the small CNN takes. dimensions: of its vectors. hidden: of the GRU's state.
    """

    data: str
    out: Path
    name: str = "clip"
    features: str = SMALL
    size: int = 32
    rate: float = drift.FPS
    frames: int = 12
    clips: int = 150
    dimensions: int = 64
    hidden: int = 64
    fit: fit.Options = field(default_factory=fit.Options)
    smoke: bool = False
    resume: bool = False
    threads: int = 0
    cache: Path | None = None


@dataclass(frozen=True, slots=True)
class Trained:
    """placed: the folder of each model by its kind. report: what report.json says."""

    placed: dict[str, Path]
    report: dict[str, Any]


def train(options: Options, bar: Bar) -> Trained:
    """Trains, judges and publishes.

    Raises:
        InvalidInput: an option, the clips or the checkpoint.
        EngineFailed: the exported models are not what was trained; nothing was written.
        ImportError: a package of the extra "train" is missing.
        OSError: the disk is full or cannot be written.
    """
    options = checked(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    clips, encoder = read(options, bar)
    mean, std = colours(clips) if encoder is None else ([0.0] * 3, [1.0] * 3)
    scratch = options.out / ".training"
    scratch.mkdir(parents=True, exist_ok=True)
    print_of_data = clip_sets.digest(clips)
    nets, fitted, judged = {}, {}, {}
    for kind in KINDS:
        nets[kind] = made(kind, clips, options, mean, std)
        fitted[kind] = fit.fit(
            nets[kind],
            clips.train,
            clips.validation,
            options.fit,
            bar=bar,
            what=f"{kind}: epochs",
            checkpoint=scratch / f"{options.name}-{kind}.pt",
            fingerprint=fingerprint(kind, options, print_of_data),
            resume=options.resume,
        )
        judged[kind] = figures(nets[kind], fitted[kind], clips)
    best = nets["gru"]
    pictures, features = samples(best, clips)
    composed = publish.compose(
        best.frames,
        best.over_time,
        pictures,
        features,
        name=options.name,
        size=options.size,
        mean=mean,
        std=std,
        classes=clips.classes,
    )
    version = publish.next_version(options.out, options.name)
    report = reported(options, clips, encoder, judged, dict(composed.parity), version)
    files = {"report.json": (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode()}
    placed = publish.place(composed, {**files, **drawn(fitted, judged, clips)}, options.out, options.name, version)
    return Trained(placed, report)


def checked(options: Options) -> Options:
    """The options, smaller ones for a smoke test, if they are possible."""
    publish.check_name(options.name)
    for name in ("dimensions", "hidden", "frames"):
        if not 2 <= getattr(options, name) <= 4096:
            raise InvalidInput(f"--{name} is 2 to 4096, not {getattr(options, name)}", field=name)
    if not 0 < options.rate <= 1000:
        raise InvalidInput(f"--rate is above 0 and at most 1000 frames a second, not {options.rate:g}", field="rate")
    if options.size % STEP or not STEP <= options.size <= 512:
        raise InvalidInput(f"--size is a multiple of {STEP} up to 512, not {options.size}", field="size")
    if options.clips < 3:
        raise InvalidInput(f"--clips is at least 3 of each class, not {options.clips}", field="clips")
    if options.fit.epochs < 1 or options.fit.batch < 2 or options.fit.patience < 1 or options.fit.seed < 0:
        raise InvalidInput("--epochs and --patience are at least 1, --batch at least 2, --seed at least 0", field="fit")
    if not 0 < options.fit.rate <= 1:
        raise InvalidInput(f"--learning-rate is above 0 and at most 1, not {options.fit.rate:g}", field="learning_rate")
    if options.smoke:
        return replace(
            options, clips=min(options.clips, 8), fit=replace(options.fit, epochs=min(options.fit.epochs, 2))
        )
    return options


def read(options: Options, bar: Bar) -> tuple[Clips, dict[str, str] | None]:
    """The clips, and which encoder made vectors of them; None where their frames are kept for the small CNN."""
    size, known, close = InputSize(options.size, options.size), None, None
    recipe = reading.Recipe(size, options.rate, options.frames)
    if options.features == DEFAULT:
        from matchcut.server.training.clip.frozen import frozen

        encode, encoder, close = frozen(options.cache, options.threads, bar)
        recipe = replace(recipe, size=encoder.input, encode=encode)
        known = {"name": encoder.identity.name, "digest": encoder.identity.digest}
    try:
        if options.data == reading.DIGITS:
            side = options.size if close is None else SIDE
            found = reading.of_digits(options.clips, options.frames, side, recipe, seed=options.fit.seed, bar=bar)
        else:
            found = reading.of_folder(Path(options.data), recipe, seed=options.fit.seed, bar=bar)
    finally:
        if close is not None:
            close()
    return found, known


def colours(clips: Clips) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of R, G and B in 0..255, of the training clips alone."""
    totals, squares, count = np.zeros(3), np.zeros(3), 0
    for clip in clips.train:
        pixels = clip.frames.reshape(-1, 3).astype(np.float64)
        totals, squares, count = totals + pixels.sum(0), squares + (pixels**2).sum(0), count + len(pixels)
    mean = totals / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 1.0))
    return [round(float(each), 3) for each in mean], [round(float(each), 3) for each in std]


def made(kind: str, clips: Clips, options: Options, mean: list[float], std: list[float]) -> ClipNet:
    """A network with its first weights."""
    kept = clips.train[0].frames
    encoded = kept.ndim == 2
    dimensions = kept.shape[1] if encoded else options.dimensions
    with seeded(options.fit.seed):
        frames = None if encoded else FrameNet(options.size, dimensions)
        return ClipNet(frames, KINDS[kind](dimensions, options.hidden, len(clips.classes)), mean, std)


def fingerprint(kind: str, options: Options, data: str) -> str:
    """Of all that a checkpoint depends on, but for the number of epochs, which may be raised."""
    chosen = asdict(options.fit)
    del chosen["epochs"], chosen["patience"]
    parts = [kind, data, options.features, options.size, options.dimensions, options.hidden, chosen, torch.__version__]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def figures(net: ClipNet, fitted: fit.Fitted, clips: Clips) -> dict[str, Any]:
    """What a network is worth on the test clips, which were not used before."""
    labels = np.array([clip.label for clip in clips.test], np.int64)
    matrix = confusion(labels, fit.predictions(net, clips.test).argmax(axis=1).astype(np.int64), len(clips.classes))
    right = int(np.trace(matrix))
    return {
        "accuracy": right / len(labels),
        "interval": list(interval(right, len(labels))),
        "confusion": matrix.tolist(),
        "best_epoch": fitted.best,
        "epochs": fitted.epochs,
    }


def samples(net: ClipNet, clips: Clips) -> tuple[Floats | None, Floats]:
    """Real pictures as the CNN takes them, and vectors, (n, t, dimensions), n and t at least 3, to compare on."""
    some = (clips.test * 3)[:JUDGED]  # there is at least one of each class
    frames, lengths, _ = fit.tensors(some)
    net.eval()
    with torch.no_grad():
        pictures = None if net.frames is None else net.prepared(frames[:JUDGED]).numpy()
        features = net.padded(frames, lengths).numpy()
    return pictures, np.concatenate([features] * 3, axis=1) if features.shape[1] < 3 else features


def reported(
    options: Options,
    clips: Clips,
    encoder: dict[str, str] | None,
    judged: dict[str, Any],
    parity: dict[str, float],
    version: int,
) -> dict[str, Any]:
    """What report.json says."""
    gru, mean = judged["gru"], judged["mean"]
    return {
        "data": options.data,
        "classes": list(clips.classes),
        "clips": clips.counts(),
        "left_out": [{"file": name, "why": why} for name, why in clips.left_out],
        "chance": 1 / len(clips.classes),
        "gru": gru,
        "mean": mean,
        # Whether the intervals of the two leave no doubt.
        "order_matters": gru["interval"][0] > mean["interval"][1],
        "parity": parity,
        "features": {"kind": options.features, "encoder": encoder},
        "options": {
            **{key: getattr(options, key) for key in ("size", "rate", "frames", "dimensions", "hidden", "smoke")},
            **asdict(options.fit),
            "threads": torch.get_num_threads(),
        },
        "version": version,
        "by": {library: metadata.version(library) for library in LIBRARIES},
    }


def drawn(fitted: dict[str, fit.Fitted], judged: dict[str, Any], clips: Clips) -> dict[str, bytes]:
    """Learning curves and confusion matrices as PNG files."""
    history = {f"{kind} {name}": values for kind, one in fitted.items() for name, values in one.history.items()}
    with tempfile.TemporaryDirectory() as folder:
        curves.draw(Path(folder, "curves.png"), history, title="GRU over frames, and their mean")
        for kind, found in judged.items():
            title = f"{kind}: {found['accuracy']:.3f} of {len(clips.test)} test clips"
            matrix = np.array(found["confusion"], np.int64)
            draw_confusion(Path(folder, f"confusion-{kind}.png"), matrix, clips.classes, title=title)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
