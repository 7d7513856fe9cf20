"""New shapes from drawn ones: a smooth warp of image and labels together that keeps every piece and every hole.

The warp is the flow of a smooth velocity that does not change with time, and so can be undone: it neither tears nor
folds (Arsigny et al., MICCAI 2006). On pixels a thin wall may still break; then the warp is halved.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kspace.errors import ShapeError, UsageError
from kspace.segment.segmentation import Structure
from kspace.segment.topology import betti_numbers

_SQUARINGS = 6  # 64 steps: below a tenth of a pixel each at the default strength


@dataclass(frozen=True)
class WarpOptions:
    """How far, and how smoothly, pixels move.

    Parameters
    ----------
    reach_px
        Standard deviation of the velocity along each axis, pixels per unit of time, for one unit of time.
    smooth_px
        Standard deviation of the Gaussian that makes the velocity smooth.
    halvings
        How often a warp that changes the topology is halved before it is left out.

    Raises
    ------
    UsageError
        When a number makes no sense.
    """

    reach_px: float = 5.0
    smooth_px: float = 16.0
    halvings: int = 3

    def __post_init__(self) -> None:
        for name, low in (("reach_px", 0.0), ("smooth_px", 1.0), ("halvings", 0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= low):
                raise UsageError(f"{name} is {value}", expected=f"{low:g} or more")


def warp(
    images: Tensor, labels: Tensor, generator: torch.Generator, options: WarpOptions | None = None
) -> tuple[Tensor, Tensor, float]:
    """Warp a slice over the beat, every frame alike; Betti numbers of all labels stay what they were.

    Parameters
    ----------
    images
        (frame, y, x) or (frame, channel, y, x), real.
    labels
        (frame, y, x) uint8: see :class:`~kspace.segment.segmentation.Structure`.
    generator
        Where chance comes from, on the CPU.
    options
        How far.

    Returns
    -------
    tuple[Tensor, Tensor, float]
        Images as they came, bilinear; labels (frame, y, x) uint8, of each pixel the likeliest by bilinear shares; and
        the strength of the warp: 1, or 1/2, 1/4 ... where more would have changed :func:`betti_numbers` in any frame,
        or 0.

    Raises
    ------
    ShapeError
        When the shapes do not fit.
    """
    options = options or WarpOptions()
    if images.ndim not in (3, 4) or (len(images), *images.shape[-2:]) != tuple(labels.shape):
        raise ShapeError("the images", images, f"(frame, ..., y, x), as the labels' {tuple(labels.shape)}")
    velocity = draw_velocity(images.shape[-2], images.shape[-1], generator, options).to(images.device)
    before = betti_numbers(labels)
    shares = functional.one_hot(labels.long(), len(Structure)).movedim(-1, 1).to(images.dtype)
    for halving in range(options.halvings + 1):
        displacement = flow(velocity / 2**halving)
        moved = pull(shares, displacement).argmax(1).to(labels.dtype)
        if torch.equal(betti_numbers(moved), before):
            given = images if images.ndim == 4 else images[:, None]
            return pull(given, displacement).reshape(images.shape), moved, 0.5**halving
    return images, labels, 0.0


def draw_velocity(rows: int, columns: int, generator: torch.Generator, options: WarpOptions) -> Tensor:
    """Draw a smooth velocity (2, y, x), along y and x in pixels, that is 0 on the border, so that nothing leaves."""
    noise = torch.randn(2, rows, columns, generator=generator)
    gain = torch.ones(())
    for axis, n in ((-2, rows), (-1, columns)):
        along = torch.exp(-2 * (math.pi * options.smooth_px * torch.fft.fftfreq(n)) ** 2)
        gain = gain * (along[:, None] if axis == -2 else along)
    smooth = torch.fft.ifft2(torch.fft.fft2(noise) * gain).real
    smooth = smooth / gain.square().mean().sqrt()  # of standard deviation 1
    y, x = (torch.sin(math.pi * torch.arange(n) / max(n - 1, 1)).clamp_min(0) for n in (rows, columns))
    velocity: Tensor = options.reach_px * smooth * y[:, None] * x
    return velocity


def flow(velocity: Tensor) -> Tensor:
    """Follow a velocity for one unit of time, by scaling and squaring.

    Parameters
    ----------
    velocity
        (2, y, x), along y and x in pixels.

    Returns
    -------
    Tensor
        (2, y, x): where to look for each pixel's value, less its own position.
    """
    displacement: Tensor = velocity / 2**_SQUARINGS
    for _ in range(_SQUARINGS):
        displacement = displacement + pull(displacement[None], displacement)[0]
    return displacement


def pull(maps: Tensor, displacement: Tensor) -> Tensor:
    """Look up (n, channel, y, x) at displaced pixels, bilinear; beyond the border is what is on it."""
    rows, columns = displacement.shape[-2:]
    y = torch.arange(rows, device=maps.device)[:, None] + displacement[0]
    x = torch.arange(columns, device=maps.device) + displacement[1]
    grid = torch.stack([2 * x / max(columns - 1, 1) - 1, 2 * y / max(rows - 1, 1) - 1], -1).to(maps.dtype)
    return functional.grid_sample(
        maps, grid.expand(len(maps), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=True
    )
