from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from kspace.scan import Cine, Geometry


def _cine(
    *, frames: int = 4, rows: int = 48, columns: int = 48, slices: int = 1, beat: float = 0.1, rr_s: float = 0.8
) -> Cine:
    """A disc that beats inside an ellipse, off centre, so that every flip shows; a different size in every slice."""
    y = torch.linspace(-1, 1, rows)[:, None]
    x = torch.linspace(-1, 1, columns)
    stack = []
    for index in range(slices):
        body = 60 * torch.sigmoid(25 * (0.8 - y**2 - 1.4 * x**2)) * (1 + 0.2 * torch.sin(6 * x) * torch.cos(5 * y))
        for frame in range(frames):
            radius = 0.35 + 0.02 * index + beat * math.cos(2 * math.pi * (frame + 0.5) / frames)
            distance = torch.sqrt((y - 0.1) ** 2 + (x + 0.25) ** 2)
            stack.append(body + 80 * torch.sigmoid(25 * (radius - distance)))
    images = torch.stack(stack).reshape(slices, frames, rows, columns)
    return Cine(images, Geometry.from_spacing((slices, rows, columns), (8.0, 3.0, 3.0)), rr_s, "a tiny heart")


@pytest.fixture(scope="session")
def make_cine() -> Callable[..., Cine]:
    """Make a small beating heart; ``beat=0`` stands still."""
    return _cine
