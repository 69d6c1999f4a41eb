"""What the Python client offers, and what it does without."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import Any

import pytest

import matchcut.client
from matchcut.client import (
    AsyncClient,
    Client,
)


def test_names_are_sorted_and_there() -> None:
    assert list(matchcut.client.__all__) == sorted(matchcut.client.__all__)
    assert all(hasattr(matchcut.client, name) for name in matchcut.client.__all__)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_help_shows_what_a_method_returns(kind: Any) -> None:
    assert inspect.signature(kind.recommend).return_annotation == "Ranking"
    assert inspect.signature(kind.health).return_annotation == "str"
    prefix = "Async" if kind is AsyncClient else ""
    assert inspect.signature(kind.live).return_annotation == f"{prefix}Generator[Ranking]"
    assert inspect.signature(kind.items).return_annotation == f"{prefix}Iterator[Item]"
    assert list(inspect.signature(kind.get).parameters) == ["session", "item_id", "vectors", "options"]


def test_both_clients_have_the_same_methods() -> None:
    names = [{name for name in vars(kind) if not name.startswith("_")} for kind in (Client, AsyncClient)]
    assert names[0] == names[1]
    assert {"ingest", "recommend", "live", "items", "remove", "close"} <= names[0]


def test_the_client_loads_neither_the_server_nor_numpy() -> None:
    code = "import sys, matchcut.client; print([m for m in sys.modules if m in ('numpy', 'matchcut.server', 'av')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
