"""`matchcut events`: rows to events, what is sent, what is wrong and where, and how a run goes on."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from matchcut.client import Event, EventKind
from matchcut.server.__main__ import main
from matchcut.server.commands.event_rows import COLUMNS, Rows
from matchcut.v1 import catalog_pb2, events_pb2
from support.fake_server import FakeServer, serving

Status = grpc.StatusCode


class Store:
    """Keeps events as a server does: of one content once, and none of a message with a negative time."""

    def __init__(self) -> None:
        self.kept: dict[bytes, events_pb2.Event] = {}
        self.left = 10**9  # calls until the server is gone

    def __call__(self, requests: Iterator[Any], seen: Any, context: grpc.ServicerContext) -> Any:
        events = next(requests).events
        self.left -= 1
        if self.left < 0:
            return FakeServer.fails(Status.UNAVAILABLE, "Not now.")(iter([None]), seen, context)
        for at, event in enumerate(events):
            if event.time_us < 0:
                field = f"events[{at}].time_us"
                bad = error_details_pb2.BadRequest(
                    field_violations=[error_details_pb2.BadRequest.FieldViolation(field=field)]
                )
                refuse = FakeServer.fails(Status.INVALID_ARGUMENT, f"{field} is negative", bad)
                return refuse(iter([None]), seen, context)
        before = len(self.kept)
        self.kept |= {event.SerializeToString(deterministic=True): event for event in events}
        new = len(self.kept) - before
        return [events_pb2.RecordEventsResponse(recorded=new, duplicates=len(events) - new, unknown_items=new)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A server that MATCHCUT_SERVER names."""
    fake = FakeServer()
    with serving(fake) as (address,):
        monkeypatch.setenv("MATCHCUT_SERVER", address)
        yield fake


@pytest.fixture
def store(server: FakeServer) -> Store:
    """What keeps its events."""
    store = Store()
    server.on("RecordEvents", store)
    return store


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["events", *(str(one) for one in arguments)])
    shown = capsys.readouterr()
    return code, " ".join(shown.out.split()), " ".join(shown.err.split())


def rows(path: Path) -> list[Any]:
    """The events of a file, or what is wrong, each with its line."""
    found = Rows(path)
    try:
        return [tuple(row) for row in found]
    finally:
        found.close()


def write(tmp_path: Path, name: str, *lines: str) -> Path:
    path = tmp_path / name
    path.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    return path


def test_columns_in_any_order(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "e.csv",
        "\ufeffkind, item ,user,time,fraction,watched,weight,session,recommendation,id",
        'watch,"film, the",ann,12.5,0.5,,0.25,s,r,e1',
        "",
        "like, clip ,bob,2024-05-01T12:00:00Z,,,,,,",
        'watch,"two',
        'lines",bob,2024-05-01 14:00:00+02:00,,3,,,,',
    )
    assert rows(path) == [
        (2, Event("ann", "film, the", "watch", 12.5, "s", 0.25, 0.5, None, "r", "e1")),
        (4, Event("bob", "clip", "like", 1_714_564_800.0)),
        (6, Event("bob", "two\nlines", "watch", 1_714_564_800.0, watched=3.0)),
    ]


def test_lines_of_json(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "e.jsonl",
        '{"user": 7, "item": "film", "kind": "like", "time": 12.5}',
        "  ",
        '{"user": "ann", "item": "film", "kind": "watch", "id": "e", "fraction": 1, "session": null}',
    )
    assert rows(path) == [
        (1, Event("7", "film", "like", 12.5)),
        (3, Event("ann", "film", "watch", fraction=1.0, id="e")),
    ]


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda text: text == text.strip()
)
shares = st.none() | st.floats(0, 1)
made = st.builds(
    Event,
    user=names,
    item=names,
    kind=st.sampled_from(get_args(EventKind)),
    time=st.integers(1, 2**51).map(lambda microseconds: microseconds / 1e6),
    session=st.just("") | names,
    weight=shares,
    fraction=shares,
    recommendation=st.just("") | names,
    id=st.just("") | names,
)


