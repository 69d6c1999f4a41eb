"""From events to a version's folder, and into service if it is better than what is there: `matchcut train session`."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from matchcut.server.errors import EngineFailed, InvalidInput
from matchcut.server.evaluation.metrics import interval
from matchcut.server.session.contract import SessionModel
from matchcut.server.session.decaying import DecayingMean
from matchcut.server.session.folder import current, deploy
from matchcut.server.session.onnx import OnnxSession
from matchcut.server.training import curves
from matchcut.server.training.progress import Bar
from matchcut.server.training.session import checkpoint, dataset, fitting, folder, gate, judging, private, sources
from matchcut.server.training.session.batches import frequencies
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.fitting import Fitted
from matchcut.server.training.session.gate import Verdict
from matchcut.server.training.session.judging import Split
from matchcut.server.training.session.private import Privacy, Spent
from matchcut.server.training.session.settings import Settings

__all__ = ["CHECKPOINT", "Options", "Outcome", "train"]

CHECKPOINT = "checkpoint.pt"
SMOKE_USERS, SMOKE_EVENTS, SMOKE_EPOCHS = 200, 40, 3


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked for.

    events: a server's data folder, or a file (see reading.py). out: the folder of versions. vectors: a file or another
    data folder. days: how many of the last days are held out to judge by, where the model is to be deployed. force:
    deploys whatever the judgement, and where too little is there to judge by, without one. resume: goes on from a
    training that was broken off, from a data folder with the events that it had then.
    """

    events: Path
    out: Path
    vectors: Path | None = None
    tenant: str = ""
    name: str = ""
    settings: Settings = field(default_factory=Settings)
    privacy: Privacy | None = None
    deploy: bool = False
    days: float = 1.0
    force: bool = False
    smoke: bool = False
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. report: figures by name, for people. verdict: None where none was asked for, or too little was
    there. deployed: the number that is served now; None: what was served before still is. unjudged: why there is no
    verdict although one was asked for."""

    folder: Path
    report: dict[str, Any]
    verdict: Verdict | None = None
    against: str = ""
    deployed: int | None = None
    spent: Spent | None = None
    unjudged: str = ""


def train(options: Options, shown: Bar) -> Outcome:
    """Does all of it.

    Raises:
        InvalidInput, NotFound, StoreFailed: of the data or the options.
        TooFewToJudge: the days that are held out tell too little; nothing was trained then.
        EngineFailed: the training diverged, an export was refused, or the deployment failed.
    """
    now = time.time()
    saved = options.resume and not options.privacy
    before = checkpoint.until(options.out / CHECKPOINT) if saved else None
    data, until = sources.read(options.events, options.vectors, options.tenant, now=now, until=before)
    settings = options.settings
    if options.smoke:
        data, settings = smaller(data), replace(settings, epochs=min(settings.epochs, SMOKE_EPOCHS))
    if not data.has_content:
        if not settings.ids:
            raise InvalidInput("there are no vectors to make items of; give --vectors", field="vectors")
        settings = replace(settings, content=False)
    if options.deploy and not servable(data):
        raise InvalidInput(
            "a server takes a model of its own encoder's vectors only: train on its data folder, or give --vectors",
            field="vectors",
        )
    if options.privacy:
        data = with_vectors(data)
    since, users, unjudged = held_out(data, options, now)
    learnt = data if since is None else gate.parted_at(data, since)
    if since is not None:
        shown.say(f"held out to judge by: events from {when(since)} on, of {users} users who were there before")
    whole = judging.histories(learnt)
    shown.say(f"{len(learnt.events)} events of {len(whole)} users with {len(data.content)} items")
    split = judging.parted(whole)
    options.out.mkdir(parents=True, exist_ok=True)
    fitted, spent = fitted_to(learnt, split, settings, options, until, shown)
    report = described(learnt, split, fitted, spent)
    report["encoder"], report["servable"] = data.encoder.name, servable(data)
    if since is not None:
        report["held_out"] = {"since": when(since), "users": users}
    version = folder.next_version(options.out)
    place = options.out / str(version)
    written = folder.write(
        place,
        fitted.network,
        data,
        name=options.name or options.out.resolve().name,
        version=str(version),
        tenant=options.tenant,
        tables=told(report, spent),
        beside=beside(fitted, report, spent),
    )
    (options.out / CHECKPOINT).unlink(missing_ok=True)
    report["parity"] = dict(written.errors)
    if not options.deploy:
        return Outcome(place, report, spent=spent)
    if since is None:
        return Outcome(place, report, deployed=deploy(options.out, place), spent=spent, unjudged=unjudged)
    verdict, against = judged(place, options.out, data, since, settings.seed)
    number = deploy(options.out, place) if verdict.better or options.force else None
    return Outcome(place, report, verdict, against, number, spent)


def held_out(data: Dataset, options: Options, now: float) -> tuple[int | None, int, str]:
    """When the days that are held out begin, how many users are judged by, and where nothing is held out, why not.

    Raises:
        TooFewToJudge: too little is there to judge by, and nobody said to do without.
    """
    if not options.deploy:
        return None, 0, ""
    try:
        users = gate.judges(data, options.days, now=now)
    except gate.TooFewToJudge as error:
        if not options.force:
            raise
        return None, 0, error.message.partition(":")[0]
    return gate.usual(data, options.days, now=now), users, ""


def servable(data: Dataset) -> bool:
    """Whether a server can take a model of these vectors: only if it is known whose they are."""
    return data.has_content and data.encoder.digest != dataset.GIVEN


def when(seconds: int) -> str:
    """A date and time for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def fitted_to(
    data: Dataset, split: Split, settings: Settings, options: Options, until: int | None, shown: Bar
) -> tuple[Fitted, Spent | None]:
    """The trained network; with a promise of privacy no validation is looked at, so nothing is held out for it."""
    if options.privacy:
        return private.fit_privately(data, split.train, settings, options.privacy, shown=shown)
    saved = options.out / CHECKPOINT
    if not options.resume:
        saved.unlink(missing_ok=True)
    asked = {
        "tenant": options.tenant,
        "deploy": options.deploy,
        "holdout": options.days,
        "smoke": options.smoke,
        checkpoint.UNTIL: until,
    }
    return fitting.fit(data, split, settings, saved=saved, asked=asked, shown=shown), None


