"""The left ventricle as continuous geometry whose cavity and wall have exact areas and volumes.

In the plane at ``height`` u the endocardium is at ``r^2 = A(u) M(theta) / pi`` and the epicardium at
``r^2 + A_wall(u) W(theta, u) / pi``, where M and W have mean 1 over the angle: areas are exact whatever their shape.
The long axis shortens evenly towards a resting apex, and wall area rises as it does, so that every piece of
myocardium keeps its volume; it thickens exactly where the endocardium moves inwards and not in an akinetic scar.
A wall that contracts out of step shares the same loss of volume out differently: the volume stays exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kspace.errors import InputError
from simulate.patient.parameters import LeftVentricle, Scar

Array = npt.NDArray[np.floating[Any]]

DENSITY_G_ML = 1.05
"""Density of myocardium."""
N_ANGLES = 2048
THETA: Array = (np.arange(N_ANGLES) + 0.5) * (2 * np.pi / N_ANGLES) - np.pi
"""(angle,) radians from the septum, the angles of every table."""
OUTFLOW_RAD = 0.55
"""Direction of the outflow tract from the middle of the septum: towards the anterior wall."""
_N_HEIGHTS = 257
_SOFT_RAD = 0.06  # the edge of the opening, about a pixel
_COARSE = 32  # every so many angles are enough to average what is smooth
_EVEN = 0.25  # evens out the shares of late and early walls while little has contracted
_MOST = 0.95  # loss of squared radius that no piece of wall exceeds by contracting out of step

Local = Callable[[Array, Array], Array]
"""Contraction of each piece of wall, 0 full to 1 empty, by height (plane, 1) and angle (plane, angle)."""


def smooth(x: Array) -> Array:
    """Rise from 0 to 1 over [0, 1] with a continuous derivative."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * (3 - 2 * x))


def wrap(theta: Array) -> Array:
    """Return angles in [-pi, pi)."""
    return np.asarray((theta + np.pi) % (2 * np.pi) - np.pi)


@dataclass(frozen=True)
class LeftSection:
    """The left ventricle in some planes at one instant; radii in mm from its axis, each (plane, angle)."""

    height: Array  # (plane,) 0 at the mitral plane, 1 at the apex; outside [0, 1] there is no ventricle
    endo: Array
    epi: Array
    scar: Array  # share of the wall that is infarcted
    wall: Array  # 1 where there is myocardium, 0 where it opens to the outflow tract, 0.5 at the edge
    twist: Array  # (plane,) radians