@given(events=st.lists(made, max_size=5), ending=st.sampled_from([".csv", ".jsonl"]))
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, events: list[Event], ending: str
) -> None:
    path = tmp_path_factory.mktemp("events") / f"e{ending}"
    with path.open("w", encoding="utf-8", newline="") as file:
        if ending == ".csv":
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(map(asdict, events))
        else:
            file.writelines(json.dumps(asdict(event)) + "\n" for event in events)
    assert [event for _, event in rows(path)] == events


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (",film,like,1,,", "user is missing"),
        ("ann, ,like,1,,", "item is missing"),
        ("ann,film,loved,1,,", "kind is 'loved'; it must be one of impression, click"),
        ("ann,film,like,,,", "neither time nor id"),
        ("ann,film,like,yesterday,,", "time is 'yesterday'; it must be seconds since 1970"),
        ("ann,film,like,nan,,", "time is 'nan'"),
        (
            "ann,film,like,1795046532000,,",
            "1795046532000, which looks like milliseconds: time is in seconds since 1970",
        ),
        ("ann,film,like,1,most,", "fraction is 'most'; it must be a number"),
        ("ann,film,like,1,inf,", "fraction is 'inf'"),
        ("ann,film,watch,1,0.5,3", "both fraction and watched"),
        ("ann,film,like", "has 3 fields; there are 6 columns"),
        ("\udcff,film,like,1,,", "user is not UTF-8"),
    ],
)
def test_a_wrong_row_is_told_of(tmp_path: Path, row: str, why: str) -> None:
    path = write(tmp_path, "e.csv", "user,item,kind,time,fraction,watched", row, "ann,film,like,1,,")
    (line, told), (_, good) = rows(path)
    assert line == 2
    assert why in told
    assert isinstance(good, Event)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "is no JSON"),
        ("[1]", "is no JSON object"),
        ('{"user": "a", "user_id": "a", "item": "b", "kind": "like", "time": 1}', "names one field twice"),
        ('{"user": true, "item": "b", "kind": "like", "time": 1}', "user is no text"),
        ('{"user": "a", "item": ["b"], "kind": "like", "time": 1}', "item is no text"),
        ('{"user": "a", "item": "b", "kind": "like", "time": [1]}', "time is [1]"),
        ('{"user": "a", "item": "b", "kind": "like", "time": 1, "weight": true}', "weight is True"),
    ],
)
def test_a_wrong_line_of_json_is_told_of(tmp_path: Path, line: str, why: str) -> None:
    ((number, told),) = rows(write(tmp_path, "e.jsonl", line))
    assert number == 1
    assert why in told


def test_a_file_with_errors_is_sent_but_for_them(
    store: Store, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [f"user {n},film,click,{-n if n % 500 == 7 else n + 1}" for n in range(1200)]
    lines[100] = "ann,film,loved,1"
    code, out, _ = run(capsys, write(tmp_path, "e.csv", "user,item,kind,time", *lines), "--tenant", "shop")
    assert code == 1
    assert len(store.kept) == 1196
    assert "1196 events recorded, 0 were there already; 1196 of the new ones are of items" in out
    assert re.search(r"9 │ time_us is negative", out)
    assert re.search(r"102 │ kind is 'loved'", out)
    assert re.search(r"509 │ time_us is negative", out)
    assert re.search(r"1009 │ time_us is negative", out)
    assert {call.requests[0].tenant for call in server.calls if call.method == "RecordEvents"} == {"shop"}


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("e.csv", ["user_id,colour,item_id,kind,timestamp", "ann,red,film,like,12.5"]),
        ("e.jsonl", ['{"user_id": "ann", "colour": 1, "item_id": "film", "kind": "like", "timestamp": 12.5}']),
    ],
)
def test_other_names_are_understood_and_other_columns_told(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, lines: list[str]
) -> None:
    code, _, err = run(capsys, write(tmp_path, name, *lines))
    assert code == 0
    assert "columns that are none of events are ignored: colour" in err
    (kept,) = store.kept.values()
    assert (kept.user_id, kept.item_id, kept.time_us) == ("ann", "film", 12_500_000)


