"""Vectors that callers bring."""

from __future__ import annotations

import numpy as np
import pytest

from matchcut.server.errors import EncoderMismatch, InvalidInput
from matchcut.server.records import EncoderIdentity
from matchcut.server.vectors import agree, unit

OWN = EncoderIdentity("own", "2", "d1", 3)
THREE = np.array([3, 0, 4], np.float32)


@pytest.mark.parametrize(
    "stated",
    [None, EncoderIdentity("", "", "", 0), EncoderIdentity("own", "", "", 0), EncoderIdentity("own", "2", "", 3), OWN],
)
def test_the_servers_own_encoder(stated: EncoderIdentity | None) -> None:
    assert agree(stated, OWN, THREE, "vector") is OWN


def test_another_encoder_keeps_its_name_and_gets_a_digest() -> None:
    assert agree(EncoderIdentity("clip", "b32", "", 0), OWN, THREE, "v") == EncoderIdentity(
        "clip", "b32", "clip@b32", 3
    )
    assert agree(EncoderIdentity("own", "1", "", 0), OWN, THREE, "v").digest == "own@1"
    assert agree(EncoderIdentity("own", "2", "d2", 0), OWN, THREE, "v").digest == "d2"


@pytest.mark.parametrize("stated", [None, EncoderIdentity("clip", "", "", 7)])
def test_a_wrong_length_is_told(stated: EncoderIdentity | None) -> None:
    with pytest.raises(EncoderMismatch, match=r"vector has 2 values, vectors of '(own|clip)' have [37]"):
        agree(stated, OWN, THREE[:2], "vector")


def test_unit_length() -> None:
    assert unit(THREE, "v").tolist() == pytest.approx([0.6, 0, 0.8])
    assert unit(np.array([1e-38, 0], np.float32), "v").tolist() == [1, 0]
    assert unit(np.array([3e38, 3e38], np.float32), "v").tolist() == pytest.approx([0.5**0.5] * 2)


@pytest.mark.parametrize(
    ("values", "what"), [([0, 0], "is zero"), ([1, float("nan")], "NaN"), ([float("inf"), 0], "NaN")]
)
def test_no_direction(values: list[float], what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        unit(np.array(values, np.float32), "v")
