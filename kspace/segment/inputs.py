"""What the segmentation networks see of a slice: each frame, the average over the beat, and how much pixels vary."""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.errors import ShapeError

CHANNELS = 3
"""Of :func:`network_inputs`."""


def normalised(images: Tensor) -> Tensor:
    """Return (frame, y, x) images clipped at their 99.5th percentile, of mean 0 and standard deviation 1.

    A constant image becomes zeros.
    """
    flat = images.float().flatten()
    top = torch.quantile(flat[:: max(1, flat.numel() // 200_000)], 0.995)
    clipped = images.float().clamp(max=float(top))
    return (clipped - clipped.mean()) / clipped.std().clamp_min(1e-6)


def network_inputs(images: Tensor) -> Tensor:
    """Return what a network sees of every frame.

    The average and the standard deviation over the beat tell it what moves, whatever the number of frames, and neither
    knows where the beat begins: the networks are equivariant to cyclic shifts in time.

    Parameters
    ----------
    images
        (frame, y, x), as :func:`normalised` gives them.

    Returns
    -------
    (frame, 3, y, x) float32. A single frame is its own average and does not vary.

    Raises
    ------
    ShapeError
        When the images are not (frame, y, x).
    """
    if images.ndim != 3:
        raise ShapeError("the images", images, "(frame, y, x)")
    images = images.float()
    spread, average = torch.std_mean(images, dim=0, correction=0, keepdim=True)
    return torch.stack((images, average.expand_as(images), spread.expand_as(images)), dim=1)
