"""Media on its way in: counted, bounded, hashed."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import pytest

from matchcut.server.clock import Clock
from matchcut.server.errors import MediaLimitExceeded
from matchcut.server.intake import Intake
from matchcut.server.records import Container, EncodedPictures, Media, MediaLimits, MediaReport, Sampling

DATA = bytes(range(256)) * 40


def container(wanted: int = 0, server: MediaLimits = MediaLimits()) -> Media:  # noqa: B008  # frozen
    limits = MediaLimits(pixels=0, bytes=wanted, frames=0, duration_us=0) if wanted else None
    return Media(Container(io.BytesIO(DATA)), Sampling(), server, limits)


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
    assert intake.spool()
    assert intake.digest() == hashlib.sha256(DATA).digest()
    assert source(intake).source.read(-1) == DATA


def test_spooling_stops_at_its_limit_and_loses_nothing() -> None:
    intake = Intake(container(server=MediaLimits(buffered=5000)), Clock(), MediaReport(), hashed=True)
    assert not intake.spool()
    assert b"".join(iter(lambda: source(intake).source.read(777), b"")) == DATA
    assert intake.digest() == hashlib.sha256(DATA).digest()


@pytest.mark.parametrize("way", ["read", "spool", "digest"])
def test_the_servers_limit_of_bytes_holds_whoever_reads(way: str) -> None:
    intake = Intake(container(server=MediaLimits(bytes=5000)), Clock(), MediaReport(), hashed=True)
    with pytest.raises(MediaLimitExceeded, match="5000 bytes") as caught:
        list(iter(intake.read, b"")) if way == "read" else getattr(intake, way)()
    assert caught.value.reason == "MEDIA_TOO_MANY_BYTES"


def test_a_callers_limit_that_is_just_enough_ends_nothing() -> None:
    report = MediaReport()
    intake = Intake(container(wanted=len(DATA)), Clock(), report, hashed=True)
    assert intake.digest() == hashlib.sha256(DATA).digest()
    assert intake.whole
    assert not report.warnings


@pytest.mark.parametrize("step", [-1, 7, 1000])
def test_the_callers_own_limit_of_bytes(step: int) -> None:
    report = MediaReport()
    intake = Intake(container(wanted=1000), Clock(), report)
    got = b"".join(iter(lambda: intake.read(step), b""))
    assert got == DATA[:1000]
    assert not intake.whole
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
