"""`matchcut evaluate`: what it prints, and what its exit code says."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matchcut.server.__main__ import main
from matchcut.server.evaluation import movielens
from matchcut.server.events import open_log
from matchcut.server.records import Event, EventKind, Exposure, Shown

ROOT = Path(__file__).parents[3]


@pytest.fixture
def cache() -> Path:
    """The cache that the wheel with MovieLens-100K is in, which is not part of matchcut."""
    path = ROOT / "build" / "cache"
    if not (path / movielens.WHEEL).is_file():
        pytest.skip(f"{path / movielens.WHEEL} is missing: run `./build.sh test`")
    return path


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[dict[str, Any]]]:
    """The exit code and the reports."""
    code = main(["evaluate", "movielens", "--json", *map(str, arguments)])
    made: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return code, made


def test_baselines_beside_what_was_published(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "movielens", "--cache", str(cache)]) == 0
    text = capsys.readouterr().out
    assert text.count("   reproduced\n") == 4
    assert "NOT reproduced" not in text
    for part in (
        "sar: MovieLens-100K; split: 75/25 at random within each user; k=10; 943 users; candidates: all 1682; "
        "seen items removed; ties: lower index first; seed 0",
        "popular: MovieLens-100K; split: leave-one-out by time, equal times as recorded; k=10; 943 users; candidates: "
        "all 1682; seen items kept; ties: mean rank over all orders of the tied; seed 0",
        "published, SAR (jaccard, half-life 30 days): map 0.1106",
        "  diversity    0.",
        "published, GRU4Rec: recall 0.1103",
    ):
        assert part in text


def test_a_published_number_that_is_not_reproduced_fails(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(movielens.PUBLISHED["sar"], within={"map": (0.2, 0.3)})
    monkeypatch.setitem(movielens.PUBLISHED, "sar", other)
    code, reports = evaluated(capsys, "--wheel", cache / movielens.WHEEL, "--model", "sar", "--split", "random")
    assert code == 1
    assert [row["reproduced"] for row in reports[0]["rows"] if row["metric"] == "map"] == [False]


def test_another_setting_is_compared_with_nothing(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, reports = evaluated(
        capsys, "--cache", cache, "--model", "sar", "--split", "random", "--k", 5, "--seed", 3, "--seen", "kept"
    )
    assert code == 0
    (report,) = reports
    assert {row["published"] for row in report["rows"]} == {None}
    assert (report["setting"]["k"], report["setting"]["seed"], report["setting"]["seen"]) == (5, 3, "kept")
    assert report["rows"][0]["value"].keys() == {"mean", "low", "high"}


def test_sampled_candidates_flatter_and_removing_what_was_seen_does_too(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def recall(*arguments: object) -> float:
        code, reports = evaluated(capsys, "--cache", cache, "--split", "last", "--model", "popular", *arguments)
        assert code == 0
        mean: float = reports[0]["rows"][0]["value"]["mean"]
        return mean

    full, removed, sampled = recall(), recall("--seen", "removed"), recall("--sampled", 100, "--ties", "worst")
    assert full < removed < sampled


@pytest.fixture
def shown(tmp_path: Path) -> Path:
    """A data folder: of two variants of an experiment, and two tenants; one list of the second explored."""
    with closing(open_log(tmp_path / "events.sqlite", days=0)) as log:
        for number, (tenant, variant, propensity, taken) in enumerate(
            [
                ("", "x", 1.0, True),
                ("", "x", 1.0, False),
                ("", "y\x1b[2J", 0.75, True),
                ("shop", "y\x1b[2J", 0.25, False),
            ]
        ):
            user, name = f"user{number}", f"list{number}"
            items = (Shown("a", 0, 1.0, propensity), Shown("b", 1, 0.5, 1.0))
            log.expose(log.key(tenant, user), Exposure(name, 1000, "e", variant, "m", items))
            if taken:
                log.append(tenant, [Event(f"e{number}", user, "b", EventKind.LIKE, 2000, recommendation_id=name)])
    return tmp_path


def test_lists_that_were_shown_by_variant(shown: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path.name: path.read_bytes() for path in shown.iterdir()}
    assert main(["evaluate", "exposures", str(shown)]) == 0
    text = capsys.readouterr().out
    assert "e / x: 4 items shown in 2 lists to fewer than 10 users" in text
    assert "An item earns 1 where" in text
    assert "within 24 hours after" in text
    assert "mean weight should be near 1" in text
    assert main(["evaluate", "exposures", str(shown), "--anonymity", "1"]) == 0
    assert "to 2 users" in capsys.readouterr().out
    assert r"e / y\x1b[2J: 4 items" in text
    assert main(["evaluate", "exposures", "--data", str(shown), "--json"]) == 0
    x, y = json.loads(capsys.readouterr().out)
    assert (x["users"], x["value"]["groups"], x["anonymity"]) == (0, 0, 10)
    assert (x["variant"], x["value"]["logged"]["mean"], x["value"]["snips"]["mean"]) == ("x", 0.25, 0.25)
    # Without exploration the second list would not have been: half of the items of the first one were taken to.
    assert (y["value"]["logged"]["mean"], y["value"]["snips"]["mean"]) == (0.25, 0.5)
    assert (
        main(["evaluate", "exposures", str(shown), "--json", "--tenant", "", "--clip", "1.2", "--anonymity", "1"]) == 0
    )
    x, y = json.loads(capsys.readouterr().out)
    assert (y["lists"], y["users"], y["value"]["clipped"], y["value"]["largest"]) == (1, 1, 2, pytest.approx(4 / 3))
    assert y["value"]["ips"]["low"] is None
    assert {path.name: path.read_bytes() for path in shown.iterdir() if path.name in before} == before


def test_nothing_was_shown_and_nothing_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "exposures", str(tmp_path)]) == 1
    assert "events.sqlite" in capsys.readouterr().err
    open_log(tmp_path / "events.sqlite").close()
    assert main(["evaluate", "exposures", str(tmp_path)]) == 0
    assert "no list was shown to anyone yet" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--window", "0"], "--window must be above 0"),
        (["--window", "nan"], "--window must be above 0"),
        (["--window", "inf"], "--window must be above 0"),
        (["--clip", "0"], "--clip must be above 0"),
        (["--clip", "nan"], "--clip must be above 0"),
    ],
)
def test_options_of_exposures_out_of_bounds(
    capsys: pytest.CaptureFixture[str], arguments: list[str], what: str
) -> None:
    assert main(["evaluate", "exposures", *arguments]) == 2
    assert what in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["--k", "0"], "--k must be at least 1"),
        (["--sampled", "-1"], "--sampled must be at least 0"),
        (["--seed", "-1"], "--seed must be at least 0"),
    ],
)
def test_options_out_of_bounds(capsys: pytest.CaptureFixture[str], arguments: list[str], what: str) -> None:
    assert main(["evaluate", "movielens", *arguments]) == 2
    assert what in capsys.readouterr().err


def test_a_wheel_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "movielens", "--wheel", str(tmp_path / "none.whl")]) == 1
    assert "No such file" in capsys.readouterr().err
    (tmp_path / "other.whl").write_bytes(b"PK")
    assert main(["evaluate", "movielens", "--wheel", str(tmp_path / "other.whl")]) == 2
    assert "as published" in capsys.readouterr().err
