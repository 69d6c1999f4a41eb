"""Which frames show nothing."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from matchcut.server.blanks import is_blank

NOISE = np.random.default_rng(0).normal(0, 1, (224, 224, 3))


@pytest.mark.parametrize("colour", [(0, 0, 0), (16, 16, 16), (255, 255, 255), (20, 90, 200)])
def test_one_colour_with_coding_noise_is_blank(colour: tuple[int, int, int]) -> None:
    assert is_blank(np.clip(NOISE + colour, 0, 255).astype(np.uint8))
    assert is_blank(np.full((1, 1, 3), colour, np.uint8))


def test_a_dark_picture_and_a_small_title_are_not() -> None:
    dark = np.clip(20 + 6 * NOISE, 0, 255).astype(np.uint8)
    title = np.zeros((224, 224, 3), np.uint8)
    title[100:110, 60:160] = 255
    assert not is_blank(dark)
    assert not is_blank(title)


def test_real_clips_have_no_blank_frame_but_where_they_fade(media: Path) -> None:
    found = {}
    for name in ("a", "b", "bigbuckbunny", "bikes", "carphone", "world"):
        with av.open(str(media / f"{name}.mp4")) as container:
            frames = [f.to_ndarray(format="rgb24", width=224, height=224) for f in container.decode(video=0)]
        found[name] = sum(is_blank(frame.astype(np.uint8)) for frame in frames)
    assert 0 < found.pop("a") < 60  # it fades to black at its end
    assert set(found.values()) == {0}
