"""Points in the body and signed distances (mm, negative inside) from simple shapes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Points:
    """Body coordinates in mm, each (plane, y, x)."""

    left: Tensor
    back: Tensor
    feet: Tensor

    def stacked(self) -> Tensor:
        """Return the coordinates together: (plane, y, x, 3)."""
        return torch.stack([self.left, self.back, self.feet], -1)


def smooth(x: Tensor) -> Tensor:
    """Rise from 0 to 1 over [0, 1] with a continuous derivative."""
    x = x.clamp(0.0, 1.0)
    return x * x * (3 - 2 * x)


def ellipse(points: Points, centre: tuple[float, float], radii: tuple[float, float]) -> Tensor:
    """Return distance from an upright elliptic cylinder along the body; centre and radii (left, back)."""
    u, v = (points.left - centre[0]) / radii[0], (points.back - centre[1]) / radii[1]
    k = torch.hypot(u, v) + 1e-6
    return k * (k - 1) / (torch.hypot(u / radii[0], v / radii[1]) + 1e-9)


def ellipsoid(points: Points, centre: tuple[float, float, float], radii: tuple[float, float, float]) -> Tensor:
    """Return distance from an ellipsoid; centre and radii (left, back, feet)."""
    a, b, c = radii
    u, v, w = (points.left - centre[0]) / a, (points.back - centre[1]) / b, (points.feet - centre[2]) / c
    k = (u * u + v * v + w * w).sqrt() + 1e-6
    return k * (k - 1) / (((u / a) ** 2 + (v / b) ** 2 + (w / c) ** 2).sqrt() + 1e-9)
