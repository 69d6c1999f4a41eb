"""The encoder that the session models of these tests are made for."""

from __future__ import annotations

import pytest

from matchcut.server.records import EncoderIdentity


@pytest.fixture
def encoder() -> EncoderIdentity:
    return EncoderIdentity("tiny", "1", "d1", 6)
