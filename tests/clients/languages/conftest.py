"""Servers to take the tours on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from support.processes import served
from support.tours import PROGRAMS, Secured, command, take


@pytest.fixture(params=PROGRAMS)
def language(request: pytest.FixtureRequest) -> str:
    """Each language whose client is built."""
    command(request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running server."""
    with served(tmp_path_factory.mktemp("plain")) as address:
        yield address


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """A running server that speaks TLS only, and only with who has a token."""
    folder = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    pair = authority.issue_cert("localhost")
    pair.private_key_and_cert_chain_pem.write_to_path(folder / "pair.pem")
    authority.cert_pem.write_to_path(folder / "authorities.pem")
    (folder / "token").write_text("a-secret-of-ours\n")
    options = ("--tls-cert", "pair.pem", "--tls-key", "pair.pem", "--token-file", "token")
    given = [str(folder / word) if not word.startswith("--") else word for word in options]
    with served(folder, *given, listen="localhost:0") as address:
        yield Secured(address, folder / "authorities.pem", folder / "token")


@pytest.fixture(scope="module")
def expected(address: str, media: Path) -> list[str]:
    """The lines that Python prints."""
    tour = take("python", media, {"MATCHCUT_SERVER": address, "MATCHCUT_TENANT": "expected"})
    assert tour.code == 0, tour.errors
    return tour.lines
