"""Small worlds in which it is known what comes next, and models that have learnt them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from matchcut.server.records import EncoderIdentity, Floats
from matchcut.server.training.session.dataset import Dataset, Row, made
from matchcut.server.training.session.fitting import Fitted, fit
from matchcut.server.training.session.judging import histories, parted
from matchcut.server.training.session.settings import Settings

ITEMS, STRIDE, DAY_US = 40, 7, 86_400_000_000
ENCODER = EncoderIdentity("tiny", "1", "d1", 12)


def ring_rows(users: int = 80, events: int = 10, seed: int = 0) -> list[Row]:
    """After item i comes item i + 7, in a ring of 40: each is as popular as any other."""
    random = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        begin = int(random.integers(ITEMS))
        for at in range(events):
            strength = float(random.choice([1.0, 0.5]))
            time_us = at * DAY_US // 2 + user * 1_000_000
            rows.append((f"u{user:02}", f"i{(begin + at * STRIDE) % ITEMS:02}", time_us, strength))
    return rows


@pytest.fixture(scope="session")
def encoder() -> EncoderIdentity:
    return ENCODER


@pytest.fixture(scope="session")
def rows() -> list[Row]:
    return ring_rows()


@pytest.fixture(scope="session")
def vectors() -> dict[str, Floats]:
    """Content that tells nothing of the order; of one item more than there are events of."""
    random = np.random.default_rng(1)
    return {f"i{at:02}": random.standard_normal(12).astype(np.float32) for at in range(ITEMS + 1)}


@pytest.fixture(scope="session")
def ring(rows: list[Row], vectors: dict[str, Floats]) -> Dataset:
    return made(rows, vectors, ENCODER)


@pytest.fixture(scope="session")
def small() -> Settings:
    """What learns the ring in a second or two."""
    return Settings(dimensions=16, width=24, window=8, layers=1, inner=32, rate=0.02, batch=32, dropout=0.1, epochs=12)


@pytest.fixture(scope="session")
def gru(ring: Dataset, small: Settings) -> Fitted:
    return fit(ring, parted(histories(ring)), small)


@pytest.fixture(scope="session")
def sasrec(ring: Dataset, small: Settings) -> Fitted:
    return fit(ring, parted(histories(ring)), replace(small, kind="sasrec"))
