"""`matchcut forget`: the receipt."""

from __future__ import annotations

import json

import pytest

from matchcut.server.__main__ import main
from matchcut.v1 import events_pb2
from support.fake_server import FakeServer, serving


def test_a_receipt_that_names_nobody(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeServer()
    with serving(fake) as (address,):
        monkeypatch.setenv("MATCHCUT_SERVER", address)
        assert main(["forget", "ann", "--tenant", "shop"]) == 0
        out = capsys.readouterr().out
        assert "deleted 3 events and 2 lists that were shown, 1970-01-01T00:00:01+00:00" in " ".join(out.split())
        assert f"receipt {'ab' * 32}\n" in out
        assert "ann" not in out
        assert main(["forget", "ann", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"events": 3, "exposures": 2, "time": 1.5, "digest": "ab" * 32}
    (request,) = fake.calls[0].requests
    assert (request.tenant, request.user_id) == ("shop", "ann")


def test_one_of_each(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeServer()
    receipt = events_pb2.ForgetUserResponse(events=1, exposures=1, digest="ab" * 32)
    fake.on("ForgetUser", lambda requests, *_: [receipt for _ in [next(requests)]])
    with serving(fake) as (address,):
        assert main(["forget", "ann", "--server", address]) == 0
    assert "deleted 1 event and 1 list that was shown" in " ".join(capsys.readouterr().out.split())


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["forget", "ann", "--server", "127.0.0.1:1"]) == 69
    assert "no server answers" in capsys.readouterr().err
