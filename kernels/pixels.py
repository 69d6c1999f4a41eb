"""Decoded pictures as a decoder leaves them, and the way from their colours to red, green and blue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Order = Literal["nv12", "i420"]
Matrix = Literal["bt601", "bt709"]
Siting = Literal["left", "centre"]

# Kr and Kb: ITU-R BT.601-7, section 2.5.1, and BT.709-6, item 3.2.
_WEIGHTS: dict[str, tuple[float, float]] = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
ORDERS = ("nv12", "i420")
SITINGS = ("left", "centre")


@dataclass(frozen=True, slots=True, eq=False)
class Yuv420:
    """n pictures of one size, luma at each pixel and chroma at every second one of every second row.

    Rows and pictures may lie apart in memory (a decoder's pitch); what belongs to one row lies together.

    luma: (n, height, width) uint8. chroma: uint8; for "nv12" (n, ceil(height / 2), ceil(width / 2), 2), blue before
    red; for "i420" (n, 2, ceil(height / 2), ceil(width / 2)). matrix: of which recommendation the colours are.
    full_range: luma and chroma use 0 to 255, as in JPEG; else luma 16 to 235 and chroma 16 to 240. siting: where a
    chroma sample lies across: "left", on the even pixels, as MPEG-2 and H.264 have it where nothing else is said; or
    "centre", between two pixels, as in JPEG and MPEG-1. Down it always lies between two rows.

    Raises:
        ValueError: a shape, a type or a name.
    """

    luma: NDArray[np.uint8]
    chroma: NDArray[np.uint8]
    order: Order = "nv12"
    matrix: Matrix = "bt709"
    full_range: bool = False
    siting: Siting = "left"

    def __post_init__(self) -> None:
        for name, known in (("order", ORDERS), ("matrix", tuple(_WEIGHTS)), ("siting", SITINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {getattr(self, name)!r}")
        if self.luma.ndim != 3 or self.luma.dtype != np.uint8:
            raise ValueError(f"luma must be (n, height, width) uint8, not {self.luma.shape} {self.luma.dtype}")
        count, height, width = self.luma.shape
        half = ((height + 1) // 2, (width + 1) // 2)
        wanted = (count, *half, 2) if self.order == "nv12" else (count, 2, *half)
        if self.chroma.shape != wanted or self.chroma.dtype != np.uint8:
            raise ValueError(
                f"chroma must be {wanted} uint8 for this luma, not {self.chroma.shape} {self.chroma.dtype}"
            )

    @property
    def planes(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """(n, ceil(height / 2), ceil(width / 2)) uint8 each, views: the blue and the red difference."""
        if self.order == "nv12":
            return self.chroma[..., 0], self.chroma[..., 1]
        return self.chroma[:, 0], self.chroma[:, 1]


def to_rgb(matrix: Matrix, *, full_range: bool) -> NDArray[np.float64]:
    """(3, 4) float64: what luma, blue difference, red difference (as levels of 0 to 255) and 1 add to red, green, blue.

    Derived from Y = Kr R + Kg G + Kb B, Cb = (B - Y) / (2 - 2 Kb), Cr = (R - Y) / (2 - 2 Kr) and the quantisation
    of both recommendations; full range has chroma at 128 too, with 255 levels (JFIF 1.02). Colours are in levels of 0
    to 255, to be cut off there.
    """
    red, blue = _WEIGHTS[matrix]
    green = 1 - red - blue
    luma, chroma, black = (1.0, 1.0, 0.0) if full_range else (255 / 219, 255 / 224, 16.0)
    of_red, of_blue = 2 * (1 - red) * chroma, 2 * (1 - blue) * chroma
    made = np.array(
        [
            [luma, 0, of_red, 0],
            [luma, -of_blue * blue / green, -of_red * red / green, 0],
            [luma, of_blue, 0, 0],
        ]
    )
    made[:, 3] = -black * luma - 128 * (made[:, 1] + made[:, 2])
    return made
