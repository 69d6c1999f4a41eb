"""Pictures changed a little each time that they are learnt from, in ways that leave their class as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Augment"]


@dataclass(frozen=True, slots=True)
class Augment:
    """How far pictures are changed; each at random within these bounds.

    degrees: turned. scale: enlarged or reduced, as a share. shift: moved, as a share of the side; with `scale` this is
    a random crop, and what comes in from outside repeats the edge. brightness: of grey levels added, as a share of
    256. contrast: about the picture's mean, as a share. flip: half of them are mirrored, which changes letters and
    digits into something else.
    """

    degrees: float = 10.0
    scale: float = 0.1
    shift: float = 0.08
    brightness: float = 0.1
    contrast: float = 0.2
    flip: bool = False

    def __call__(self, pictures: Tensor, generator: torch.Generator) -> Tensor:
        """(n, 3, height, width) float32 in 0..255, of new values within the same range."""
        count = len(pictures)

        def within(bound: float) -> Tensor:
            return (torch.rand(count, generator=generator) * 2 - 1) * bound

        angle = within(self.degrees) * (math.pi / 180)
        size = 1 + within(self.scale)
        mirror = torch.where(torch.rand(count, generator=generator) < (0.5 if self.flip else 0.0), -1.0, 1.0)
        cosine, sine = angle.cos() / size, angle.sin() / size
        # From a place in the new picture to the place in the old one that it shows; sides run from -1 to 1.
        theta = torch.stack(
            [
                torch.stack([cosine * mirror, -sine, within(2 * self.shift)], dim=1),
                torch.stack([sine * mirror, cosine, within(2 * self.shift)], dim=1),
            ],
            dim=1,
        )
        grid = functional.affine_grid(theta, list(pictures.shape), align_corners=False)
        moved = functional.grid_sample(pictures, grid, mode="bilinear", padding_mode="border", align_corners=False)
        mean = moved.mean(dim=(1, 2, 3), keepdim=True)
        contrast = (1 + within(self.contrast)).view(-1, 1, 1, 1)
        brightness = (256 * within(self.brightness)).view(-1, 1, 1, 1)
        return ((moved - mean) * contrast + mean + brightness).clamp(0, 255)
