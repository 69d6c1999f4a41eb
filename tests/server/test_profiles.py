"""Profiles are other defaults: complete, explained, and beaten by whatever is given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchcut.server import config, process, profiles
from matchcut.server.__main__ import main
from matchcut.server.catalog import Catalog, open_catalog
from matchcut.server.config import Config
from matchcut.server.events import open_log
from matchcut.server.options import parse
from matchcut.server.records import EncoderIdentity, Item, Segment, TimeRange
from matchcut.server.session import DecayingMean
from matchcut.server.users import Galleries

DECLARED = {declared.name: declared for declared in fields(Config)}
EDGE = profiles.PROFILES["edge"]


def test_a_profile_sets_what_there_is_to_values_that_it_can_have() -> None:
    for name, value in EDGE.items():
        assert parse(DECLARED[name], value, name) == value
        assert value != DECLARED[name].default, "it says nothing"
        assert name not in ("profile", "data", "cache", "listen")


def test_the_standard_profile_is_the_defaults() -> None:
    assert config.load({}, {}) == config.load({"profile": "standard"}, {})
    assert config.load({}, {}).threads == Config().threads


def test_a_profile_is_the_weakest_word(tmp_path: Path) -> None:
    edge = config.load({"profile": "edge"}, {})
    assert {name: getattr(edge, name) for name in EDGE} == EDGE
    rest = DECLARED.keys() - EDGE.keys() - {"profile"}
    assert {name: getattr(edge, name) for name in rest} == {name: getattr(config.load({}, {}), name) for name in rest}
    file = tmp_path / "matchcut.toml"
    file.write_text('profile = "edge"\nthreads = 3\nbatch = 3\nmax_queue = 3\n')
    environ = {"MATCHCUT_CONFIG": str(file), "MATCHCUT_BATCH": "5", "MATCHCUT_MAX_QUEUE": "5"}
    loaded = config.load({"max_queue": "7"}, environ)
    assert (loaded.profile, loaded.threads, loaded.batch, loaded.max_queue) == ("edge", 3, 5, 7)
    assert loaded.scan_from == EDGE["scan_from"]
    assert config.load({"profile": "standard"}, environ).scan_from == Config().scan_from


@given(st.sampled_from(sorted(EDGE)))
def test_each_of_its_options_can_be_set_back(name: str) -> None:
    default = DECLARED[name].default
    assert getattr(config.load({"profile": "edge", name: str(default)}, {}), name) == default


def test_an_unknown_profile_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--profile", "mainframe"]) == 2
    assert "--profile: 'mainframe' is not one of standard, edge" in capsys.readouterr().err


def test_help_and_doctor_say_what_it_sets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert f"edge sets {profiles.explained('edge')};" in told
    assert "--max-message 8MiB" in profiles.explained("edge")
    options = ["--data", str(tmp_path), "--cache", str(tmp_path), "--device", "cpu", "--json"]
    main(["doctor", "--profile", "edge", "--precision", "float32", *options])
    found = {one["what"]: one["detail"] for one in json.loads(capsys.readouterr().out)["findings"]}
    assert "threads 1" in found["profile"]
    assert "max-message 8MiB" in found["profile"]
    assert "user-memory 8MiB" in found["profile"]
    assert "precision" not in found["profile"], "what is given instead is not the profile's"
    assert found["encoder"].startswith("the default one, 57934424,")
    main(["doctor", *options])
    assert "profile" not in {one["what"] for one in json.loads(capsys.readouterr().out)["findings"]}


SETTINGS = """
from matchcut.server import process
assert process.save_memory() or {musl}
assert process.one_thread_for_products()
import threading
import numpy
a = numpy.ones((600, 600), numpy.float32)
before = len(list(__import__("pathlib").Path("/proc/self/task").iterdir()))
a @ a.T
assert len(list(__import__("pathlib").Path("/proc/self/task").iterdir())) == before
from ctypes import CDLL
for path in process.libraries("openblas"):
    for name in process.SETTERS:
        get = getattr(CDLL(path), name.replace("_set_", "_get_"), None)
        if get:
            print(get())
            break
"""


@pytest.mark.skipif(not process.MAPS.exists(), reason="what is loaded can be seen on Linux only")
def test_products_take_one_thread_and_memory_is_given_back() -> None:
    script = SETTINGS.replace("{musl}", str(not Path("/lib64").exists()))
    environ = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1"]


def test_a_system_without_such_settings_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "MAPS", tmp_path / "none")
    assert not process.one_thread_for_products()
    assert process.libraries("openblas") == []
    monkeypatch.setattr("ctypes.CDLL", lambda path: object())
    assert not process.save_memory()


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    """Two items of a small encoder."""
    with closing(open_catalog(None)) as opened:
        for at in range(2):
            vector = np.eye(4, dtype=np.float32)[at]
            opened.put("", Item(f"i{at}"), [Segment(TimeRange(0, 1), vector)], IDENTITY, bytes([at]))
        yield opened


IDENTITY = EncoderIdentity("small", "1", "small", 4)


@pytest.mark.parametrize("ahead", [True, False])
def test_lists_for_users_cost_nothing_until_they_are_asked_for(catalog: Catalog, ahead: bool) -> None:
    with closing(open_log(None)) as log:
        galleries = Galleries(catalog, log, DecayingMean(IDENTITY, 4.0), clock_us=lambda: 5, ahead=ahead)
        with closing(galleries):
            assert galleries._thread.is_alive() is ahead
            if not ahead:
                assert not galleries.ready
            else:
                assert galleries.wait_ready(5)
            assert galleries.gallery("").view.count == 2, "who asks first waits for it"
            assert galleries.ready
            assert galleries._thread.is_alive()
            vector = np.ones(4, np.float32)
            catalog.put("", Item("later"), [Segment(TimeRange(0, 1), vector)], IDENTITY, b"later")
            assert galleries.wait(5)
            assert galleries.gallery("").view.count == 3


def test_what_was_never_begun_can_be_closed(catalog: Catalog) -> None:
    with closing(open_log(None)) as log:
        galleries = Galleries(catalog, log, DecayingMean(IDENTITY, 4.0), clock_us=lambda: 5, ahead=False)
        galleries.close()
        galleries.close()
        assert not galleries.wait_ready(0.01)
        assert galleries.gallery("").view.count == 0
        assert not galleries._thread.is_alive()