def test_items_that_are_unknown_are_warned_of(
    store: Store, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("GetItem", server.fails(Status.NOT_FOUND, "there is no such item"))
    there = catalog_pb2.ListItemsResponse(items=[catalog_pb2.Item(item_id="tour/bikes.mp4")])
    server.on("ListItems", lambda requests, *_: [there for _ in [next(requests)]])
    path = write(tmp_path, "e.csv", "user,item,kind,time", "ann,bikes,like,1", "bob,bikes,like,2", "bob,other,like,3")
    code, _, err = run(capsys, path)
    assert code == 0
    assert "warning: the catalogue does not have the items of 3 of 3 new events, such as " in err
    assert "such as 'bikes' (is it 'tour/bikes.mp4'?), 'other'; they count once" in err
    code, _, err = run(capsys, path)
    assert (code, err) == (0, "")  # nothing is new


def test_a_server_that_does_not_tell_of_items_costs_the_names_only(
    store: Store, server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("GetItem", server.fails(Status.INTERNAL, "broken"))
    code, out, err = run(capsys, write(tmp_path, "e.csv", "user,item,kind,time", "ann,film,like,1"))
    assert code == 0
    assert "1 event recorded" in out
    assert "does not have the items of 1 of 1 new event; they count" in err


def test_one_event_too_old(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = events_pb2.RecordEventsResponse(expired=1)
    server.on("RecordEvents", lambda requests, *_: [old for _ in [next(requests)]])
    code, _, err = run(capsys, write(tmp_path, "e.csv", "user,item,kind,time", "ann,film,like,1"))
    assert code == 0
    assert "1 event was too old to be kept" in err


def test_a_run_that_was_interrupted_goes_on(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, "e.csv", "user,item,kind,time", *(f"ann,film {n},click,{n + 1}" for n in range(1200)))
    store.left = 1
    code, _, err = run(capsys, path)
    assert code == 69
    assert "lines up to 501 are done; start it again" in err
    assert "no server answers" in err
    store.left = 10**9
    code, out, _ = run(capsys, path)
    assert code == 0
    assert "700 events recorded, 500 were there already" in out
    code = main(["events", str(path), "--json"])
    assert code == 0
    assert json.loads(capsys.readouterr().out) == {
        "recorded": 0,
        "duplicates": 1200,
        "unknown_items": 0,
        "expired": 0,
        "wrong": [],
        "complete": True,
    }


def test_a_file_of_another_kind_is_given_up_early(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, "e.csv", "user,item,kind,time", *(f"ann,film,click,{-n - 1}" for n in range(2000)))
    code, out, err = run(capsys, path, "--max-wrong", 5)
    assert code == 1
    assert not store.kept
    assert "0 events recorded" in out
    assert "more than 5 wrong rows; nothing after line 0 was sent" in err
    locally = write(tmp_path, "l.csv", "user,item,kind,time", *["ann,film,loved,1"] * 600)
    code, _, err = run(capsys, locally)
    assert code == 1
    assert "more than 100 wrong rows" in err


@pytest.mark.parametrize(
    ("name", "header", "why"),
    [
        ("e.txt", "user,item,kind", "ends in neither .csv nor .jsonl"),
        ("e.csv", "user,item", "there is no column 'kind'"),
        ("e.csv", "user;item;kind", "separates columns by ';'; the separator must be a comma"),
        ("e.csv", "user\titem\tkind", "the separator must be a comma"),
        ("e.csv", "user,item,kind,user_id", "'user' is there twice"),
        ("e.csv", "user,item,kind,user", "'user' is there twice"),
        ("e.csv", "", "there is no column 'user'"),
    ],
)
def test_files_that_are_not_understood(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, header: str, why: str
) -> None:
    code, _, err = run(capsys, write(tmp_path, name, header, "a,b,like"))
    assert code == 2
    assert why in err
    assert not store.kept


def test_no_file_and_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, tmp_path / "none.csv")
    assert code == 2
    assert "No such file" in err
    path = write(tmp_path, "e.csv", ",".join(COLUMNS))
    code, _, err = run(capsys, path, "--server", "127.0.0.1:1", "--timeout", "5")
    assert code == 69
    assert "no server answers" in err
