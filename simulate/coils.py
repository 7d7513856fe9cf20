"""Receive coils: sensitivities of circular loops by Biot-Savart, and the noise that they share.

The loops lie on an elliptic torso whose axis is taken along the normal of the slices, and the static field along that
axis: exact for transverse slices, an approximation for short-axis ones, which are oblique. Image coordinates: x along
the columns' index, y along the rows', z along the slices', in mm, with the origin in the middle of the grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor

from kspace.errors import InputError
from kspace.scan import Geometry

Array = npt.NDArray[Any]

_MU0 = 4e-7 * np.pi  # T m / A
_WIRE_MM = 12.0  # smears the wire, so that no pixel next to one sees a pole
_COARSE_MM = 6.0  # the field is smooth: computed this finely, then interpolated by cubic splines
_PER_ROW = 8


def loop_field(
    points_mm: Array, centre_mm: Array, normal: Array, radius_mm: float, *, segments: int = 48, wire_mm: float = 0.0
) -> Array:
    """Return the magnetic field of a circular loop that carries 1 A, by Biot-Savart over its segments.

    Parameters
    ----------
    points_mm
        (..., 3), where to evaluate, order (x, y, z).
    centre_mm, normal
        (3,), the loop's centre and axis; the current runs right-handedly around the axis.
    radius_mm
        Radius of the loop.
    segments
        Number of segments. The sum converges exponentially at distances above a few segment lengths.
    wire_mm
        Softening length: adds its square to the squared distances.

    Returns
    -------
    (..., 3) float64, tesla.
    """
    axis = np.asarray(normal, dtype=np.float64) / np.linalg.norm(normal)
    first = np.cross(axis, np.eye(3)[np.argmin(np.abs(axis))])
    first /= np.linalg.norm(first)
    second = np.cross(axis, first)
    angles = 2 * np.pi * np.arange(segments) / segments
    field = np.zeros(np.shape(points_mm))
    for c, s in zip(np.cos(angles), np.sin(angles), strict=True):
        tangent = (c * second - s * first) * (2 * np.pi * radius_mm / segments)
        away = points_mm - (centre_mm + radius_mm * (c * first + s * second))
        inverse = (np.einsum("...i,...i", away, away) + wire_mm**2) ** -1.5
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            field[..., i] += (tangent[j] * away[..., k] - tangent[k] * away[..., j]) * inverse
    return field * (_MU0 / (4 * np.pi) * 1e3)  # 1 / mm to 1 / m


def _loops(n_coils: int, torso_mm: tuple[float, float], radius_mm: float, seed: int) -> tuple[Array, Array]:
    """Centres (mm) and inward normals of the loops, front and back in turn, row by row: two (coil, 3)."""
    if n_coils < 1:
        raise InputError(f"cannot place {n_coils} coils", expected="1 or more")
    if not all(np.isfinite(v) and v > 0 for v in (*torso_mm, radius_mm)):
        raise InputError(
            f"the torso is {torso_mm} mm and the loops' radius {radius_mm} mm", expected="positive numbers"
        )
    rng = np.random.default_rng([seed, 11])
    a, b = torso_mm[0] / 2 + 8, torso_mm[1] / 2 + 8  # the housing keeps the loops off the skin
    n_rows = -(-n_coils // _PER_ROW)
    centres, normals = [], []
    for row, members in enumerate(np.array_split(np.arange(n_coils), n_rows)):
        z = (row - (n_rows - 1) / 2) * 1.5 * radius_mm
        front = -(-len(members) // 2)
        for side, count in ((-1.0, front), (1.0, len(members) - front)):  # y runs from front to back
            stagger = 0.25 * (-1) ** row if n_rows > 1 else 0.0
            for place in range(count):
                share = (place + 0.5 + stagger) / count - 0.5
                angle = share * np.deg2rad(140.0) + 0.03 * rng.normal()
                x, y = a * np.sin(angle), side * b * np.cos(angle)
                centres.append((x, y, z + 0.04 * radius_mm * rng.normal()))
                inward = np.array([-x / a**2, -y / b**2, 0.0]) + 2e-4 * rng.normal(size=3)
                normals.append(inward / np.linalg.norm(inward))
    return np.array(centres), np.array(normals)


def _upsample(n: int, spacing: float) -> tuple[Array, Array]:
    """Positions (mm) of a coarse axis and the cubic-spline weights that take it to n fine pixels: (n, coarse)."""
    fine = (np.arange(n) - n // 2) * spacing
    coarse = np.linspace(fine[0], fine[-1] + 1e-6, max(4, int(np.ceil((fine[-1] - fine[0]) / _COARSE_MM)) + 1))
    return coarse, np.asarray(make_interp_spline(coarse, np.eye(len(coarse)))(fine))


def loop_sensitivities(
    geometry: Geometry,
    n_coils: int,
    *,
    seed: int = 0,
    torso_mm: tuple[float, float] = (308.0, 236.0),
    radius_mm: float = 65.0,
    middle_mm: tuple[float, float] = (0.0, 0.0),
    slices: Sequence[int] | None = None,
    normalised: bool = True,
) -> Tensor:
    """Return receive sensitivities of loops in front of and behind a torso, in rows of up to eight along z.

    The sensitivity of a loop is the rotating component ``Bx - i By`` of the field that it would make at 1 A, by
    reciprocity (Hoult, Concepts Magn Reson 12:173, 2000). At every pixel the maps are scaled to unit
    root-sum-of-squares, so that the image that was simulated is the coil-combined one.

    Parameters
    ----------
    geometry
        The image grid; only its matrix and spacing matter.
    n_coils
        Number of loops, any from 1.
    seed
        Of small displacements of the loops.
    torso_mm
        Width and depth of the torso.
    radius_mm
        Radius of the loops.
    middle_mm
        (x, y) of the torso's axis from the middle of the grid.
    slices
        Which slices of the grid to return; all by default.
    normalised
        False leaves the field itself, in microtesla at 1 A: its root sum of squares shades the image.

    Returns
    -------
    (slice, coil, y, x) complex64.
    """
    centres, normals = _loops(n_coils, torso_mm, radius_mm, seed)
    centres[:, :2] += middle_mm
    n_slices, rows, columns = geometry.shape
    dz, dy, dx = geometry.spacing_mm
    (y, to_rows), (x, to_columns) = _upsample(rows, dy), _upsample(columns, dx)
    chosen = np.arange(n_slices) if slices is None else np.asarray(slices)
    z = (chosen - (n_slices - 1) / 2) * dz
    points = np.stack(np.broadcast_arrays(x[None, None, :], y[None, :, None], z[:, None, None]), axis=-1)
    maps = torch.empty((len(z), n_coils, rows, columns), dtype=torch.complex64)
    up_rows, up_columns = (torch.from_numpy(m.astype(np.complex64)) for m in (to_rows, to_columns))
    for coil, (centre, normal) in enumerate(zip(centres, normals, strict=True)):
        field = loop_field(points, centre, normal, radius_mm, wire_mm=_WIRE_MM)
        minus = torch.from_numpy(((field[..., 0] - 1j * field[..., 1]) * 1e6).astype(np.complex64))
        maps[:, coil] = up_rows @ minus @ up_columns.T
    if not normalised:
        return maps
    return maps / maps.abs().square().sum(dim=1, keepdim=True).sqrt().clamp_min(1e-12)


def noise_covariance(n_coils: int, *, correlation: float = 0.2, seed: int = 0) -> Tensor:
    """Return the covariance of the coils' noise, as of the loops that :func:`loop_sensitivities` places by default.

    The correlation of two loops decays exponentially with their distance, from ``correlation`` between the nearest
    neighbours; gains spread by up to 20 % and each channel has a phase of its own.

    Returns
    -------
    (coil, coil) complex64, Hermitian, positive definite, with a mean diagonal of 1.
    """
    if not 0 <= correlation < 1:
        raise InputError(f"the correlation of neighbouring coils is {correlation}", expected="a number in [0, 1)")
    centres, _ = _loops(n_coils, (308.0, 236.0), 65.0, seed)
    rng = np.random.default_rng([seed, 12])
    distance = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    nearest = distance[~np.eye(n_coils, dtype=bool)].min() if n_coils > 1 else 1.0
    gains = rng.uniform(0.8, 1.2, n_coils) * np.exp(2j * np.pi * rng.random(n_coils))
    covariance = np.power(correlation, distance / nearest) * np.outer(gains, gains.conj())
    return torch.from_numpy((covariance / np.trace(covariance).real * n_coils).astype(np.complex64))
