"""Media on its way in: counted, bounded, hashed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import pytest

from matchcut.server.clock import Clock
from matchcut.server.intake import Intake
from matchcut.server.records import Container, EncodedPictures, Media, MediaLimits, MediaReport, Sampling

DATA = bytes(range(256)) * 40


def container(wanted: int = 0) -> Media:
    limits = MediaLimits(pixels=0, bytes=wanted, frames=0, duration_us=0) if wanted else None
    return Media(Container(io.BytesIO(DATA)), Sampling(), MediaLimits(), limits)


def source(intake: Intake) -> Container:
    assert isinstance(intake.media.form, Container)
    return intake.media.form


def test_the_digest_covers_what_the_stages_did_not_read() -> None:
    clock, report = Clock(), MediaReport()
    intake = Intake(container(), clock, report, hashed=True)
    assert source(intake).source.read(100) == DATA[:100]
    assert intake.digest() == hashlib.sha256(DATA).digest()
    assert [stage.name for stage in clock.times().stages] == ["receive"]


def test_a_spooled_container_is_read_again() -> None:
    intake = Intake(container(), Clock(), MediaReport(), hashed=True)
    intake.spool()
    assert intake.digest() == hashlib.sha256(DATA).digest()
    assert source(intake).source.read(-1) == DATA


@pytest.mark.parametrize("step", [-1, 7, 1000])
def test_the_callers_own_limit_of_bytes(step: int) -> None:
    report = MediaReport()
    read = source(Intake(container(wanted=1000), Clock(), report)).source.read
    got = b"".join(iter(lambda: read(step), b""))
    assert got == DATA[:1000]
    assert report.truncated
    assert [warning.reason for warning in report.warnings] == ["LIMIT_REACHED"]


def test_pictures_are_hashed_with_their_times() -> None:
    def digest(*pictures: tuple[int, bytes]) -> bytes:
        media = Media(EncodedPictures(iter(pictures)), Sampling(), MediaLimits())
        intake = Intake(media, Clock(), MediaReport(), hashed=True)
        assert isinstance(intake.media.form, EncodedPictures)
        taken: Iterator[tuple[int, bytes]] = intake.media.form.stream
        assert next(taken) == pictures[0]
        return intake.digest()

    assert digest((0, b"a"), (5, b"b")) == digest((0, b"a"), (5, b"b"))
    assert len({digest((0, b"a"), (5, b"b")), digest((0, b"a"), (6, b"b")), digest((0, b"a"), (5, b"c"))}) == 3
