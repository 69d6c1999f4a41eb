"""Events and vectors from files: what is taken, and what is refused with the line that is at fault."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server.errors import InvalidInput, NotFound
from matchcut.server.training.session import reading


def wrote(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("e.csv", 'user,item,time,strength\nu,"a, b",2.5,0.5\n\nv,c,3,-1\n'),
        ("e.csv", 'strength,item_id,time_us,user_id\n0.5,"a, b",2500000,u\n-1,c,3000000,v\n'),
        (
            "e.jsonl",
            '{"user": "u", "item": "a, b", "time": 2.5, "strength": 0.5}\n\n'
            '{"user_id": "v", "item_id": "c", "time_us": 3000000, "strength": -1}\n',
        ),
    ],
)
def test_the_same_events_in_each_form(tmp_path: Path, name: str, text: str) -> None:
    found = reading.events(wrote(tmp_path, name, text))
    assert found == [("u", "a, b", 2_500_000, 0.5), ("v", "c", 3_000_000, -1.0)]


def test_ratings_are_not_looked_at(tmp_path: Path) -> None:
    text = 'user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t2"42\t1\t881250949\n'
    assert reading.events(wrote(tmp_path, "e.inter", text)) == [("196", '2"42', 881_250_949_000_000, 1.0)]


def test_what_the_events_command_takes_is_taken(tmp_path: Path) -> None:
    text = (
        "\ufeffuser,item,kind,time,fraction,watched,weight,session,recommendation,id\n"
        "u,a,watch,2026-11-20 10:00,0.25,,,s,r,1\n"
        "u,b,watch,2026-11-20T12:00:00+02:00,,10,0.5,,,\n"
        "u,c,like,1763632800,,,,,,\n"
        "u,d,skip,1763632800.5,,,,,,\n"
        "u,e,impression,1763632800,,,,,,\n"
    )
    at = 1795168800_000_000
    assert reading.events(wrote(tmp_path, "e.csv", text)) == [
        ("u", "a", at, 0.25),
        ("u", "b", at, 0.25),
        ("u", "c", 1_763_632_800_000_000, 1.0),
        ("u", "d", 1_763_632_800_500_000, -0.5),
        ("u", "e", 1_763_632_800_000_000, 0.0),
    ]


def test_a_whole_time_stays_exact(tmp_path: Path) -> None:
    text = "user,item,time_us\nu,a,1700000000123457\n"
    assert reading.events(wrote(tmp_path, "e.csv", text))[0][2] == 1_700_000_000_123_457


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("e.csv", "user,item,time,wieght\nu,a,1,1\n", "line 2: the column 'wieght' is unknown"),
        ("e.csv", "user,time\nu,1\n", "item is missing"),
        ("e.csv", "user,item,time\n,a,1\n", "user is missing or empty"),
        ("e.csv", "user,item\nu,a\n", "either time_us or time"),
        ("e.csv", "user,item,time,time_us\nu,a,1,1\n", "either time_us or time"),
        ("e.csv", "user,item,time\nu,a\n", "line 2 has 2 columns, the heading 3"),
        ("e.csv", "user,item,time\nu,a,yesterday\n", "time is 'yesterday', which is neither a number nor a date"),
        ("e.csv", "user,item,time\nu,a,nan\n", "time is 'nan'"),
        ("e.csv", "user,item,time\nu,a,-1\n", "must not be before 1970"),
        ("e.csv", "user,item,time\nu,a,1e300\n", "must not be before 1970"),
        ("e.csv", "user,item,time,strength\nu,a,1,2\n", "strength must be from -1 to 1"),
        ("e.csv", "user,item,time,strength\nu,a,1,nan\n", "strength is 'nan'"),
        ("e.csv", "user,item,time,kind\nu,a,1,adored\n", "kind is 'adored'; it must be one of impression"),
        ("e.csv", "user,item,time,kind\nu,a,1,\n", "kind is ''"),
        ("e.csv", "user,item,time,kind,strength\nu,a,1,like,1\n", "both strength and kind"),
        ("e.csv", "user,item,time,kind,fraction,watched\nu,a,1,watch,1,1\n", "both fraction and watched"),
        ("e.csv", "user,item,time,kind,fraction\nu,a,1,watch,2\n", "line 2: fraction is 2"),
        ("e.csv", "user,item,time,kind,watched\nu,a,1,watch,-2\n", "line 2: watched_us is -2000000"),
        ("e.csv", "user,item,time,weight\nu,a,1,0.5\n", "weight takes a kind beside it"),
        ("e.csv", "user,item,time\nu,a,2026-13-01\n", "is '2026-13-01', which is neither a number nor a date"),
        ("e.csv", b"user,item,time\nu,\xff,1\n", "cannot be read as UTF-8"),
        ("e.jsonl", "[1, 2]\n", "line 1 is not a JSON object"),
        ("e.jsonl", '{"user": "u"', "line 1 is not a JSON object"),
        ("e.jsonl", "[" * 100_000, "line 1 is not a JSON object"),
        ("e.jsonl", '{"user": ["u"], "item": "a", "time": 1}\n', "user is missing"),
        ("e.jsonl", '{"user": "u", "item": "a", "time": true}\n', "time is True, which is neither"),
        ("e.parquet", "", "neither a server's data folder nor a file"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, text: str | bytes, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        reading.events(wrote(tmp_path, name, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="there is no file"):
        reading.events(tmp_path / "e.csv")
    with pytest.raises(NotFound, match="there is no file"):
        reading.vectors(tmp_path / "v.npz")


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_but_be_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("hostile")
    for name in ("e.csv", "e.jsonl", "e.inter"):
        with suppress(InvalidInput):
            assert isinstance(reading.events(wrote(folder, name, data)), list)


def test_vectors_and_whose_they_are(tmp_path: Path) -> None:
    path, rows = tmp_path / "v.npz", np.array([[1, 0], [0, 1]], np.float64)
    np.savez(path, ids=np.array(["a", "b"]), vectors=rows, name="lite", version="2", digest="d")
    found, encoder = reading.vectors(path)
    assert (encoder.name, encoder.version, encoder.digest, encoder.dimensions) == ("lite", "2", "d", 2)
    assert found["b"].dtype == np.float32
    assert found["b"].tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"ids": np.array(["a"])}, "must hold ids"),
        ({"ids": np.array(["a"]), "vectors": np.ones((2, 3))}, "must hold ids"),
        ({"ids": np.array(["a", "a"]), "vectors": np.ones((2, 3))}, "an id more than once"),
        ({"ids": np.array(["a"]), "vectors": np.ones((1, 3), int)}, "floating point"),
    ],
)
def test_bad_vectors_are_refused(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(InvalidInput, match=says):
        reading.vectors(tmp_path / "v.npz")


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", ids=np.array(["a", None], object), vectors=np.ones((2, 3)))
    with pytest.raises(InvalidInput, match=r"no \.npz file of vectors"):
        reading.vectors(tmp_path / "v.npz")
    with pytest.raises(InvalidInput, match=r"no \.npz file of vectors"):
        reading.vectors(wrote(tmp_path, "w.npz", b"PK nonsense"))
