"""The same tour prints the same lines in every language: plainly, over TLS, all at once, and past a restart."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from support.processes import bare, served
from support.tours import LIMIT, PROGRAMS, Secured, Tour, command, is_built, take


def test_what_a_tour_shows(expected: list[str]) -> None:
    """It does what it is said to do; so the other languages do, which print the same."""
    told = dict(line.split(": ", 1) for line in expected if ": " in line)
    assert told["health"] == "SERVING"
    assert "bikes: sent 509868 of 509868 bytes, growing" in expected
    assert told["bikes again"].startswith("UPDATED")
    assert told["items"] == "a bikes carphone twin"
    assert told["traffic, not people"] == "bikes"
    assert told["like a clip"].startswith("carphone ")
    assert told["like a vector"].startswith("carphone 1.000, twin 1.000")
    assert told["live container"].startswith("1 2 3")
    assert sum(line.startswith("live frames") for line in expected) == 4
    assert told["nobody knows ann"].startswith("cold; ")
    assert told["first time"] == "3 new, 0 known, 1 of unknown items"
    assert told["second time"] == "0 new, 3 known, 0 of unknown items"
    assert told["ann saves carphone"].startswith("3 events; twin (carphone), ")
    assert told["ann forgotten"] == "4 events; again: 0"
    assert told["an item that is not there"] == "NOT_FOUND ITEM_NOT_FOUND item_id there is no item 'nobody'"
    assert told["no video"].startswith("INVALID_ARGUMENT UNREADABLE_MEDIA - the bytes are not a video file")
    assert told["no time"] == "DEADLINE_EXCEEDED"
    assert "stopped after ranking 1" in expected
    assert told["half"] == "not there"
    assert told["left"] == "0 items"


def all_at_once(media: Path, **environment: str) -> dict[str, Tour]:
    """Takes the tours of all languages that are built at the same time; each has a tenant of its own."""
    built = [name for name in PROGRAMS if is_built(name)]
    with ThreadPoolExecutor(len(built)) as pool:
        tours = [pool.submit(take, name, media, {**environment, "MATCHCUT_TENANT": name}) for name in built]
        return {name: tour.result() for name, tour in zip(built, tours, strict=True)}


@pytest.fixture(scope="module")
def plain(address: str, media: Path) -> dict[str, Tour]:
    return all_at_once(media, MATCHCUT_SERVER=address)


@pytest.fixture(scope="module")
def over_tls(secured: Secured, media: Path) -> dict[str, Tour]:
    return all_at_once(
        media,
        MATCHCUT_SERVER=secured.address,
        MATCHCUT_TLS_CA=str(secured.authorities),
        MATCHCUT_CLIENT_TOKEN_FILE=str(secured.token),
    )


def test_the_same_lines(language: str, plain: dict[str, Tour], expected: list[str]) -> None:
    """None disturbs another."""
    assert plain[language] == Tour(0, expected, "")


def test_with_tls_and_a_token(language: str, over_tls: dict[str, Tour], expected: list[str]) -> None:
    assert over_tls[language] == Tour(0, expected, "")


def test_without_the_token(language: str, secured: Secured, media: Path) -> None:
    """It ends with the server's words."""
    environment = {"MATCHCUT_SERVER": secured.address, "MATCHCUT_TLS_CA": str(secured.authorities)}
    tour = take(language, media, environment)
    assert tour.code != 0
    assert "send a valid token" in tour.errors
    assert tour.lines == ["health: SERVING"]  # which needs none


@pytest.fixture(scope="module")
def restarted(media: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tour]:
    """The second parts of all tours: each asks for what it has put into a server that is gone, and comes back."""
    folder = tmp_path_factory.mktemp("restarted")
    built = [name for name in PROGRAMS if is_built(name)]
    with ExitStack() as kept:
        with served(folder) as address:
            tours = {name: kept.enter_context(second_part(name, media, address)) for name in built}
            for tour in tours.values():
                assert tour.stdout
                assert tour.stdout.readline() == "ready\n"
        for tour in tours.values():
            assert tour.stdin
            tour.stdin.write("\n")
            tour.stdin.flush()
        time.sleep(1)  # so that they ask while nobody is there
        assert {name: tour.poll() for name, tour in tours.items()} == dict.fromkeys(built)
        with served(folder, listen=address):
            said = {name: tour.communicate(timeout=LIMIT) for name, tour in tours.items()}
        return {name: Tour(tours[name].returncode, out.splitlines(), errors) for name, (out, errors) in said.items()}


@contextmanager
def second_part(language: str, media: Path, address: str) -> Iterator[subprocess.Popen[str]]:
    """The tour past a restart, which says when it is ready for one and then waits for a line; killed in the end."""
    with subprocess.Popen(
        [*command(language), str(media), "restart"],
        env=bare(MATCHCUT_SERVER=address, MATCHCUT_TENANT=language),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as tour:
        try:
            yield tour
        finally:
            tour.kill()


def test_a_restart_is_waited_for(language: str, restarted: dict[str, Tour]) -> None:
    """A question that meets no server is asked again until there is one, which still knows the item."""
    assert restarted[language] == Tour(0, ["after a restart: bikes 1.000"], "")
