"""Where slices lie: position and directions of each readout, to and from the affine of a geometry."""

from __future__ import annotations

import numpy as np

from kspace.errors import InputError
from kspace.formats.mrd.header import Encoding
from kspace.scan import Geometry

_RAS_TO_LPS = np.array([-1.0, -1.0, 1.0])


def placements(geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return the position of each slice (slice, 3) in mm and the directions (3, 3), rows read, phase, slice, in LPS.

    The position is that of the pixel at index ``N // 2``, the origin of the discrete Fourier transform.
    """
    n_slices, rows, columns = geometry.shape
    centre = np.array([[columns // 2, rows // 2, index, 1.0] for index in range(n_slices)])
    axes = geometry.affine[:3, :3].T
    directions = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    return (centre @ geometry.affine.T)[:, :3] * _RAS_TO_LPS, directions * _RAS_TO_LPS


def read_geometry(heads: np.ndarray, slices: np.ndarray, encoding: Encoding, name: str) -> Geometry:
    """Return the reconstruction grid.

    It is axis-aligned and centred on the origin where the readouts carry no directions. Otherwise columns run along
    ``read_dir``, rows along ``phase_dir``, and slices from position to position, or along ``slice_dir`` where there is
    one position only.

    Parameters
    ----------
    heads
        (spoke,) acquisition headers.
    slices
        (spoke,) slice of each spoke.
    encoding
        Matrix and field of view.
    name
        Name of the file, for messages.

    Raises
    ------
    InputError
        When the directions span no volume or the slices are not evenly spaced.
    """
    n_slices = max(encoding.n_slices, int(slices.max()) + 1)
    shape = (n_slices, encoding.recon_matrix[1], encoding.recon_matrix[0])
    dx, dy = encoding.recon_fov_mm[0] / shape[2], encoding.recon_fov_mm[1] / shape[1]
    depth = encoding.recon_fov_mm[2]
    thickness: float | None = depth if np.isfinite(depth) and depth > 0 else None
    spacing = thickness or 1.0
    if encoding.numbers.get("slice_spacing_mm", 0.0) > 0:
        spacing, thickness = encoding.numbers["slice_spacing_mm"], encoding.numbers.get("slice_thickness_mm")
        thickness = thickness if thickness is not None and thickness > 0 else None
    directions = np.array([heads[key][0] for key in ("read_dir", "phase_dir", "slice_dir")], dtype=np.float64)
    norms = np.linalg.norm(directions, axis=1, keepdims=True)
    if not np.isfinite(norms).all() or (norms == 0).any():
        return Geometry.from_spacing(shape, (spacing, dy, dx), slice_thickness_mm=thickness)
    directions = directions / norms * _RAS_TO_LPS
    present, first = np.unique(slices, return_index=True)
    positions = heads["position"][first].astype(np.float64) * _RAS_TO_LPS
    step = directions[2] * spacing
    if len(present) > 1 and np.linalg.norm(positions[-1] - positions[0]) > 1e-3:
        step = (positions[-1] - positions[0]) / (present[-1] - present[0])
        off = np.linalg.norm(positions - positions[0] - (present - present[0])[:, None] * step, axis=1).max()
        if off > max(0.1, 0.02 * float(np.linalg.norm(step))):
            raise InputError(
                f"the slices of {name} are not evenly spaced (one is {off:.3g} mm off)",
                expected="slices numbered in the order of their positions, at one distance",
            )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = directions[0] * dx, directions[1] * dy, step
    centre = np.array([shape[2] // 2, shape[1] // 2, present[0]], dtype=np.float64)
    affine[:3, 3] = positions[0] - affine[:3, :3] @ centre
    return Geometry(shape, affine, thickness)
