"""What is said when the catalogue's disk fails; see disk.Kind."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from matchcut.server.catalog import schema
from matchcut.server.disk import Kind
from matchcut.server.errors import StoreFailed

KIND = Kind(
    noun="catalogue",
    application=schema.APPLICATION,
    version=schema.VERSION,
    schema=schema.SCHEMA,
    upgrade=schema.UPGRADE,
    otherwise="ingest again",
    log=logging.getLogger("matchcut.catalog"),
)


def in_service(path: Path, error: sqlite3.Error, *, removals: bool) -> StoreFailed:
    """Why a change could not be made; `removals`: it was to remove items alone."""
    return KIND.in_service(path, error, remedy=_remedy(removals))


def full(path: Path) -> StoreFailed:
    """There is no room for a change that is more than removals."""
    return KIND.full(path, remedy=_remedy(False))


def _remedy(removals: bool) -> str:
    return "free space on its disk" if removals else "remove items, or give it more space"
