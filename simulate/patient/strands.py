"""Strands across the left ventricle's cavity: false tendons, trabeculae, and what ties papillary muscles to the wall.

A strand is a straight rod between two places of the cavity that move with the wall. Where it lies in a plane it is a
line, where it crosses one a spot; how much of a plane's thickness it fills says how dark it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulate.patient.left import N_ANGLES, Array, wrap
from simulate.patient.parameters import LeftVentricle

_TENDON_MM, _STRAND_MM = (0.4, 1.0), (0.5, 1.6)  # radii
_HEAD = 0.72  # distance of a papillary muscle from the axis over the cavity's radius
# Ends and share of false tendons: papillary muscles and septum (Luetmer et al., J Am Coll Cardiol 8:179, 1986).
_POSTEROMEDIAL, _ANTEROLATERAL, _SEPTUM = -1.85, 1.95, 0.0
_TENDONS = (
    (_POSTEROMEDIAL, _SEPTUM, 0.66), (_POSTEROMEDIAL, _ANTEROLATERAL, 0.12), (_ANTEROLATERAL, _SEPTUM, 0.11),
    (2.9, _SEPTUM, 0.11),
)  # fmt: skip


@dataclass(frozen=True)
class Rod:
    """What planes see of a strand; coordinates from the left ventricle's axis, septum along the first, each (plane,).

    ``share`` is that of the plane's thickness which it fills: 0 where it does not come.
    """

    along: tuple[Array, Array]  # mm, of its two ends in the plane
    across: tuple[Array, Array]  # mm
    share: Array
    radius: float


class Strands:
    """A patient's strands.

    Parameters
    ----------
    left
        Their numbers, and the ventricle's length.
    seed
        Of the patient.
    """

    def __init__(self, left: LeftVentricle, seed: int) -> None:
        rng = np.random.default_rng([seed, 202])
        rows: list[tuple[float, ...]] = []  # angle, height and share of the radius of either end; radius in mm
        for _ in range(left.tendons):
            first, second, _ = _TENDONS[rng.choice(len(_TENDONS), p=[share for _, _, share in _TENDONS])]
            height = float(rng.uniform(0.35, 0.75))
            ends = [(angle + rng.normal(0, 0.25), _HEAD if abs(angle) in (1.85, 1.95) else 1.0)
                    for angle in (first, second)]  # fmt: skip
            (a, fa), (b, fb) = ends
            rows.append((a, height, fa, b, height + rng.normal(0, 0.06), fb, rng.uniform(*_TENDON_MM)))
        for _ in range(left.strands):
            size, height = float(rng.uniform(*_STRAND_MM)), float(rng.triangular(0.28, 0.75, 0.92))
            if rng.random() < 0.4:  # from a papillary muscle to the wall beside it
                at = (_POSTEROMEDIAL, _ANTEROLATERAL)[int(rng.integers(2))] + rng.normal(0, 0.15)
                beside = at + rng.choice([-1, 1]) * rng.uniform(0.3, 0.9)
                rows.append((at, height, _HEAD, beside, height + rng.normal(0, 0.08), 1.0, size))
            else:  # a bridge between two places of the wall, not over the smooth septum
                at = np.pi + float(rng.uniform(-2.3, 2.3))
                beside = at + rng.choice([-1, 1]) * rng.uniform(0.35, 1.1)
                rows.append((at, height, 1.0, beside, height + rng.normal(0, 0.1), 1.0, size))
        self._rows = np.array(rows).reshape(-1, 7)

    def rods(self, height: Array, twist: Array, endo: Array, length_mm: float, thickness_mm: float) -> list[Rod]:
        """Return what planes see.

        Parameters
        ----------
        height
            (plane,) of the planes, 0 at the mitral plane and 1 at the apex.
        twist
            (plane,) rad.
        endo
            (plane, angle) mm, the cavity.
        length_mm
            From the mitral plane to the apex, now.
        thickness_mm
            That a plane stands for.
        """
        found = []
        planes, half = np.arange(len(height)), 0.5 * thickness_mm
        inside = (height > 0.08) & (height < 1)
        for a, u, f, b, v, g, size in self._rows:
            low, high = min(u, v) * length_mm - size, max(u, v) * length_mm + size
            z = height * length_mm
            share = np.clip((np.minimum(z + half, high) - np.maximum(z - half, low)) / thickness_mm, 0.0, 1.0) * inside
            if not share.any():
                continue
            # The part of the rod within the plane's thickness.
            rise = (v - u) * length_mm
            level = (z - u * length_mm) / rise if abs(rise) > 0.1 else np.full_like(z, 0.5)
            width = (half + size) / max(abs(rise), 0.1)
            ends = [np.clip(level + side * width, 0.0, 1.0) for side in (-1, 1)]
            corners = []
            for angle, distance in ((a, f), (b, g)):
                turned = angle + twist
                column = np.floor((wrap(turned) + np.pi) / (2 * np.pi) * N_ANGLES).astype(int) % N_ANGLES
                radius = distance * endo[planes, column]
                corners.append((radius * np.cos(turned), radius * np.sin(turned)))
            (x0, y0), (x1, y1) = corners
            along, across = (tuple(p + t * (q - p) for t in ends) for p, q in ((x0, x1), (y0, y1)))
            found.append(Rod((along[0], along[1]), (across[0], across[1]), share, float(size)))
        return found
