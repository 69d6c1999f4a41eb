"""`matchcut top`: what it shows of a real server, how it counts, and what it says where there is none."""

from __future__ import annotations

import asyncio
import io
import json
import math
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from matchcut.server.__main__ import main
from matchcut.server.app import App
from matchcut.server.commands import top
from matchcut.server.commands.top import looks, reading
from matchcut.server.commands.top.reading import Reading, Source
from matchcut.server.commands.top.snapshot import Requests, Snapshot, quantile, snapshot
from matchcut.server.commands.top.view import view
from matchcut.server.config import Config
from matchcut.server.errors import Unavailable
from matchcut.v1 import catalog_pb2
from support.wire import Wire

RECOMMEND = "matchcut.v1.Recommender/Recommend"


@pytest.fixture
async def served(config: Config) -> AsyncIterator[App]:
    """A server with metrics."""
    async with App(replace(config, metrics="127.0.0.1:0")) as app:
        yield app


async def run(*arguments: str) -> int:
    return await asyncio.to_thread(main, ["top", *arguments])


async def use(app: App) -> None:
    """One request that succeeds and one that fails."""
    async with grpc.aio.insecure_channel(app.address) as channel:
        assert (await Wire(channel).clip(1, 2)).final
        with pytest.raises(grpc.aio.AioRpcError):
            await Wire(channel).catalog.GetItem(catalog_pb2.GetItemRequest(item_id="none"))


async def told(app: App) -> None:
    """Waits for the last figures of calls that have ended, which come right after their replies."""
    source = Source(app.metrics)
    async with asyncio.timeout(30):
        while not any(
            labels["stage"] == "rank" for labels, _ in (await asyncio.to_thread(source.read)).of("stage_seconds_count")
        ):
            await asyncio.sleep(0.01)


async def test_one_look_shows_all_since_the_start(served: App, capsys: pytest.CaptureFixture[str]) -> None:
    await use(served)
    await told(served)
    capsys.readouterr()
    assert await run("--once", "--metrics", served.metrics) == 0
    shown = capsys.readouterr().out
    assert f"at {served.metrics}: since its start" in shown
    assert "places taken: 0 of 8 media, 0 of 64 quick" in shown
    assert "catalogue: 0 segments, 0 coded for the scan" in shown
    assert "layout 1" in shown
    assert "given up: none" in shown
    rows = {line.split()[1]: [cell.strip() for cell in line.split("│")] for line in shown.splitlines() if "│" in line}
    assert rows["Recommend"][2] == "1"
    assert rows["GetItem"][7] == "1 NOT_FOUND"
    assert {"decode", "encode", "rank"} <= rows.keys()
    assert rows["layout"][2:5] == ["1", "2.0", "0"]


