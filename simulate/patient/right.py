"""The right ventricle: a crescent of exact area in every plane, laid around the left one, with its outflow tract.

In polar coordinates about the left ventricle's axis the free wall is at ``r^2 = inner^2 + 2 A f(theta)``, where f
has integral 1: the area between is A whatever the inner outline. Above the tricuspid plane the same form, narrower
and turned to the front, is the outflow tract up to the pulmonary valve; its volume counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gamma

import numpy as np

from simulate.patient.left import THETA, Array, smooth, wrap
from simulate.patient.parameters import Patient

_TAPER = 1.7  # exponent of the area's fall towards the apex
_OUTFLOW_RAD, _OUTFLOW_HALF_RAD = 0.62, 0.85
_OUTFLOW_SHARE, _OUTFLOW_FALL = 0.42, 0.25  # area above the tricuspid plane over that below; its fall to the valve
_TIP = 0.62  # exponent of the crescent's ends: below 1 they are blunt, as no contour follows a sliver
_RISE = 0.55  # the pulmonary valve descends by this share of the tricuspid plane's descent


@dataclass(frozen=True)
class RightSection:
    """The right ventricle in some planes at one instant."""

    outer: Array  # (plane, angle) mm, cavity's outer edge; the inner outline where there is none
    present: Array  # (plane, angle) in [0, 1], 1 in the middle of the crescent and 0 where it is not
    along: Array  # (plane,) 0 at the tricuspid plane, 1 at the apex, negative in the outflow tract


class RightShape:
    """Geometry of a patient's right ventricle; coordinates of the stack in mm."""

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        self._apex = patient.right.length_share * patient.left.length_mm

    def volume_ml(self, emptiness: float) -> float:
        """Return the exact cavity volume in mL."""
        return self.patient.right.edv_ml * (1 - self.patient.right.ef * emptiness)

    def base_mm(self, emptiness: float) -> float:
        """Return z of the tricuspid plane in mm."""
        return self.patient.right.base_descent_mm * emptiness - 1.0

    def valve_mm(self, emptiness: float) -> float:
        """Return z of the pulmonary valve in mm."""
        return -1.0 - self.patient.right.outflow_mm + _RISE * self.patient.right.base_descent_mm * emptiness

    def area_mm2(self, z_mm: Array, emptiness: float) -> Array:
        """Return the exact cavity area of each plane: (plane,) mm^2."""
        base, valve, z = self.base_mm(emptiness), self.valve_mm(emptiness), np.asarray(z_mm, dtype=np.float64)
        body = (self._apex - base) * _TAPER / (_TAPER + 1)
        outflow = (base - valve) * _OUTFLOW_SHARE * (1 - _OUTFLOW_FALL / 2)
        largest = self.volume_ml(emptiness) * 1e3 / (body + outflow)
        down = np.clip((z - base) / (self._apex - base), 0.0, 1.0)
        up = (base - z) / (base - valve)
        below = 1 - down**_TAPER
        above = np.where(up <= 1, _OUTFLOW_SHARE * (1 - _OUTFLOW_FALL * np.clip(up, 0, 1)), 0.0)
        return np.asarray(largest * np.where(z >= base, below, above))

    def section(self, z_mm: Array, emptiness: float, inner: Array) -> RightSection:
        """Return the ventricle around the outline ``inner`` (plane, angle) in the planes ``z_mm`` (plane,)."""
        p, z = self.patient.right, np.asarray(z_mm, dtype=np.float64)
        base = self.base_mm(emptiness)
        along = (z - base) / (self._apex - base)
        down = np.clip(along, 0.0, 1.0)
        middle = np.where(along >= 0, 0.12 * (1 - down) ** 2, _OUTFLOW_RAD)
        half = np.where(along >= 0, p.span_rad * (1 - 0.30 * down**2), _OUTFLOW_HALF_RAD)
        peak = np.where(along >= 0, p.skew + 0.35 * smooth(1 - 2.5 * down) + 0.25 * down**2, 0.0)[:, None]
        q = wrap(THETA[None] - middle[:, None]) / half[:, None]
        m = p.roundness
        side = np.where(q > peak, 1 - peak, 1 + peak)
        shape = np.maximum(0.0, 1 - (np.abs(q - peak) / side) ** m) ** _TIP
        whole = 2 * gamma(1 + 1 / m) * gamma(_TIP + 1) / gamma(1 + 1 / m + _TIP)  # its integral, wherever the peak
        share = shape / (whole * half[:, None])
        outer = np.sqrt(inner**2 + 2 * self.area_mm2(z, emptiness)[:, None] * share)
        there = (self.area_mm2(z, emptiness) > 0)[:, None]
        present = np.where(there, np.clip((1.02 - np.abs(q)) / 0.2, 0.0, 1.0), 0.0)
        return RightSection(outer, present, along)
