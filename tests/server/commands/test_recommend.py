"""`matchcut recommend`: what is asked and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from matchcut.server.__main__ import main
from matchcut.server.commands.output import console
from matchcut.v1 import recommender_pb2 as pb
from support.fake_server import FakeServer, serving, user_ranking


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """A server that MATCHCUT_SERVER names."""
    fake = FakeServer()
    with serving(fake) as (address,):
        monkeypatch.setenv("MATCHCUT_SERVER", address)
        yield fake


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["recommend", *(str(one) for one in arguments)])
    shown = capsys.readouterr()
    return code, " ".join(shown.out.split()), " ".join(shown.err.split())


def answers(server: FakeServer, reply: pb.RecommendForUserResponse) -> None:
    server.on("RecommendForUser", lambda requests, *_: [reply for _ in [next(requests)]])


def asked(server: FakeServer) -> Any:
    (request,) = server.calls[-1].requests
    return request


def test_a_list_is_shown(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "ann", "--limit", 3, "--tenant", "shop")
    assert code == 0
    for part in ("item", "like", "cosine", "│ 1 │ a │ 0.5000 │ near │ 0.750 │"):
        assert part in out
    assert "made of 2 events; session model mean 1; list list" in out
    assert "chance" not in out
    assert "history" not in out
    assert (asked(server).tenant, asked(server).user_id, asked(server).options.limit) == ("shop", "ann", 3)
    assert asked(server).user_options == pb.UserOptions()
    assert not asked(server).HasField("current")


def test_what_a_score_is_made_of(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    reply = user_ranking(1, "a", final=True)
    shares = (("popularity", 0.0), ("current", 0.25), ("history", 0.75))
    reply.matches[0].reason.ClearField("shares")
    reply.matches[0].reason.shares.extend(pb.SignalShare(signal=signal, share=share) for signal, share in shares)
    answers(server, reply)
    code, out, _ = run(capsys, "ann", "--explain")
    assert code == 0
    assert "made of" in out
    assert "│ 1 │ a │ 0.5000 │ near │ 0.750 │ history 75%, current 25% │ 0.25 │" in out


def test_a_cold_user_in_an_experiment(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    reply = user_ranking(1, final=True)
    reply.cold = True
    reply.variant.CopyFrom(pb.Variant(experiment="mmr", name="[bold]more"))
    answers(server, reply)
    code, out, _ = run(capsys, "ann")
    assert code == 0
    assert "no item is eligible" in out
    assert "no event of the user counts yet, nothing else is known: what is popular and new" in out
    assert "experiment mmr: [bold]more" in out


def test_a_user_with_dislikes_only(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    reply = user_ranking(1, "a", final=True)
    reply.cold, reply.events = True, 3
    answers(server, reply)
    _, out, _ = run(capsys, "ann")
    assert "made of 3 events, none of which tells what the user likes: what is popular and new" in out
    assert "nothing else is known" not in out


@pytest.mark.parametrize(("second", "told"), [(0.75, True), (0.5, False), (0.25, False)])
def test_an_order_beside_the_score_is_explained(
    server: FakeServer, capsys: pytest.CaptureFixture[str], second: float, told: bool
) -> None:
    reply = user_ranking(1, "a", "b", final=True)
    reply.matches[1].score = second
    answers(server, reply)
    _, out, _ = run(capsys, "ann")
    assert ("decide the order beside the score" in out) is told


def test_ids_are_shown_whole(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    item = "season-" * 12 + "end"
    reply = user_ranking(1, item, final=True)
    shares = (("current", 0.25), ("history", 0.5), ("freshness", 0.25))
    reply.matches[0].reason.ClearField("shares")
    reply.matches[0].reason.shares.extend(pb.SignalShare(signal=signal, share=share) for signal, share in shares)
    answers(server, reply)
    monkeypatch.setattr(console, "_width", 80)
    main(["recommend", "ann", "--explain"])
    out = capsys.readouterr().out
    assert "…" not in out
    cells = [line.split("│") for line in out.splitlines() if line.count("│") == 8]
    assert "".join(row[2].strip() for row in cells) == item
    assert "0.5000" in out


def test_a_history_in_a_file(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "e.csv"
    rows = [f"ann,film {n},like,{n}" for n in range(1, 1003)]
    path.write_text("\n".join(["user,item,kind,time", *rows, "bob,clip,like,5"]))
    code, _, _ = run(capsys, "ann", "--history", path)
    assert code == 0
    assert [event.item_id for event in asked(server).history] == [f"film {n}" for n in range(3, 1003)]
    assert {event.user_id for event in asked(server).history} == {"ann"}
    code, _, err = run(capsys, "eve", "--history", path)
    assert code == 2
    assert "has no event of 'eve'" in err
    path.write_text("user,item,kind,time\nann,film,loved,1\n")
    code, _, err = run(capsys, "ann", "--history", path)
    assert code == 2
    assert "line 2 of" in err


def test_a_server_that_keeps_no_users(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    info = error_details_pb2.ErrorInfo(reason="USERS_OFF", domain="matchcut")
    server.on("RecommendForUser", server.fails(grpc.StatusCode.PERMISSION_DENIED, "keeps nothing of users", info))
    code, _, err = run(capsys, "ann")
    assert code == 1
    assert "keeps nothing of users (here: --history FILE)" in err


def test_options_are_asked_for(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--like a --like b --include-seen --mmr-lambda 0 --current-weight 0.8 --freshness 0 --popularity 2"
    words += (
        " --freshness-half-life 60 --cap 2 --cap-attribute studio --exploration 0.1 --exclude x --tag t --not-tag u"
    )
    code, out, _ = run(capsys, "ann", *words.split(), "--json")
    assert code == 0
    assert [match["item"]["id"] for match in json.loads(out)["matches"]] == ["a", "ann"]
    request = asked(server)
    assert list(request.current.items.item_ids) == ["a", "b"]
    assert request.user_options == pb.UserOptions(
        include_seen=True,
        mmr_lambda=0.0,
        current_weight=0.8,
        freshness=0.0,
        freshness_half_life_us=60_000_000,
        popularity=2.0,
        cap=2,
        cap_attribute="studio",
        exploration=0.1,
    )
    assert list(request.options.exclude_item_ids) == ["x"]
    assert (list(request.options.tags.all_of), list(request.options.tags.none_of)) == (["t"], ["u"])


def test_a_clip(server: FakeServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"film")
    reply = user_ranking(1, "a", final=True)
    reply.report.frames_used = 12
    answers(server, reply)
    code, out, _ = run(capsys, "ann", "--clip", path)
    assert code == 0
    assert "12 used" in out
    assert [chunk.data for chunk in asked(server).current.clip.chunks] == [b"film"]
    code, _, err = run(capsys, "ann", "--clip", path, "--like", "a")
    assert code == 2
    assert "either --like or --clip" in err
    code, _, err = run(capsys, "ann", "--clip", tmp_path / "none.mp4")
    assert code == 2
    assert "none.mp4" in err
