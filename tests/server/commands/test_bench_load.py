"""`matchcut bench load` on a real server: every kind of request in one mix, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from matchcut.client import Client
from matchcut.server.__main__ import main

WORKLOADS = ("query", "vector", "clip", "ingest", "live", "events", "user", "user-live")


def test_a_mix_of_everything(address: str, media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = media / "carphone.mp4"
    with Client(address) as client:
        client.ingest("film", clip)
    page = tmp_path / "load.html"
    arguments = ["--server", address, "--clip", str(clip), "--rate", "24", "--seconds", "2.5", "--warmup", "0.2"]
    arguments += ["--schedule", "constant", "--live-seconds", "0.5", "--frame-size", "64x48", "--per-call", "2"]
    # Whether this machine has a core left for the generator must not matter here.
    arguments += ["--late", "60", "--timeout", "60", "--html", str(page), "--json"]
    code = main(["bench", "load", "--mix", ",".join(WORKLOADS), *arguments])
    told = json.loads(capsys.readouterr().out)
    assert code == (1 if told["invalid"] else 0)
    assert told["server"]["identity"].startswith("matchcut ")
    (point,) = told["points"]
    assert not point["failures"]
    for name in WORKLOADS:
        kind = point["kinds"][name]
        assert kind["planned"] == kind["ok"] > 0, name
        assert kind["latency"]["p50"] > 0, name
        assert kind["stages"]["total"]["p50"] > 0, name
    assert {"decode", "encode"} <= point["kinds"]["clip"]["stages"].keys()
    live = point["kinds"]["live"]
    assert live["frames"] == 5 * live["planned"]
    with Client(address) as client:
        assert [item.id for item in client.items()] == ["film"]
        assert [count.users for count in client.count_events(["film"]).items] == [0]
    assert "decode" in page.read_text()


def test_an_empty_catalogue(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "load", "--server", address]) == 2
    assert "the catalogue of the default tenant is empty; put clips in with `matchcut index`" in capsys.readouterr().err


def test_the_protocol_of_inference_on_the_same_server(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    load = ["bench", "load", "--server", address, "--model", "layout", "--late", "60", "--timeout", "60", "--json"]
    main([*load, "--mix", "infer,infer-stream", "--rate", "20", "--seconds", "1", "--processes", "2"])
    out, err = capsys.readouterr()
    (point,) = json.loads(out)["points"] if out else pytest.fail(err)
    for name in ("infer", "infer-stream"):
        kind = point["kinds"][name]
        assert kind["ok"] == kind["planned"] > 0, kind
        assert kind["latency"]["p50"] > 0
    assert main([*load, "--mix", "infer-stream", "--model", "nix"]) == 2
    assert "is not found; RepositoryIndex lists those that are there; its models are layout" in capsys.readouterr().err


def test_an_input_that_the_model_refuses_on_a_stream_fails_that_request_only(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = [{"name": "pixels", "datatype": "FP32", "shape": [1, 1], "data": [0.5]}]
    path = tmp_path / "requests.json"
    path.write_text(json.dumps([{"inputs": inputs}]))
    load = ["bench", "load", "--server", address, "--model", "layout", "--input", str(path), "--mix", "infer-stream"]
    assert main([*load, "--rate", "20", "--seconds", "1", "--warmup", "0", "--late", "60", "--json"]) == 1
    (point,) = json.loads(capsys.readouterr().out)["points"]
    kind = point["kinds"]["infer-stream"]
    assert kind["errors"] == {"UNKNOWN": kind["planned"]}
    (run,) = point["runs"]
    assert run["kinds"]["infer-stream"]["why"]["UNKNOWN"]