async def test_where_the_output_is_no_terminal_there_is_one_look(
    served: App, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run("--metrics", f"http://{served.metrics}/metrics") == 0
    assert capsys.readouterr().out.count("since its start") == 1


async def test_json_has_the_figures(served: App, capsys: pytest.CaptureFixture[str]) -> None:
    await use(served)
    await told(served)
    capsys.readouterr()
    assert await run("--json", "--metrics", served.metrics) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["since_start"] is True
    requests = {one["rpc"]: one for one in shown["requests"]}
    assert requests[RECOMMEND]["ended"] == 1
    assert requests[RECOMMEND]["failed"] == {}
    assert 0 < requests[RECOMMEND]["p50"] <= requests[RECOMMEND]["p99"]
    assert requests["matchcut.v1.Catalog/GetItem"]["failed"] == {"NOT_FOUND": 1}
    assert [one["kind"] for one in shown["places"]] == ["media", "quick"]
    assert {"name": "layout", "version": "1", "ready": True} in shown["models"]


async def test_later_looks_show_what_happened_in_between(served: App) -> None:
    source = Source(served.metrics)
    await use(served)
    await told(served)
    found = looks(source.address, source.read, lambda: None)
    first, _ = await asyncio.to_thread(next, found)
    async with grpc.aio.insecure_channel(served.address) as channel:
        for _ in range(2):
            await Wire(channel).ask([1.0] * 48)
    second, note = await asyncio.to_thread(next, found)
    third, _ = await asyncio.to_thread(next, found)
    assert (first.since_start, second.since_start, third.since_start, note) == (True, False, False, "")
    assert [of(shown, RECOMMEND).ended for shown in (first, second, third)] == [1, 2, 0]
    assert of(second, RECOMMEND).per_second == pytest.approx(2 / second.seconds)
    assert of(second, RECOMMEND).p99 is not None
    assert of(third, RECOMMEND).p99 is None
    assert third.stages == ()


async def test_a_server_that_goes_away_and_comes_back(config: Config) -> None:
    async with App(replace(config, metrics="127.0.0.1:0")) as app:
        source = Source(app.metrics)
        await use(app)
        found = looks(source.address, source.read, lambda: None)
        before, _ = await asyncio.to_thread(next, found)
    for _ in range(2):
        shown, note = await asyncio.to_thread(next, found)
        assert shown is before
        assert note.startswith(f"these figures are old: no metrics are served at {source.address}")
    async with App(replace(config, metrics=source.address)) as app:
        async with grpc.aio.insecure_channel(app.address) as channel:
            await Wire(channel).ask([1.0] * 48)
        shown, note = await asyncio.to_thread(next, found)
    assert note == ""
    assert shown.since_start
    assert [(one.rpc, one.ended) for one in shown.requests] == [(RECOMMEND, 1)]


async def test_the_screen_is_drawn_until_it_is_interrupted(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, waits = io.StringIO(), iter([None, None, KeyboardInterrupt])
    asked: list[float] = []

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        failure = next(waits)
        if failure is not None:
            raise failure

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(top, "console", Console(file=drawn, force_terminal=True, width=120, height=60))
    monkeypatch.setattr(top, "time", SimpleNamespace(sleep=sleep))
    assert await run("--metrics", served.metrics, "--interval", "0.25") == 0
    assert asked == [0.25] * 3
    assert drawn.getvalue().count("since its start") >= 1
    assert drawn.getvalue().count("the last ") == 2


async def test_a_terminal_that_cannot_be_drawn_on_gets_one_look(served: App, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(top, "console", Console(file=drawn, force_terminal=True, width=120, height=60))
    assert await run("--metrics", served.metrics) == 0
    assert drawn.getvalue().count("since its start") == 1


async def test_where_nothing_answers_it_says_how_to_start(capsys: pytest.CaptureFixture[str], config: Config) -> None:
    async with App(replace(config, metrics="127.0.0.1:0")) as app:
        gone, calls = app.metrics, app.address
        assert await run("--once", "--metrics", calls) == 69
        assert f"what answers at {calls} is not the metrics of a matchcut server" in capsys.readouterr().err
    for arguments in (["--once"], ["--json"], []):
        assert await run(*arguments, "--metrics", gone) == 69
        assert f"start the server with `matchcut serve --metrics {gone}`" in capsys.readouterr().err


class Answers(HTTPServer):
    """Answers each request with the same bytes, as an HTTP server of somebody else."""

    def __init__(self, status: int, body: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing on standard error."""

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def somebody(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that answers with the parameter's status and body."""
    with Answers(*request.param) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    "somebody",
    [
        (200, b""),
        (200, b"<html>a page</html>"),
        (200, b'matchcut_info{version="1'),
        (200, b"matchcut_places much\n"),
        (200, b"\xff\xfe\n"),
        (200, b"# TYPE other counter\nother_total 1\n"),
        (404, b"matchcut_places 1\n"),
        (200, b"matchcut_places 1\n" * 100),
    ],
    indirect=True,
)
def test_what_is_no_metrics_of_matchcut_is_told(somebody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST", 1000)
    with pytest.raises(Unavailable, match="is not the metrics of a matchcut server"):
        Source(somebody).read()


@pytest.mark.parametrize(
    "somebody", [(200, b'matchcut_places{kind="media"} 3\nmatchcut_info{version="1"} 1\n')], indirect=True
)
def test_a_server_that_tells_less_is_shown_all_the_same(somebody: str) -> None:
    shown = snapshot("here", Source(somebody).read(), None)
    assert (shown.version, shown.seconds, shown.requests) == ("1", 0, ())
    assert "0 of 3 media" in text(shown)


@pytest.mark.parametrize(
    "address",
    ["", "9464", ":9464", "host:", "host:http", "host:0", "host:70000", "host:1/x", "a@host:1", "https://h:1"],
)
async def test_an_address_must_be_one(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert await run("--once", f"--metrics={address}") == 2
    assert "is not HOST:PORT" in capsys.readouterr().err


def test_the_address_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATCHCUT_METRICS", "nowhere")
    assert main(["top", "--once"]) == 2


def reading_of(at: float, **series: Mapping[tuple[str, ...], float]) -> Reading:
    """A reading; labels are ("name=value", ...)."""
    return Reading(
        at,
        {
            name: tuple((dict(label.split("=", 1) for label in labels), value) for labels, value in samples.items())
            for name, samples in series.items()
        },
    )


def of(shown: Snapshot, rpc: str) -> Requests:
    (found,) = [one for one in shown.requests if one.rpc == rpc]
    return found


def text(shown: Snapshot, note: str = "") -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(view(shown, note))
    drawn: io.StringIO = console.file  # type: ignore[assignment]
    return drawn.getvalue()


def test_a_counter_that_falls_began_again() -> None:
    """Also where the server does not tell when it started."""
    before = reading_of(10.0, requests_total={("rpc=a", "code=OK"): 100.0, ("rpc=b", "code=OK"): 5.0})
    now = reading_of(12.0, requests_total={("rpc=a", "code=OK"): 7.0, ("rpc=b", "code=OK"): 9.0})
    shown = snapshot("here", now, before)
    assert {one.rpc: (one.ended, one.per_second) for one in shown.requests} == {"a": (7, 3.5), "b": (4, 2.0)}


def test_a_start_in_between_counts_all_since_then() -> None:
    before = reading_of(100.0, start_time_seconds={(): 50.0}, requests_total={("rpc=a", "code=OK"): 1.0})
    now = reading_of(102.0, start_time_seconds={(): 101.0}, requests_total={("rpc=a", "code=OK"): 3.0})
    shown = snapshot("here", now, before)
    assert (shown.since_start, shown.seconds) == (True, 1.0)
    assert shown.requests[0].ended == 3


def test_a_clock_that_is_behind_the_servers_gives_no_rate() -> None:
    now = reading_of(10.0, start_time_seconds={(): 20.0}, requests_total={("rpc=a", "code=OK"): 1.0})
    shown = snapshot("here", now, None)
    assert shown.requests[0].per_second is None
    assert "since its start, 0.0 s ago" in text(shown)


def test_everything_given_up_is_shown_with_its_reason() -> None:
    now = reading_of(
        1.0,
        requests_refused_total={("kind=media",): 3.0, ("kind=quick",): 0.0},
        batch_dropped_total={("model=m", "reason=CANCELLED"): 2.0},
        live_frames_dropped_total={("rpc=matchcut.v1.Recommender/RecommendLive",): 40.0},
        batch_wasted_total={("model=m",): 1.0},
    )
    shown = text(snapshot("here", now, None))
    assert (
        "given up: 3 media requests: no place was free; 2 waited for m: CANCELLED; "
        "40 frames of RecommendLive: came too fast; 1 runs of m: nobody waited any longer"
    ) in " ".join(shown.split())


def test_words_of_others_control_no_terminal() -> None:
    now = reading_of(
        1.0,
        info={("version=\x1b[2J",): 1.0},
        model_ready={("model=[red]\x1b]0;x\x07", "version=1"): 0.0},
        requests_total={("rpc=\x1b[31m", "code=\x9b"): math.nan},
        requests_under_way={("rpc=\x1b[31m",): math.inf},
        batch_waiting_rows={("model=\x1b[5m",): -math.inf},
        places={("kind=\r",): math.nan},
        catalog_segments={(): math.nan},
        stage_seconds_count={("rpc=a", "stage=new"): 2.0},
        stage_seconds_bucket={("rpc=a", "stage=new", "le=1"): math.nan, ("rpc=a", "stage=new", "le=+Inf"): math.nan},
    )
    shown = text(snapshot("here", now, None), note="a\x1b[0m note")
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(shown)
    assert "[red]" in shown
    assert "(not ready)" in shown
    assert "new" in shown
    assert "warning a\\x1b[0m note" in shown


@pytest.mark.parametrize(
    ("share", "buckets", "expected"),
    [
        (0.5, {}, None),
        (0.5, {1.0: 0.0, math.inf: 0.0}, None),
        (0.5, {1.0: 4.0, 2.0: 4.0, math.inf: 4.0}, 0.5),
        (0.5, {1.0: 0.0, 2.0: 4.0, math.inf: 4.0}, 1.5),
        (0.99, {1.0: 50.0, 2.0: 98.0, 4.0: 100.0, math.inf: 100.0}, 3.0),
        (0.99, {1.0: 1.0, math.inf: 100.0}, 1.0),
        (0.0, {1.0: 0.0, 2.0: 4.0, math.inf: 4.0}, 1.0),
        (1.0, {1.0: 2.0, 2.0: 4.0, math.inf: 4.0}, 2.0),
    ],
)
def test_quantiles_of_buckets(share: float, buckets: dict[float, float], expected: float | None) -> None:
    assert quantile(share, buckets) == expected


@given(st.lists(st.floats(0.001, 9.99), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], share: float) -> None:
    bounds = [0.1, 1.0, 2.5, 10.0, math.inf]
    buckets = {bound: float(sum(value <= bound for value in values)) for bound in bounds}
    true = sorted(values)[math.ceil(share * len(values) - 1e-9) - 1]
    at = next(place for place, bound in enumerate(bounds) if true <= bound)
    found = quantile(share, buckets)
    assert found is not None
    assert (bounds[at - 1] if at else 0.0) - 1e-9 <= found <= bounds[at] + 1e-9
