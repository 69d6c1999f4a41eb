"""From a folder of pictures to a model that the server serves: read, clean, split, fit, judge, export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from matchcut.server import models
from matchcut.server.errors import InvalidInput
from matchcut.server.models.encoder import Channels
from matchcut.server.records import InputSize
from matchcut.server.serving.folder import NAME, readable
from matchcut.server.training import curves
from matchcut.server.training.image import exporting, judging, pictures, replay, small
from matchcut.server.training.image.augment import Augment
from matchcut.server.training.image.cleaning import ALIKE, Cleaned, clean
from matchcut.server.training.image.features import vectors
from matchcut.server.training.image.fitting import Fitted, Plan, fit, probabilities
from matchcut.server.training.image.pictures import DIGITS, Pictures
from matchcut.server.training.image.samples import PictureSamples, VectorSamples, statistics
from matchcut.server.training.image.splitting import Split, check_shares, split
from matchcut.server.training.progress import Bar

__all__ = ["Options", "Trained", "train"]

WORK = ".training"  # below the model's folder; hidden, so that the server does not take it for a version
VIEWS = 3  # of each picture for the last layer of a frozen encoder: as it is, and changed
PROBES = 32  # pictures that torch and ONNX Runtime are compared on
SMOKE_PICTURES, SMOKE_EPOCHS = 30, 2
SMALL_PLAN = Plan(epochs=30, patience=6, batch=64, rate=2e-3, decay=1e-3)
HEAD_PLAN = Plan(epochs=60, patience=8, batch=64, rate=2e-2, decay=1e-4)
TUNE_PLAN = Plan(epochs=6, patience=2, batch=16, rate=1e-4, decay=1e-2)


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be trained.

    data: a folder with a sub-folder for each class, or DIGITS. out: the model's folder; each training adds a version.
    model: "small" or "default". name: of the model; "" takes the name of `out`.
    epochs, batch, rate, patience: 0 takes what suits the model; they are of its last layer with "default".
    flip: whether pictures are mirrored; None: unless the data are digits. unfreeze: blocks of the default encoder.
    near: correlation from which on pictures are nearly equal; 1: only equal ones are looked for.
    smoke: a few pictures and epochs, to see whether all of it works. resume: go on where it was interrupted.
    threads: 0 takes all cores. cache: where the default encoder is.
    """

    data: str
    out: Path
    model: str = "small"
    name: str = ""
    epochs: int = 0
    batch: int = 0
    rate: float = 0.0
    patience: int = 0
    seed: int = 0
    validation: float = 0.15
    test: float = 0.15
    augment: bool = True
    flip: bool | None = None
    unfreeze: int = 0
    near: float = ALIKE
    smoke: bool = False
    resume: bool = False
    threads: int = 0
    cache: Path = field(default_factory=Path)

    def key(self, digest: str) -> str:
        """Names all that decides the outcome, for checkpoints."""
        decisive = {name: value for name, value in asdict(self).items() if name not in ("out", "name", "resume")}
        del decisive["threads"], decisive["cache"], decisive["data"]
        return json.dumps({**decisive, "pictures": digest, "torch": torch.__version__})

    def plan(self, usual: Plan) -> Plan:
        """The usual plan with what is said otherwise."""
        epochs = min(self.epochs or usual.epochs, SMOKE_EPOCHS) if self.smoke else self.epochs or usual.epochs
        return Plan(
            epochs=epochs,
            patience=self.patience or usual.patience,
            batch=self.batch or usual.batch,
            rate=self.rate or usual.rate,
            decay=usual.decay,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of it. folder: the version's, with all files. report: what report.json says."""

    folder: Path
    report: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Material:
    """What is learnt from. samples: normalised pictures of the parts "train", "validation" and "test"."""

    read: Pictures
    cleaned: Cleaned
    parts: Split
    mean: Channels
    std: Channels
    samples: dict[str, PictureSamples]


@dataclass(frozen=True, slots=True)
class Result:
    """A network that is trained. write: makes its ONNX file."""

    network: nn.Module
    dimensions: int
    content: bytes
    stages: dict[str, Fitted]
    facts: dict[str, Any]


def train(options: Options, bar: Bar, tell: Callable[[dict[str, Any]], None] | None = None) -> Trained:
    """Trains a classifier and writes it as the next version of the model in `out`.

    Args:
        tell: is given what was found in the data, as in the report but for the split, before anything is made of it.

    Raises:
        InvalidInput: an option or the data cannot be used; or an unfinished training is in the folder.
        EngineFailed: the default encoder is missing, or the exported model differs from torch's.
        ImportError: a package of the extra "train" is missing.
        OSError: the folder cannot be written.
    """
    work = options.out / WORK
    if work.exists() and not options.resume:
        raise InvalidInput(
            f"{work} is left of a training that did not end: go on with --resume, or remove it to begin anew",
            reason="UNFINISHED_TRAINING",
            field="out",
        )
    check_shares(options.validation, options.test)
    if not NAME.fullmatch(options.out.resolve().name):
        bar.say("--models serves no folder of this name: letters, digits, '.', '_', '+' and '-' only, 128 at most")
    before, made = torch.get_num_threads(), not options.out.exists()
    work.mkdir(parents=True, exist_ok=True)  # first, so that a place that cannot be written is told of at once
    torch.set_num_threads(options.threads or before)
    try:
        default = options.model == "default"
        encoder = models.load(models.default_encoder(options.cache, bar.say)) if default else None
        material = gathered(options, encoder, bar, tell)
        result = tuned(options, encoder, material, work, bar) if encoder else fresh(options, material, work, bar)
        trained = finished(options, material, result, work)
    except BaseException:
        if not any(work.iterdir()):  # there is nothing to go on from
            work.rmdir()
            if made:
                options.out.rmdir()
        raise
    finally:
        torch.set_num_threads(before)
    shutil.rmtree(work, ignore_errors=True)
    return trained


def named(options: Options) -> str:
    """The model's name."""
    return readable(options.name.strip() or options.out.resolve().name) or "model"


def gathered(
    options: Options, encoder: models.Encoder | None, bar: Bar, tell: Callable[[dict[str, Any]], None] | None = None
) -> Material:
    """Read, cleaned, divided and normalised."""
    size = encoder.input if encoder else InputSize(small.SIDE, small.SIDE)
    most = SMOKE_PICTURES if options.smoke else 0
    if options.data == DIGITS:
        read = pictures.digits(size, most=most)
    else:
        read = pictures.folder(Path(options.data), size, track=lambda files: bar.track(files, "reading"), most=most)
    cleaned = clean(read, options.near)
    if tell:
        tell(found(read, cleaned))
    parts = split(
        *(read.labels, cleaned.groups, cleaned.keep, read.classes),
        seed=options.seed,
        validation=options.validation,
        test=options.test,
    )
    mean, std = (encoder.mean, encoder.std) if encoder else statistics(read.pixels, parts.train)
    flip = options.data != DIGITS if options.flip is None else options.flip
    augment = Augment(flip=flip) if options.augment else None
    samples = {
        part: PictureSamples(read.pixels, rows, read.labels[rows], mean, std, augment)
        for part, rows in (("train", parts.train), ("validation", parts.validation), ("test", parts.test))
    }
    return Material(read, cleaned, parts, mean, std, samples)


def fresh(options: Options, material: Material, work: Path, bar: Bar) -> Result:
    """The small network, from nothing."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        network = small.Small(len(material.read.classes))
    train, validation = material.samples["train"], material.samples["validation"]
    key = options.key(material.cleaned.digest)
    plan = options.plan(SMALL_PLAN)
    fitted = fit(network, train, validation, plan, bar, checkpoint=work / "small.pt", key=key)
    return Result(network, small.DIMENSIONS, small.write(network), {"small": fitted}, {"plan": asdict(plan)})


def tuned(options: Options, encoder: models.Encoder, material: Material, work: Path, bar: Bar) -> Result:
    """The default encoder: a last layer on its vectors, then its last blocks where they are to be learnt, too."""
    key = options.key(material.cleaned.digest)
    made = {}
    for part in ("train", "validation"):
        samples = material.samples[part]
        views = VIEWS if part == "train" and options.augment and not options.smoke else 1
        found = vectors(encoder, samples, views=views, seed=options.seed, threads=options.threads, bar=bar)
        made[part] = VectorSamples(found, samples.labels)
    dimensions = encoder.identity.dimensions
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(options.seed)
        head = replay.Head(dimensions, len(material.read.classes))
    plan = options.plan(HEAD_PLAN)
    stages = {"head": fit(head, made["train"], made["validation"], plan, bar, checkpoint=work / "head.pt", key=key)}
    content = encoder.path.read_bytes()
    network = replay.Replay(content, head.head, unfreeze=options.unfreeze)
    if options.unfreeze:
        tuning = Options(data="", out=options.out, seed=options.seed, smoke=options.smoke).plan(TUNE_PLAN)
        train, validation = material.samples["train"], material.samples["validation"]
        stages["blocks"] = fit(network, train, validation, tuning, bar, checkpoint=work / "blocks.pt", key=key)
    network.eval()
    base = {"name": encoder.identity.name, "version": encoder.identity.version, "digest": encoder.identity.digest}
    return Result(
        *(network, dimensions, replay.write(content, network), stages),
        {"plan": asdict(plan), "base": base, "unfrozen_blocks": options.unfreeze},
    )


def finished(options: Options, material: Material, result: Result, work: Path) -> Trained:
    """Judged on the test pictures, compared with its ONNX file, and written."""
    read, test = material.read, material.samples["test"]
    names = [read.names[row] for row in material.parts.test]
    judged = judging.figures(probabilities(result.network, test), test.labels, read.classes, names)
    some = test.batch(np.arange(min(PROBES, len(test.labels))), None)
    difference = exporting.check(result.content, result.network, some)
    version, name = exporting.next_version(options.out), named(options)
    size = InputSize(some.shape[3], some.shape[2])
    toml = exporting.described(
        name=name, version=version, dimensions=result.dimensions, size=size, mean=material.mean, std=material.std
    )
    report = {
        "model": {"name": name, "version": version, "kind": options.model, "parity": difference},
        "data": {
            **found(read, material.cleaned),
            "split": {part: len(samples.labels) for part, samples in material.samples.items()},
        },
        "training": {
            "seed": options.seed,
            "near": options.near,
            "smoke": options.smoke,
            "augment": None if test.augment is None else asdict(test.augment),
            "mean": list(material.mean),
            "std": list(material.std),
            "torch": str(torch.__version__),
            **result.facts,
            "stages": {stage: summed(fitted) for stage, fitted in result.stages.items()},
        },
        "test": judged,
    }
    title = f"{name}, version {version}: {judged['accuracy']:.4f} of {judged['pictures']} test pictures right"
    history = {
        f"{stage}: {series}" if len(result.stages) > 1 else series: values
        for stage, fitted in result.stages.items()
        for series, values in fitted.history.items()
    }
    curves.draw(work / "curves.png", history, title=f"{name}, version {version}")
    judging.draw_confusion(work / "confusion.png", np.array(judged["confusion"]), read.classes, title=title)
    files = {
        "model.onnx": result.content,
        "model.toml": toml.encode(),
        "report.json": exporting.as_json(report),
        "confusion.json": exporting.as_json({"classes": list(read.classes), "matrix": judged["confusion"]}),
        **{drawn: (work / drawn).read_bytes() for drawn in ("curves.png", "confusion.png")},
    }
    shutil.rmtree(work / "version", ignore_errors=True)
    place = exporting.publish(work / "version", options.out, version, files, read.classes)
    return Trained(place, report)


def found(read: Pictures, cleaned: Cleaned) -> dict[str, Any]:
    """What the data are, and what was wrong with them."""

    def pairs(which: Sequence[tuple[int, int]]) -> list[list[str]]:
        return [[read.names[a], read.names[b]] for a, b in which]

    counts = np.bincount(read.labels, minlength=len(read.classes))
    return {
        "classes": {name: int(count) for name, count in zip(read.classes, counts, strict=True)},
        "unreadable": [{"file": name, "why": why} for name, why in read.unreadable],
        "no_pictures": list(read.skipped),
        "equal": pairs(cleaned.equal),
        "nearly_equal": pairs(cleaned.near),
        "label_conflicts": pairs(cleaned.conflicts),
        "left_out": [read.names[row] for row in np.flatnonzero(~cleaned.keep)],
        "digest": cleaned.digest,
    }


def summed(fitted: Fitted) -> dict[str, Any]:
    """A stage of the training."""
    return {
        "epochs": fitted.epochs,
        "best_epoch": fitted.best,
        "stopped_early": fitted.stopped,
        "history": fitted.history,
    }
