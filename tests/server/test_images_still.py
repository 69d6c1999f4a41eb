"""One picture alone is what the pipeline makes of the same bytes, bit for bit, whichever way is shorter."""

from __future__ import annotations

import io
from contextlib import closing
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from matchcut.server import images
from matchcut.server.clock import Clock
from matchcut.server.convert import Converter, Geometry
from matchcut.server.errors import MatchcutError
from matchcut.server.frames import frames_and_cuts
from matchcut.server.records import (
    EncodedPictures,
    Frame,
    InputSize,
    Media,
    MediaLimits,
    MediaReport,
    Pixels,
    Sampling,
    ShotMode,
)

LIMITS = MediaLimits()
MODES = ("RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "YCbCr")


def encoded(kind: str, mode: str, width: int, height: int, seed: int, orientation: int = 1) -> bytes:
    """A file of noise on a slope, in that mode."""
    random = np.random.default_rng(seed)
    levels = random.integers(0, 60, (height, width, 3)) + np.linspace(0, 190, width)[None, :, None]
    image = Image.fromarray(levels.astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray((levels[:, :, 0] * 250).astype(np.uint16))
    elif mode != "RGB":
        image = image.convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, kind, exif=exif)
    return file.getvalue()


def by_pipeline(data: bytes, size: InputSize, limits: MediaLimits = LIMITS) -> Pixels:
    """What the pipeline makes of it."""
    media = Media(EncodedPictures(iter([(0, data)])), Sampling(shots=ShotMode.OFF), limits)
    with closing(frames_and_cuts(media, size, MediaReport(), Clock())) as events:
        (frame,) = (event for event in events if isinstance(event, Frame))
    return frame.rgb


def by_conversion(data: bytes, size: InputSize) -> Pixels:
    """The same with a conversion in any case."""
    pixels = images.opened(data, size, LIMITS, MediaReport())
    return Converter(size).rgb(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"), Geometry())


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG"]),
    mode=st.sampled_from(MODES),
    width=st.sampled_from([1, 2, 31, 48, 64, 96, 130]),
    height=st.sampled_from([1, 2, 33, 48, 64, 96]),
    orientation=st.integers(1, 8),
    fit=st.sampled_from(["stretch", "crop"]),
    seed=st.integers(0, 9),
)
def test_it_is_what_the_pipeline_makes(
    kind: str, mode: str, width: int, height: int, orientation: int, fit: Any, seed: int
) -> None:
    writes = {"JPEG": ("RGB", "L", "1", "CMYK", "YCbCr"), "PNG": ("RGB", "L", "1", "P", "RGBA", "LA", "I;16")}
    if mode not in writes[kind]:
        mode = "RGB"
    data = encoded(kind, mode, width, height, seed, orientation)
    size = InputSize(64, 48, fit)
    found = images.still(data, Converter(size), LIMITS)
    assert found.shape == (48, 64, 3)
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.tobytes() == by_pipeline(data, size).tobytes() == by_conversion(data, size).tobytes()


@pytest.mark.parametrize(("width", "height", "orientation"), [(64, 48, 1), (64, 48, 3), (48, 64, 6), (128, 96, 1)])
@pytest.mark.parametrize("fit", ["stretch", "crop"])
def test_what_has_the_encoder_s_size_is_not_converted(
    width: int, height: int, orientation: int, fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And that changes no bit of it."""
    size = InputSize(64, 48, fit)
    data = encoded("JPEG", "RGB", width, height, 1, orientation)
    expected = by_conversion(data, size)
    calls: list[int] = []
    honest = Converter.rgb

    def counted(self: Converter, *arguments: Any) -> Pixels:
        calls.append(1)
        return honest(self, *arguments)

    monkeypatch.setattr(Converter, "rgb", counted)
    assert images.still(data, Converter(size), LIMITS).tobytes() == expected.tobytes()
    assert len(calls) == (width == 128)


def test_a_converter_may_be_used_for_many_pictures() -> None:
    converter = Converter(InputSize(64, 48))
    files = [
        encoded("JPEG", "RGB", width, height, 2) for width, height in ((64, 48), (200, 70), (64, 48), (31, 99))
    ] * 2
    found = [images.still(data, converter, LIMITS).tobytes() for data in files]
    assert found == [by_pipeline(data, converter.size).tobytes() for data in files]


WHOLE = encoded("JPEG", "RGB", 64, 48, 3)


@pytest.mark.parametrize(
    ("data", "limits"),
    [
        (b"", LIMITS),
        (b"no picture", LIMITS),
        (WHOLE[:40], LIMITS),
        (WHOLE[: len(WHOLE) // 2], LIMITS),
        (encoded("PNG", "RGB", 64, 48, 3)[:-200], LIMITS),
        (WHOLE, MediaLimits(pixels=64 * 48 - 1)),
        (WHOLE, MediaLimits(bytes=len(WHOLE) - 1)),
        (WHOLE, MediaLimits(frames=0)),
    ],
)
def test_what_is_refused_is_refused_in_the_same_words(data: bytes, limits: MediaLimits) -> None:
    size, told = InputSize(64, 48), []
    for alone in (True, False):
        with pytest.raises(MatchcutError) as caught:
            images.still(data, Converter(size), limits) if alone else by_pipeline(data, size, limits)
        told.append((type(caught.value), caught.value.reason, caught.value.message))
    assert told[0] == told[1]


def test_a_picture_may_be_looked_at_whatever_its_size() -> None:
    for width in (64, 100):
        stream = [(0, encoded("PNG", "RGB", width, 48, 4))]
        exact = Sampling(1000.0, shots=ShotMode.EXACT)
        (found,) = images.from_pictures(
            stream, size=InputSize(64, 48), sampling=exact, limits=LIMITS, report=MediaReport()
        )
        assert found.look().shape == (48, 48, 3)
        assert found.rgb().shape == (48, 64, 3)
