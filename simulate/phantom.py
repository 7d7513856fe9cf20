"""A beating heart in a chest, drawn from formulas: the cine to scan where no patient's is at hand.

The left ventricle is a pair of truncated ellipsoids whose volumes are exact at every phase: the cavity follows the
volume curve and the myocardium keeps its volume while the base descends on a resting apex. The right ventricle is a
crescent of exact area laid around the septum. Reference ranges of volumes and mass are those of the UK Biobank
(Petersen et al., J Cardiovasc Magn Reson 19:18, 2017). Signals follow the on-resonance steady state of balanced SSFP,
relaxation times at 1.5 T (Stanisz et al., Magn Reson Med 54:507, 2005; de Bazelaire et al., Radiology 230:652, 2004);
fat counts negative, as its phase opposes that of water at TE = TR / 2, which draws the thin dark line between the two.

In plane, x runs along the rows to the patient's left and y down the columns; z runs from the mitral plane at
end-diastole (0) to the apex, all in mm.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from kspace.errors import InputError
from kspace.scan import Cine, Geometry

Array = npt.NDArray[Any]

_CENTRE = 0.2  # where the ellipsoids are widest, as a share of their length below the base
_FILL = 1 - ((1 - _CENTRE) ** 3 + _CENTRE**3) / (3 * (1 - _CENTRE) ** 2)  # their volume over pi a^2 L
_RV_LENGTH, _RV_FILL = 0.92, 0.6  # length of the right ventricle over the left's, its volume over base area and length
_RV_SPAN = 1.38  # half the angle that the crescent embraces, in radians
_TWIST = (-0.07, 0.2)  # rotation at base and apex at end-systole, in radians

# Tissue: T1 ms, T2 ms, proton density; lung parenchyma is mostly air.
_TISSUES = {
    "blood": (1441.0, 290.0, 0.95),
    "venous": (1441.0, 220.0, 0.95),
    "myocardium": (1030.0, 40.0, 0.85),
    "muscle": (1008.0, 44.0, 0.75),
    "fat": (343.0, 58.0, -0.85),
    "liver": (576.0, 46.0, 0.70),
    "spleen": (1057.0, 79.0, 0.80),
    "marrow": (549.0, 49.0, 0.50),
    "cord": (1000.0, 80.0, 0.70),
    "csf": (4000.0, 2000.0, 0.65),
    "lung": (1200.0, 40.0, 0.16),
    "bone": (1000.0, 1.0, 0.2),
}


def steady_state(
    t1_ms: float, t2_ms: float, *, flip_rad: float = np.deg2rad(50.0), tr_ms: float = 3.2, density: float = 1.0
) -> float:
    """Return the on-resonance balanced-SSFP signal at TE = TR / 2, as a share of the full magnetisation.

    Source: Freeman and Hill, J Magn Reson 4:366, 1971; Scheffler and Lehnhardt, Eur Radiol 13:2409, 2003.
    """
    e1, e2 = np.exp(-tr_ms / t1_ms), np.exp(-tr_ms / t2_ms)
    signal = np.sin(flip_rad) * (1 - e1) / (1 - (e1 - e2) * np.cos(flip_rad) - e1 * e2)
    return float(density * signal * np.exp(-tr_ms / 2 / t2_ms))


_SIGNAL = {name: steady_state(t1, t2, density=density) for name, (t1, t2, density) in _TISSUES.items()}
_SIGNAL = {name: value / _SIGNAL["blood"] for name, value in _SIGNAL.items()}


def _ramp(x: Array | float) -> Array:
    """Rise from 0 to 1 over [0, 1] with two continuous derivatives."""
    x = np.clip(x, 0.0, 1.0)
    return np.asarray(x * x * x * (10 + x * (6 * x - 15)))


class _Canvas:
    """Signed signal on a grid; what is painted covers what lay there, with edges one ``edge`` (mm) wide."""

    def __init__(self, x: Array, y: Array, image: Array, edge: float) -> None:
        self.x, self.y, self.image, self.edge = x, y, image, edge

    def cover(self, distance: Array) -> Array:
        """Share of each pixel inside, from the signed distance in mm (negative inside)."""
        return _ramp(0.5 - distance / (2.2 * self.edge))

    def blend(self, share: Array, value: Array | float) -> None:
        self.image += share * (value - self.image)

    def ellipse(
        self, centre: tuple[float, float], radii: tuple[float, float], tissue: str | float, *,
        angle: float = 0.0, wobble: Array | None = None,
    ) -> None:  # fmt: skip
        """Paint an ellipse; ``wobble`` (mode, 2), amplitudes and phases, roughens its outline."""
        if min(radii) < 0.3:
            return
        reach = max(radii) * 1.25 + 2 * self.edge
        rows = slice(*np.searchsorted(self.y, [centre[1] - reach, centre[1] + reach]))
        columns = slice(*np.searchsorted(self.x, [centre[0] - reach, centre[0] + reach]))
        dx, dy = self.x[None, columns] - centre[0], self.y[rows, None] - centre[1]
        c, s = np.cos(angle), np.sin(angle)
        u, v = (c * dx + s * dy) / radii[0], (c * dy - s * dx) / radii[1]
        k = np.hypot(u, v) + 1e-6
        scale = np.hypot(u / radii[0], v / radii[1]) + 1e-9
        if wobble is not None:
            theta = np.arctan2(v, u)
            k = k * (1 + sum(a * np.cos((m + 2) * theta + p) for m, (a, p) in enumerate(wobble)))
        share = self.cover(k * (k - 1) / scale)
        patch = self.image[rows, columns]
        patch += share * ((_SIGNAL[tissue] if isinstance(tissue, str) else tissue) - patch)


@dataclass(frozen=True)
class _Section:
    """The heart in one plane: radii (mm) of endocardium and epicardium, area (mm^2) of the right ventricle."""

    depth: float  # below the base as a share of the epicardial length; negative above the valve
    endo: float
    epi: float
    rv_area: float
    twist: float  # radians
    contraction: float  # 0 at end-diastole, 1 at end-systole


@dataclass(frozen=True)
class Phantom:
    """A heart and the chest around it; the defaults are a pleasant normal heart.

    Parameters
    ----------
    seed
        Of everything that is not a parameter: vessels, outlines, texture.
    rr_s
        RR interval in seconds.
    lv_edv_ml, lv_ef, lv_mass_g
        Left ventricle: end-diastolic volume, ejection fraction in (0, 1), myocardial mass at 1.05 g/mL.
    rv_edv_ml, rv_ef
        The same of the right ventricle.
    length_mm
        Epicardial length from mitral plane to apex at end-diastole.
    base_descent_mm
        How far the base descends by end-systole.
    systole
        Phase of end-systole, about a third.
    atrial_share
        Share of the stroke volume that the atrial kick fills.
    heart_x_mm, heart_y_mm
        Where the middle of the left ventricle lies, from the centre of the field of view.
    septum_rad
        Direction from the left to the right ventricle, from +x towards +y.
    tilt
        Sideways drift of the long axis per mm of z.
    torso_width_mm, torso_depth_mm, torso_tilt_rad
        The chest's ellipse, and how far it is turned.
    fat_mm
        Thickness of subcutaneous fat.

    Raises
    ------
    InputError
        When a parameter is not finite or lies outside what a human heart can be.
    """

    seed: int = 0
    rr_s: float = 0.92
    lv_edv_ml: float = 146.0
    lv_ef: float = 0.61
    lv_mass_g: float = 98.0
    rv_edv_ml: float = 156.0
    rv_ef: float = 0.57
    length_mm: float = 97.0
    base_descent_mm: float = 15.0
    systole: float = 0.36
    atrial_share: float = 0.24
    heart_x_mm: float = 24.0
    heart_y_mm: float = -30.0
    septum_rad: float = np.pi + 0.22
    tilt: float = 0.12
    torso_width_mm: float = 308.0
    torso_depth_mm: float = 236.0
    torso_tilt_rad: float = -0.28
    fat_mm: float = 11.0

    def __post_init__(self) -> None:
        allowed = {
            "rr_s": (0.2, 3.0), "lv_edv_ml": (30, 500), "lv_ef": (0.05, 0.9), "lv_mass_g": (30, 400),
            "rv_edv_ml": (30, 500), "rv_ef": (0.05, 0.9), "length_mm": (60, 140), "base_descent_mm": (0, 25),
            "systole": (0.2, 0.6), "atrial_share": (0, 0.6), "torso_width_mm": (200, 600),
            "torso_depth_mm": (150, 500), "fat_mm": (1, 40),
        }  # fmt: skip
        for name in (f.name for f in fields(self)):
            low, high = allowed.get(name, (-np.inf, np.inf))
            value = getattr(self, name)
            if not (np.isfinite(value) and low <= value <= high):
                raise InputError(f"the phantom's {name} is {value}", expected=f"a number from {low} to {high}")
        if self.seed < 0:
            raise InputError(f"the phantom's seed is {self.seed}", expected="0 or more")

    @classmethod
    def from_seed(cls, seed: int) -> Self:
        """Draw a healthy adult from a seed; seed 0 is the default heart."""
        if seed == 0:
            return cls()
        if seed < 0:
            raise InputError(f"the phantom's seed is {seed}", expected="0 or more")
        rng = np.random.default_rng([seed, 1])
        man = bool(rng.random() < 0.5)
        size = float(np.clip(rng.normal(), -1.6, 1.6))

        def draw(mean: float, sd: float, with_size: float = 0.0) -> float:
            own = float(np.clip(rng.normal(), -1.8, 1.8))
            return mean + sd * (with_size * size + float(np.sqrt(1 - with_size**2)) * own)

        edv = draw(150, 24, 0.85) if man else draw(122, 18, 0.85)
        ef, rv_ef = draw(0.59, 0.045), draw(0.56, 0.04)
        return cls(
            seed=seed,
            rr_s=60 / draw(66, 9),
            lv_edv_ml=edv,
            lv_ef=ef,
            lv_mass_g=draw(103, 15, 0.8) if man else draw(76, 10, 0.8),
            rv_edv_ml=edv * ef / rv_ef,  # both sides eject the same volume
            rv_ef=rv_ef,
            length_mm=97 * (edv / 146) ** (1 / 3) * draw(1, 0.03),
            base_descent_mm=draw(14.5, 1.5),
            systole=draw(0.36, 0.02),
            atrial_share=draw(0.24, 0.05),
            heart_x_mm=draw(24, 4),
            heart_y_mm=draw(-30, 4),
            septum_rad=np.pi + draw(0.22, 0.12),
            tilt=draw(0.12, 0.04),
            torso_width_mm=draw(308, 7, 0.8),
            torso_depth_mm=draw(236, 8, 0.6),
            torso_tilt_rad=draw(-0.28, 0.06),
            fat_mm=draw(11, 2.5),
        )

    def filling(self, phase: float) -> float:
        """Return the share of the stroke volume that is in the ventricles: 1 at phase 0, 0 at :attr:`systole`."""
        p, relaxed = phase % 1.0, self.systole + 0.04
        drift = 0.06  # of diastasis
        early = (1 - self.atrial_share - drift) * _ramp((p - relaxed) / 0.2)
        slow = drift * _ramp((p - relaxed - 0.1) / (1 - relaxed - 0.1))
        kick = self.atrial_share * _ramp((p - 0.82) / 0.17)
        return float(1 - _ramp((p - 0.02) / (self.systole - 0.02)) + early + slow + kick)

    def volumes_ml(self, phase: float) -> dict[str, float]:
        """Return the exact volumes (mL) of ``lv``, ``myocardium`` and ``rv`` at a phase of the beat."""
        empty = 1 - self.filling(phase)
        return {
            "lv": self.lv_edv_ml * (1 - self.lv_ef * empty),
            "myocardium": self.lv_mass_g / 1.05,
            "rv": self.rv_edv_ml * (1 - self.rv_ef * empty),
        }

    def areas_mm2(self, z_mm: float, phase: float) -> dict[str, float]:
        """Return the exact areas (mm^2) of ``lv``, ``myocardium`` and ``rv`` in the plane z at a phase of the beat."""
        s = self._section(z_mm, phase)
        if s.depth < 0:
            return {"lv": 0.0, "myocardium": 0.0, "rv": 0.0}
        return {"lv": np.pi * s.endo**2, "myocardium": np.pi * (s.epi**2 - s.endo**2), "rv": s.rv_area}

    def slice_positions_mm(self, n_slices: int, spacing_mm: float = 10.0) -> Array:
        """Return z (mm) of a stack, base first, with the middle of the ventricle in its middle: (slice,)."""
        return 0.47 * self.length_mm + spacing_mm * (np.arange(n_slices) - (n_slices - 1) / 2)

    def _section(self, z: float, phase: float) -> _Section:
        volume, contraction = self.volumes_ml(phase), 1 - self.filling(phase)
        base = self.base_descent_mm * contraction
        length = self.length_mm - base
        cavity = length - 5.0 * (1 + 0.4 * contraction)  # the apex is thinner than the wall
        epi_axis = np.sqrt(1e3 * (volume["lv"] + volume["myocardium"]) / (np.pi * _FILL * length))
        endo_axis = np.sqrt(1e3 * volume["lv"] / (np.pi * _FILL * cavity))
        below = max(z - base, 0.0)

        def radius(axis: float, height: float) -> float:
            return float(axis * np.sqrt(max(0.0, 1 - ((below / height - _CENTRE) / (1 - _CENTRE)) ** 2)))

        rv_base = 1e3 * volume["rv"] / (_RV_FILL * _RV_LENGTH * length)
        rv_area = rv_base * (1 - min(1.0, below / (_RV_LENGTH * length)) ** 1.5)
        endo, epi = radius(endo_axis, cavity), radius(epi_axis, length)
        if z < base:  # the atrium: a thin wall
            epi = 0.9 * epi
            endo = epi - 2.5
        twist = contraction * float(np.interp(below / length, [0, 1], _TWIST))
        return _Section((z - base) / length, endo, epi, rv_area, twist, contraction)

    def _polar(self, x: Array, y: Array, z: float) -> tuple[Array, Array]:
        """Radius (mm) and angle from the septum, in (-pi, pi], around the left ventricle's axis in the plane z."""
        drift = self.tilt * (z - 0.47 * self.length_mm)
        dx = x[None, :] - self.heart_x_mm - drift
        dy = y[:, None] - self.heart_y_mm - 0.5 * drift
        angle = np.arctan2(dy, dx) - self.septum_rad
        return np.hypot(dx, dy), (angle + np.pi) % (2 * np.pi) - np.pi

    def _distances(self, s: _Section, r: Array, theta: Array) -> tuple[Array, Array, Array]:
        """Signed distances (mm, negative inside) to endocardium, epicardium and the crescent's outer edge.

        Squares of the radii, not the radii, follow the angle, so that every enclosed area is exact.
        """
        flat = 1 - 0.07 * np.cos(2 * theta) + 0.015 * np.cos(3 * theta + 0.4)
        slope = 0.14 * np.sin(2 * theta) - 0.045 * np.sin(3 * theta + 0.4)
        root, q = np.sqrt(flat), theta / _RV_SPAN
        inside = np.abs(q) < 1
        profile = np.where(inside, 0.625 / _RV_SPAN * (1 - q**4) * (1 + 0.2 * q), 0.0)
        steep = np.where(inside, 0.625 / _RV_SPAN**2 * (0.2 - 4 * q**3 - q**4), 0.0)
        outer = np.sqrt(s.epi**2 * flat + 2 * s.rv_area * profile) + 1e-6
        bend = (s.epi**2 * slope + 2 * s.rv_area * steep) / (2 * outer) * _ramp((1 - np.abs(q)) / 0.25)
        return r - s.endo * root, r - s.epi * root, (r - outer) / np.hypot(1, bend / outer)

    def _grid(self, n_slices: int, matrix: int, fov: float, spacing: float) -> tuple[Array, Array]:
        """Check the arguments; return in-plane coordinates (mm) of the pixels and z of the slices."""
        if n_slices < 1 or matrix < 8:
            raise InputError(
                f"cannot draw {n_slices} slice(s) of {matrix} pixels", expected="1 slice, 8 pixels or more"
            )
        if not (fov > 0 and spacing > 0 and np.isfinite(fov + spacing)):
            raise InputError(f"the field of view is {fov} mm and the spacing {spacing} mm", expected="positive numbers")
        return (np.arange(matrix) - matrix // 2) * (fov / matrix), self.slice_positions_mm(n_slices, spacing)

    def labels(
        self,
        n_slices: int = 3,
        matrix: int = 384,
        field_of_view_mm: float = 340.0,
        n_frames: int = 60,
        *,
        spacing_mm: float = 10.0,
    ) -> Tensor:
        """Return the truth on the grid of :meth:`cine`, in the plane of each slice's middle.

        Papillary muscles belong to the cavity.

        Returns
        -------
        (slice, frame, y, x) uint8: background 0, LV cavity 1, LV myocardium 2, RV cavity 3.
        """
        x, slices = self._grid(n_slices, matrix, field_of_view_mm, spacing_mm)
        labels = np.zeros((n_slices, _frames(n_frames), matrix, matrix), dtype=np.uint8)
        for index, z in enumerate(slices):
            r, theta = self._polar(x, x, z)
            near = r < 110
            r, theta = r[near], theta[near]
            for frame in range(n_frames):
                section = self._section(z, (frame + 0.5) / n_frames)
                if section.depth < 0 or section.epi == 0:
                    continue
                endo, epi, rv = self._distances(section, r, theta)
                labels[index, frame][near] = np.where(endo < 0, 1, np.where(epi < 0, 2, np.where(rv < 0, 3, 0)))
        return torch.from_numpy(labels)

    def cine(
        self,
        n_slices: int = 3,
        matrix: int = 384,
        field_of_view_mm: float = 340.0,
        n_frames: int = 60,
        *,
        spacing_mm: float = 10.0,
        thickness_mm: float = 8.0,
    ) -> Cine:
        """Draw the beating heart, base first; 10 slices or so cover it.

        Returns
        -------
        The cine: (slice, frame, y, x) float32, not negative, arterial blood 1, averaged over the slice thickness.
        """
        x, slices = self._grid(n_slices, matrix, field_of_view_mm, spacing_mm)
        pixel = field_of_view_mm / matrix
        affine = np.diag([-pixel, -pixel, -spacing_mm, 1.0])  # to the left, to the back, down to the apex
        affine[:3, 3] = [pixel * (matrix // 2), pixel * (matrix // 2), spacing_mm * (n_slices // 2)]
        geometry = Geometry((n_slices, matrix, matrix), affine, thickness_mm)
        images = np.empty((n_slices, _frames(n_frames), matrix, matrix), dtype=np.float32)
        rows, columns = (
            slice(*np.searchsorted(x, [at - 92.0, at + 92.0])) for at in (self.heart_y_mm, self.heart_x_mm)
        )
        for index, z in enumerate(slices):
            background = _chest(self, x, float(z))
            images[index] = np.abs(background)
            planes: list[tuple[float, Array, Array]] = []
            for offset in (-thickness_mm / 3, 0.0, thickness_mm / 3):
                at = float(z + offset)
                r, t = self._polar(x[columns], x[rows], at)
                planes.append((at, r.astype(np.float32), t.astype(np.float32)))
            under = background[rows, columns]
            for frame in range(n_frames):
                phase = (frame + 0.5) / n_frames
                hearts = [_heart(self, under, pixel, self._section(at, phase), r, t) for at, r, t in planes]
                images[index, frame, rows, columns] = np.abs(np.mean(hearts, axis=0))
        return Cine(torch.from_numpy(images), geometry, self.rr_s, f"phantom of seed {self.seed}")


def _frames(n_frames: int) -> int:
    if n_frames < 1:
        raise InputError(f"cannot draw {n_frames} frames", expected="1 or more")
    return n_frames


def _waves(rng: np.random.Generator, x: Array, y: Array, scale_mm: float, modes: int = 24) -> Array:
    """Smooth random field of unit variance and correlation length ``scale_mm``, the same on every matrix: (y, x)."""
    kx, ky = rng.normal(0, 1 / scale_mm, (2, modes))
    phase = rng.uniform(0, 2 * np.pi, modes)
    field = np.exp(1j * (y[:, None] * ky + phase)) @ np.exp(1j * kx[:, None] * x)
    return np.asarray(field.real * np.sqrt(2 / modes))


def _chest(p: Phantom, x: Array, z: float) -> Array:
    """Everything that does not beat, with fat negative, in the plane z: (y, x)."""
    rng = np.random.default_rng([p.seed, 2])  # the same draws in every plane, so that neighbours agree
    pixel, down = float(x[1] - x[0]), z / p.length_mm
    cos, sin = np.cos(p.torso_tilt_rad), np.sin(p.torso_tilt_rad)
    wall, within, room = (_Canvas(x, x, np.zeros((len(x), len(x))), pixel) for _ in range(3))

    def put(on: _Canvas, tissue: str | float, u: float, v: float, ru: float, rv: float,
            angle: float = 0.0, rough: float = 0.0) -> None:  # fmt: skip
        wobble = np.stack([rough * rng.normal(0, 1, 4) / np.arange(1, 5), rng.uniform(0, 2 * np.pi, 4)], 1)
        at = (cos * u - sin * v, sin * u + cos * v + 4.0)
        on.ellipse(at, (ru, rv), tissue, angle=p.torso_tilt_rad + angle, wobble=wobble if rough else None)

    a, b, fat = p.torso_width_mm / 2, p.torso_depth_mm / 2, p.fat_mm
    put(wall, 0.8 * _SIGNAL["muscle"], 0, 0, a, b, rough=0.01)  # skin
    put(wall, "fat", 0, 0, a - 2, b - 2, rough=0.01)
    put(wall, "muscle", 0, 1, a - 1.3 * fat, b - fat, rough=0.012)
    put(wall, 0.6 * _SIGNAL["fat"], 0, 1, a - 1.3 * fat - 6, b - fat - 5, rough=0.012)
    put(wall, "muscle", 0, 1, a - 1.3 * fat - 9.5, b - fat - 8.5, rough=0.01)
    a, b = a - 1.3 * fat - 18, b - fat - 15
    for k in range(13):  # ribs run obliquely through the wall
        t = np.pi * (-0.42 + 0.155 * k + 0.02 * rng.normal()) + 0.2 * down
        turn, size = np.arctan2((b + 5) * np.sin(t), (a + 6) * np.cos(t)), 10 + 2 * rng.normal()
        for tissue, shell in (("bone", 1.5), ("marrow", 0.0)):
            put(wall, tissue, (a + 6) * np.sin(t), 1 - (b + 5) * np.cos(t), size + shell, 2.4 + shell, turn)
    put(room, 1.0, 0, 2, a, b, rough=0.012)
    within.image += _SIGNAL["lung"] * (1 + 0.2 * _waves(rng, x, x, 25.0))
    for _ in range(90):  # vessels of the lungs, thick near the root
        side, reach, t = rng.choice([-1, 1]), np.sqrt(rng.random()), rng.uniform(0, 2 * np.pi)
        u = side * (0.56 * a + 0.4 * a * reach * np.cos(t)) + 12 * down * rng.normal()
        v = 0.8 * b * reach * np.sin(t) + 12 * down * rng.normal()
        size = rng.uniform(0.4, 1.0) * (1.3 - reach)
        put(within, 0.4, u, v, size * rng.uniform(1.5, 6.0), 1.6 * size, rng.uniform(0, np.pi))
    put(within, "fat", 0.0 * a, -0.74 * b, 56, 0.30 * b, 0.05, 0.05)  # behind the breastbone
    put(within, 0.8 * _SIGNAL["fat"], 6, 0.52 * b, 36, 0.46 * b, rough=0.04)  # around the great vessels
    dome = float(np.clip((down + 0.15) / 0.75, 0, 1))
    dome = float(np.sqrt(dome * (2 - dome)))
    for signal, shell in ((0.55 * _SIGNAL["muscle"], 2.0), (_SIGNAL["liver"], 0.0)):  # the diaphragm over the liver
        put(within, signal, -0.36 * a, 0.48 * b, 0.68 * a * dome + shell, 0.66 * b * dome + shell, -0.1, 0.015)
    for _ in range(14):
        t, reach = rng.uniform(0, 2 * np.pi), 0.75 * dome * np.sqrt(rng.random())
        u, v = a * (-0.36 + 0.68 * reach * np.cos(t)), b * (0.48 + 0.66 * reach * np.sin(t))
        size = rng.uniform(0.8, 2.0) if dome > 0.5 else 0.0
        put(within, 0.75 * _SIGNAL["venous"], u, v, size * rng.uniform(1, 3), size, t)
    low = float(np.clip((down - 0.2) / 0.6, 0, 1)) ** 0.5
    put(within, 0.8 * _SIGNAL["fat"], 0.62 * a, 0.46 * b, 0.42 * a * low, 0.62 * b * low, -0.4, 0.04)
    put(within, "spleen", 0.72 * a, 0.36 * b, 21 * low, 33 * low, -0.5, 0.04)
    put(within, "muscle", 0.34 * a, 0.30 * b, 28 * low, 16 * low, 0.3, 0.05)  # stomach
    put(within, 0.12, 0.34 * a, 0.30 * b, 23 * low, 11 * low, 0.3, 0.06)
    c, back = _Canvas(x, x, wall.image + room.image * (within.image - wall.image), pixel), b - 8
    for side in (-1, 1):
        put(c, "muscle", side * 37, back + 10, 29, 13, side * -0.3, 0.04)
        put(c, "bone", side * 27, back + 1, 13, 4, side * -0.3)
        put(c, "marrow", side * 27, back + 1, 10, 2.2, side * -0.3)
    put(c, "bone", 0, back - 14, 20, 16.5)
    put(c, "marrow", 0, back - 14, 18.5, 15)
    put(c, "bone", 0, back + 11, 15, 10)
    put(c, "marrow", 0, back + 20, 4, 12)
    for tissue, size in (("fat", 10.0), ("csf", 8.5), ("cord", 4.8)):
        put(c, tissue, 0, back + 9, size, 0.8 * size)
    put(c, 0.7 * _SIGNAL["muscle"], 26, back - 30, 12.3, 12.3)
    put(c, 0.97, 26, back - 30, 11, 11)  # descending aorta
    put(c, "muscle", 7, back - 37, 8, 5.5, 0.3)  # oesophagus
    put(c, 0.1, 7, back - 37, 3.5, 1.2, 0.3)
    put(c, 0.85 * _SIGNAL["venous"], -31, back - 40, 10.5, 8.5, 0.4, 0.03)  # inferior vena cava
    return c.image * (1 + 0.05 * _waves(rng, x, x, 14.0) + 0.04 * _waves(rng, x, x, 3.0))


def _heart(p: Phantom, under: Array, pixel: float, s: _Section, r: Array, theta: Array) -> Array:
    """The heart on what lies under it, with fat negative: (y, x)."""
    c = _Canvas(r[0], r[0], under.copy(), pixel)
    if s.epi == 0:
        return c.image
    rng = np.random.default_rng([p.seed, 3])  # the same draws in every frame: what is drawn moves with the wall
    endo, epi, rv = p._distances(s, r, theta)
    q = np.abs(theta) / _RV_SPAN
    window = _ramp((1.15 - q) / 0.5)
    wall = 3.2 * window
    outside = np.minimum(epi, rv - wall)
    groove = np.exp(-(((q - 1) / 0.22) ** 2))
    coat = 2.0 + 1.2 * window + 3.0 * groove
    c.blend(c.cover(outside - coat - 1.2), 0.5 * _SIGNAL["muscle"])  # pericardium
    c.blend(c.cover(outside - coat), _SIGNAL["fat"])
    c.blend(c.cover(rv - wall), _SIGNAL["myocardium"])
    angle = theta - s.twist
    speckle = _ramp(r / 30) * sum(
        rng.normal(0, 0.25) * np.cos(m * angle + n * 0.35 * (r - s.endo) + rng.uniform(0, 2 * np.pi))
        for m, n in ((1, 0), (3, 1), (5, 2), (9, 1), (13, 2))
    )
    grow = 1 + 0.2 * s.contraction

    def bead(edge: Array, turned: Array, at: float, size: float, inset: float, present: float) -> None:
        radius = np.hypot(2 * r * np.sin((turned - at) / 2), edge + inset * size)
        c.blend(present * c.cover(radius - size) * c.cover(edge), _SIGNAL["myocardium"])

    c.blend(c.cover(rv), _SIGNAL["venous"] * (1 + 0.03 * speckle))
    for _ in range(16):  # the right ventricle's trabeculae
        bead(rv, theta, rng.uniform(-0.95, 0.95) * _RV_SPAN, rng.uniform(0.8, 2.6) * grow, rng.uniform(0, 0.9), 0.7)
    c.blend(c.cover(epi), _SIGNAL["myocardium"] * (1 + 0.08 * speckle))
    c.blend(c.cover(endo), 1 + 0.03 * speckle)
    if not 0 <= s.depth < 0.9:
        return c.image
    present = float(_ramp((s.depth - 0.22) / 0.15) * _ramp((0.82 - s.depth) / 0.15))
    for at, size in ((2.05, 4.6), (-2.35, 5.0)):  # papillary muscles: anterolateral and posteromedial
        along, across = r * np.cos(angle - at) - 0.68 * s.endo, r * np.sin(angle - at)
        radius = np.hypot(along / 1.15, across) * (1 + 0.05 * np.cos(3 * np.arctan2(across, along) + size))
        c.blend(c.cover(radius - size * grow) * present * c.cover(endo), 1.05 * _SIGNAL["myocardium"])
    for _ in range(15):  # trabeculae, denser towards the apex
        size = (0.5 + 1.9 * s.depth) * rng.uniform(0.3, 1.0) * grow
        bead(endo, angle, rng.uniform(0.9, 5.4), size, 0.6, 0.85)
    return c.image