def smaller(data: Dataset) -> Dataset:
    """The newest few events of a few users: to see whether all of it works."""
    events = data.events
    rows = np.flatnonzero(events.users < SMOKE_USERS)
    order = rows[np.lexsort((-events.times[rows], events.users[rows]))]
    users = events.users[order]
    begins = np.flatnonzero(np.diff(users, prepend=-1))
    place = np.arange(len(users)) - np.repeat(begins, np.diff(np.append(begins, len(users))))
    return data.only(np.sort(order[place < SMOKE_EVENTS]))


def with_vectors(data: Dataset) -> Dataset:
    """Without events of items that have no vector, and without those items."""
    there = (data.content != 0).any(axis=1)
    if not there.any():
        raise InvalidInput(
            "with --epsilon items need vectors; give --vectors or a server's data folder", field="vectors"
        )
    number = np.cumsum(there) - 1
    rows = np.flatnonzero(there[data.events.items])
    ids = tuple(item for item, has in zip(data.events.item_ids, there, strict=True) if has)
    kept = data.events.take(rows)
    return Dataset(replace(kept, items=number[kept.items], item_ids=ids), data.content[there], data.encoder)


def described(data: Dataset, split: Split, fitted: Fitted, spent: Spent | None) -> dict[str, Any]:
    """What was trained on and what came of it."""
    report: dict[str, Any] = {
        "training": {
            "events": len(data.events),
            "users": len(split.train),
            "items": len(data.content),
            "epochs": len(fitted.curves.get("train loss", ())) or fitted.best,
            "best_epoch": fitted.best,
            "seconds": round(fitted.seconds, 1),
        },
        "settings": fitted.network.settings.table(),
        "test": {},
    }
    if spent:
        report["privacy"] = asdict(spent)
    if not len(split.test.targets):
        return report
    test = split.test.some(fitting.LOOKED_AT, fitted.network.settings.seed)
    often = frequencies(split.train, len(data.content)).astype(np.float32)[:, None]
    alike = np.ones((len(test.targets), 1), np.float32)
    for name, answers in (
        ("model", judging.network_answers(fitted.network, test.histories)),
        ("popularity", judging.Answers(alike, often, np.ones(len(often), bool))),
    ):
        for seen in (True, False):
            found = judging.values(answers, test, seen=seen)
            for metric, each in found.items():
                key = f"{name} {metric}@10 seen {'kept' if seen else 'removed'}"
                report["test"][key] = list(interval(each, seed=fitted.network.settings.seed))
    report["setting"] = (
        f"leave-one-out by time; {len(test.targets)} users; all {len(often)} items as candidates; ties: mean "
        f"rank; seed {fitted.network.settings.seed}; 95% intervals over users"
    )
    return report


def told(report: Mapping[str, Any], spent: Spent | None) -> dict[str, dict[str, Any]]:
    """The tables of session.toml. With a promise of privacy nothing that was counted or measured on users is told."""
    tables: dict[str, dict[str, Any]] = {"settings": dict(report["settings"])}
    if spent:
        names = ("epsilon", "delta", "noise", "clip", "steps", "unit")
        return {**tables, "privacy": {name: getattr(spent, name) for name in names}}
    metrics = {name: round(values[0], 6) for name, values in report["test"].items()}
    return {**tables, "training": dict(report["training"]), "metrics": metrics}


def beside(fitted: Fitted, report: Mapping[str, Any], spent: Spent | None) -> dict[str, bytes]:
    """Files for people: curves.png and report.json; see told()."""
    if spent:
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "curves.png"
        curves.draw(path, fitted.curves, title="session model")
        picture = path.read_bytes()
    text = json.dumps({**report, "curves": fitted.curves}, indent=2)
    return {"curves.png": picture, "report.json": text.encode()}


def judged(place: Path, out: Path, data: Dataset, since: int, seed: int) -> tuple[Verdict, str]:
    """The new model against what is served, and what that is: the version in CURRENT, or where there is none that can
    be, what a server does without a trained model."""
    old: SessionModel
    number = current(out)
    try:
        if number is None:
            raise EngineFailed("none was deployed")
        old, against = OnnxSession(out / str(number), data.encoder), f"version {number}"
    except EngineFailed:
        old, against = DecayingMean(data.encoder), "the decaying mean"
    new = OnnxSession(place, data.encoder)
    try:
        return gate.compare(new, old, data, since, seed=seed), against
    finally:
        new.close()
        old.close()
