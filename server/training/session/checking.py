"""`matchcut train session --check`: ours beside the published figures, then what goes beyond them, line by line."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from matchcut.server.evaluation.metrics import Interval, difference
from matchcut.server.evaluation.report import Report
from matchcut.server.records import PersonalOptions
from matchcut.server.training.progress import Bar
from matchcut.server.training.session import blends
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.movielens import RECBOLE, Trained, beyond, check, reported

__all__ = ["Line", "append", "check_all", "processor"]


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """One model's figures. gain: where it is a blend, by how much its NDCG@10 is above that of the single model that is
    best on validation. reproduced: None where nothing was published."""

    report: Report
    trained: Trained
    cpu_seconds: float
    gain: Interval | None = None

    @property
    def reproduced(self) -> bool | None:
        """Whether every figure that has bounds lies in them."""
        verdicts = [row.reproduced for row in self.report.rows if row.reproduced is not None]
        return all(verdicts) if verdicts else None

    def table(self) -> dict[str, Any]:
        """The figures and all that they depend on, as plain values by name."""
        setting = self.report.setting
        found: dict[str, Any] = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
            "data": setting.data,
            "model": self.report.model,
            "split": setting.split,
            "candidates": "all" if not setting.candidates else f"{setting.candidates} sampled",
            "seen": setting.seen,
            "ties": setting.ties,
            "users": setting.users,
            "items": setting.items,
            "seed": setting.seed,
        }
        for row in self.report.rows:
            name = f"{row.metric}@{setting.k}"
            found |= {name: round(row.value.mean, 4), f"{name} low": round(row.value.low, 4)}
            found |= {f"{name} high": round(row.value.high, 4), f"{name} published": row.published}
        found |= {name: round(value, 4) for name, value in self.report.beside.items()}
        gains = (None, None, None) if self.gain is None else tuple(round(each, 4) for each in self.gain)
        found |= dict(zip(("ndcg gain", "ndcg gain low", "ndcg gain high"), gains, strict=True))
        return found | {
            "epochs": self.trained.epochs,
            "training seconds": round(self.trained.seconds, 1),
            "cpu seconds": round(self.cpu_seconds, 1),
            "cpu": processor(),
            "versions": " ".join(f"{package}={metadata.version(package)}" for package in ("torch", "numpy")),
        }


def check_all(
    data: Dataset,
    shown: Bar,
    *,
    seed: int | None = None,
    epochs: int | None = None,
    beyond_too: bool = False,
    said: Callable[[str], None],
    kept: Callable[[Line], None] = lambda line: None,
) -> list[Line]:
    """All lines, the published one first; each is said, and given to `kept`, as soon as it is there.

    Args:
        seed: of all trainings [default: RecBole's]. epochs: at most, for a quick look.
    """
    settings = replace(RECBOLE, seed=RECBOLE.seed if seed is None else seed)
    settings = settings if epochs is None else replace(settings, epochs=epochs)
    lines: list[Line] = []
    began = time.process_time()

    def add(report: Report, trained: Trained, gain: Interval | None = None) -> None:
        nonlocal began
        lines.append(Line(report, trained, time.process_time() - began, gain))
        began = time.process_time()
        kept(lines[-1])
        said(report.text())
        said(f"  {trained.epochs} epochs, {trained.seconds:.0f} s, {lines[-1].cpu_seconds:.0f} s of CPU")

    add(*check(data, settings, shown=shown))
    if not beyond_too:
        return lines
    models: list[Trained] = []
    for trained in beyond(data, settings.seed, shown=shown, epochs=epochs):
        models.append(trained)
        for removed in (False, True):
            add(reported(data, trained, removed=removed, seed=settings.seed), trained)
    first = max(models, key=lambda model: blends.validated(data, model))
    single = reported(data, first, removed=True, seed=settings.seed)
    said(f"the best single model on validation, seen films removed, is {first.name}")
    chief = next(model for model in models if model.name == "GRU, content and id")
    options = PersonalOptions(freshness=0.0)
    others = [model for model in models if model.name in ("SASRec, content and id", "SAR", "popularity")]
    for blend in (
        blends.deployed(data, chief, replace(options, mmr_lambda=1.0), "as served: GRU, popularity 0.05, no diversity"),
        blends.deployed(data, chief, options, "as served: GRU, popularity 0.05, diversity 0.8"),
        blends.best(data, [chief, *others]),
    ):
        report = reported(data, blend, removed=True, seed=settings.seed)
        gain = difference(report.values["ndcg"], single.values["ndcg"], seed=settings.seed)
        add(report, blend, gain)
        said(f"  NDCG@10 against {single.model}: {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
    return lines


def append(path: Path, line: Line) -> None:
    """Adds a line to a CSV file, below a heading."""
    table = line.table()
    fresh = not path.is_file() or not path.stat().st_size
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(table), lineterminator="\n")
        if fresh:
            writer.writeheader()
        writer.writerow(table)


def processor() -> str:
    """The name of the CPU, as Linux tells it; "" elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