class LeftShape:
    """Geometry of a patient's left ventricle; coordinates of the stack in mm.

    Raises
    ------
    InputError
        When the scar leaves too little wall for the ejection fraction.
    """

    def __init__(self, left: LeftVentricle, scar: Scar | None = None) -> None:
        self.left = p = left
        self.scar = Scar() if scar is None else scar
        self._end = 1 - p.apex_mm / p.length_mm  # height at which the cavity ends
        u = np.linspace(0, self._end, _N_HEIGHTS)
        self._m = self._outline(THETA)
        endo = self._profile(u / self._end)
        self._endo_scale = p.edv_ml * 1e3 / (p.length_mm * np.trapezoid(endo, u))
        motion = self._motion(u)
        effort = (0.94 + 0.12 * u) * (motion * self._m).mean(1)
        self._u = u
        self._effort = endo[:, None] * (0.94 + 0.12 * u)[:, None] * motion[:, ::_COARSE] * self._m[::_COARSE]
        self._i_all = float(self._endo_scale * np.trapezoid(endo, u))
        self._i_effort = float(self._endo_scale * np.trapezoid(endo * effort, u))
        full = np.linspace(0, 1, 2 * _N_HEIGHTS)
        kept = 1 - self._gap(full)
        inside = self._endo_scale * self._profile(np.minimum(full / self._end, 1.0))
        self.wall_ml = p.mass_g / DENSITY_G_ML
        outer = self.wall_ml * 1e3 / p.length_mm + np.trapezoid(inside * kept, full)
        self._epi_scale = float(outer / np.trapezoid(self._profile(full) * kept, full))
        if self._relative(self.volume_ml(1.0), 1.0) * 1.06 > 0.97:
            raise InputError(
                f"an ejection fraction of {p.ef:.2f} cannot be had beside a scar of size {self.scar.size:.2f}",
                expected="a smaller scar or a smaller ejection fraction",
            )

    def volume_ml(self, emptiness: float) -> float:
        """Return the exact cavity volume in mL: end-diastolic at 0, end-systolic at 1."""
        return self.left.edv_ml * (1 - self.left.ef * emptiness)

    def base_mm(self, emptiness: float) -> float:
        """Return z of the mitral plane in mm."""
        return self.left.base_descent_mm * emptiness

    def section(self, z_mm: Array, emptiness: float, twisted: float, local: Local | None = None) -> LeftSection:
        """Return the ventricle in the planes ``z_mm`` (plane,) at a share of contraction and of the full twist.

        ``local`` says how the contraction is shared out between early and late walls; None is in step.
        """
        p = self.left
        base = self.base_mm(emptiness)
        height = (np.asarray(z_mm, dtype=np.float64) - base) / (p.length_mm - base)
        u = np.clip(height, 0.0, 1.0)
        shortening = 1 - base / p.length_mm
        twist = twisted * (p.twist_base_rad + (p.twist_apex_rad - p.twist_base_rad) * u)
        relative = self._relative(self.volume_ml(emptiness), shortening)
        theta = wrap(THETA[None] - twist[:, None])
        moving = (0.94 + 0.12 * u)[:, None] * self._motion(u, theta)
        if local is not None and relative > 0:
            moving = moving * self._share_out(local, u, theta, relative)
        inner = self._endo_scale * self._profile(np.minimum(u / self._end, 1.0))
        endo2 = inner[:, None] / np.pi * self._outline(theta) * (1 - relative * moving)
        area = np.maximum(self._epi_scale * self._profile(u) - inner, 0.0) / shortening
        epi2 = endo2 + area[:, None] / np.pi * self._regions(u, theta)
        there = ((height >= 0) & (height <= 1))[:, None]
        opening = self._opening(np.where(height < 0, 2.0, height))[:, None]
        soft = np.minimum(_SOFT_RAD, np.maximum(opening, 1e-6))
        wall = np.clip((np.abs(wrap(THETA - OUTFLOW_RAD))[None] - opening) / soft + 0.5, 0.0, 1.0) * there
        scar = self.scar.fibrosis * self._stillness(u, theta)
        endo = np.where(there & (height < self._end)[:, None], np.sqrt(np.maximum(endo2, 0.0)), 0.0)
        return LeftSection(height, endo, np.sqrt(epi2), scar, wall, twist)

    def area_mm2(self, z_mm: Array, emptiness: float) -> Array:
        """Return the exact cavity area of each plane: (plane,) mm^2."""
        s = self.section(z_mm, emptiness, 0.0)
        return np.asarray(np.pi * (s.endo**2).mean(1))

    def thickness_mm(self, emptiness: float, heights: Array | None = None) -> Array:
        """Return wall thickness along the radius: (height, angle) mm; by default at heights 0.15, 0.3 ... 0.75."""
        u = np.linspace(0.15, 0.75, 5) if heights is None else heights
        base = self.base_mm(emptiness)
        s = self.section(base + u * (self.left.length_mm - base), emptiness, 0.0)
        return np.asarray(s.epi - s.endo)

    def _relative(self, volume_ml: float, shortening: float) -> float:
        """Return the loss of squared radius, common to all that moves, which gives this volume exactly."""
        target = volume_ml * 1e3 / (shortening * self.left.length_mm)
        return (self._i_all - target) / self._i_effort

    def _share_out(self, local: Local, u: Array, theta: Array, relative: float) -> Array:
        """Return each piece's share of the motion over what it has in step: (plane, angle).

        Its mean over the ventricle, weighed by what each piece can contribute, is 1, which keeps the volume exact.
        """
        everywhere = local(self._u[:, None], THETA[None, ::_COARSE])
        mean = float(np.trapezoid((everywhere * self._effort).mean(1), self._u))
        mean /= float(np.trapezoid(self._effort.mean(1), self._u))
        most = (float(everywhere.max()) - mean) / (mean + _EVEN)
        room = max(0.0, _MOST / (1.06 * relative) - 1)
        strength = 1.0 if most <= room else room / most
        return np.asarray(1 + strength * (local(u[:, None], theta) - mean) / (mean + _EVEN))

    def _profile(self, u: Array) -> Array:
        """Area along the long axis over its largest; the exponent sets how blunt the apex is."""
        p = self.left
        v = np.abs(u - p.widest) / (1 - p.widest)
        return np.asarray(np.maximum(0.0, 1 - v**p.bluntness))

    def _outline(self, theta: Array) -> Array:
        p = self.left
        return np.asarray(
            1 + p.ovality * np.cos(2 * (theta - p.ovality_rad)) + p.trilobe * np.cos(3 * (theta + p.ovality_rad) + 0.7)
        )

    def _stillness(self, u: Array, theta: Array = THETA) -> Array:
        """Return how far each piece of wall is scarred and still: (height, angle) in [0, 1]."""
        s = self.scar
        if s.size == 0:
            return np.zeros((len(u), N_ANGLES))
        across = smooth((s.half_width_rad - np.abs(wrap(theta - s.theta_rad))) / 0.5 + 0.5)
        along = smooth((s.half_height - np.abs(u - s.height)) / 0.2 + 0.5)
        return np.asarray(s.size * along[:, None] * across)

    def scarred(self, u: Array, theta: Array) -> Array:
        """Return how far pieces of wall at heights (plane, 1) and angles (plane, angle) are scarred, from 0 to 1."""
        return self._stillness(np.asarray(u)[:, 0], theta)

    def _motion(self, u: Array, theta: Array = THETA) -> Array:
        """Return each piece's inward motion over that of healthy wall, negative where an infarct bulges."""
        return np.asarray(1 - (1 + self.scar.dyskinesis) * self._stillness(u, theta))

    def _regions(self, u: Array, theta: Array = THETA) -> Array:
        """Return the wall's share at each angle, of mean 1: (height, angle)."""
        p, s = self.left, self.scar
        bulge = p.septal_bulge * np.exp(-(((u - p.bulge_height) / 0.33) ** 2))
        share = 1 + bulge[:, None] * np.exp(1.6 * (np.cos(theta - p.bulge_rad) - 1))
        share = share + p.wall_variation * np.cos(theta - 2.6 + 3 * u[:, None]) * np.ones_like(theta)
        share = share + 0.5 * p.wall_variation * np.cos(2 * theta + 1.0 - 2 * u[:, None])
        share = share * (1 - s.thinning * self._stillness(u, theta))
        return np.asarray(share / share.mean(1, keepdims=True))

    def _opening(self, u: Array) -> Array:
        """Return half the angle at which the wall is open: (height,) radians; the wall starts where this ends."""
        p = self.left
        if p.outflow_height == 0:
            return np.zeros_like(u)
        return np.asarray(p.outflow_rad * np.sqrt(np.maximum(0.0, 1 - (u / p.outflow_height) ** 2)))

    def _gap(self, u: Array) -> Array:
        """Return the share of the wall's area that is open: (height,)."""
        half = self._opening(u)
        gap = np.zeros_like(u)
        edges = np.linspace(-np.pi, np.pi, N_ANGLES + 1)
        for i in np.flatnonzero(half > 0):
            total = np.concatenate([[0.0], np.cumsum(self._regions(u[i : i + 1])[0])]) / N_ANGLES
            low, high = np.interp([OUTFLOW_RAD - half[i], OUTFLOW_RAD + half[i]], edges, total)
            gap[i] = high - low
        return gap
