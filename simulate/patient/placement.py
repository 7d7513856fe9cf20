"""Where things are: stack coordinates, body coordinates, and where tissue seen at a point came from.

Stack coordinates (x, y, z) are those of :mod:`simulate.body`, with the origin in the middle of the mitral plane at
end-diastole. Body coordinates (left, back, feet) are mm from the middle of the chest at the height of that plane.
"""

from __future__ import annotations

import numpy as np

from kspace.errors import InputError
from kspace.scan import Geometry
from simulate.body import BodyState
from simulate.patient.left import Array
from simulate.patient.parameters import Patient

HEART_SHARE = 0.6
"""Displacement of the heart towards the feet over the diaphragm's (Wang et al., Magn Reson Med 33:713, 1995)."""
HEART_FORWARD = 0.1
"""Its displacement forwards over the diaphragm's (same source)."""


def axes(patient: Patient) -> Array:
    """Return the unit vectors of x, y and z in body coordinates (left, back, feet): (3, 3), one per row."""
    p = patient.placement
    flat = np.cos(p.elevation_rad)
    z = np.array([flat * np.sin(p.azimuth_rad), -flat * np.cos(p.azimuth_rad), np.sin(p.elevation_rad)])
    y = np.array([0.0, 0.0, 1.0]) - z[2] * z  # down in the image: towards the feet
    y /= np.linalg.norm(y)
    x = np.cross(y, z)
    c, s = np.cos(p.roll_rad), np.sin(p.roll_rad)
    return np.stack([c * x + s * y, c * y - s * x, z])


def mitral_centre(patient: Patient) -> Array:
    """Return the middle of the mitral plane in body coordinates: (3,) mm."""
    return np.array([patient.placement.mitral_left_mm, patient.placement.mitral_back_mm, 0.0])


def short_axis_geometry(
    patient: Patient,
    *,
    n_slices: int | None = None,
    rows: int = 300,
    columns: int = 300,
    pixel_mm: float = 1.2,
    thickness_mm: float = 8.0,
    gap_mm: float = 2.0,
    first_mm: float | None = None,
) -> Geometry:
    """Plan a short-axis stack from base to apex as one would at the scanner.

    Parameters
    ----------
    patient
        Whom to plan it for.
    n_slices
        Number of slices; None covers from just above the mitral plane to just beyond the apex.
    rows, columns, pixel_mm
        The grid in plane.
    thickness_mm, gap_mm
        Thickness of a slice, and distance between the faces of neighbours.
    first_mm
        z of the first slice's middle; None is half a slice above the mitral plane at end-diastole.

    Returns
    -------
    The geometry, its affine in right-anterior-superior axes with the origin in the middle of the chest.
    """
    step = thickness_mm + gap_mm
    if not (np.isfinite(step) and thickness_mm > 0 and gap_mm >= 0 and pixel_mm > 0):
        raise InputError(
            f"slices of {thickness_mm} mm with a gap of {gap_mm} mm and pixels of {pixel_mm} mm",
            expected="positive numbers, and a gap of 0 or more",
        )
    start = -0.5 * step if first_mm is None else first_mm
    count = int(np.ceil((patient.left.length_mm - start) / step)) + 1 if n_slices is None else n_slices
    if count < 1 or rows < 8 or columns < 8:
        raise InputError(f"a stack of {count} x {rows} x {columns}", expected="1 slice of 8 x 8 pixels, or more")
    p = patient.placement
    frame = axes(patient)
    corner = np.array([-pixel_mm * (columns // 2) - p.view_x_mm, -pixel_mm * (rows // 2) - p.view_y_mm, start])
    affine = np.eye(4)
    affine[:3, :3] = -(frame.T * np.array([pixel_mm, pixel_mm, step]))
    affine[:3, 3] = -(mitral_centre(patient) + corner @ frame)
    return Geometry((count, rows, columns), affine, thickness_mm)


def short_axis_like(patient: Patient, geometry: Geometry, *, n_slices: int | None = None) -> Geometry:
    """Plan a short-axis stack with the matrix, pixels, thickness and gap of another geometry.

    ``n_slices`` as in :func:`short_axis_geometry`: None covers the heart.
    """
    step, pixel, other = geometry.spacing_mm
    if abs(pixel - other) > 1e-6 * pixel:
        raise InputError(f"pixels of {pixel:g} x {other:g} mm", expected="square pixels")
    thickness = min(step, geometry.slice_thickness_mm or step)
    _, rows, columns = geometry.shape
    return short_axis_geometry(
        patient, n_slices=n_slices, rows=rows, columns=columns, pixel_mm=pixel, thickness_mm=thickness,
        gap_mm=step - thickness,
    )  # fmt: skip


def stack_affine(patient: Patient, geometry: Geometry) -> Array:
    """Return the (4, 4) matrix from (column, row, slice, 1) to stack coordinates in mm.

    Raises
    ------
    InputError
        When the slices are not perpendicular to the patient's long axis.
    """
    body = geometry.affine.copy()
    body[:3] *= -1  # right, anterior, superior to left, back, feet
    body[:3, 3] -= mitral_centre(patient)
    stack = np.eye(4)
    stack[:3] = axes(patient) @ body[:3]
    if max(abs(stack[2, 0]), abs(stack[2, 1])) > 1e-4 * geometry.spacing_mm[1]:
        raise InputError(
            "the slices are not perpendicular to the patient's long axis",
            expected="a short-axis stack",
            hint="Plan it with short_axis_geometry",
        )
    return stack


def heart_shift(patient: Patient, state: BodyState) -> Array:
    """Return by how much breathing moves the heart in stack coordinates: (3,) mm."""
    return np.asarray(axes(patient) @ np.array([0.0, -HEART_FORWARD, HEART_SHARE]) * state.breath_mm)
