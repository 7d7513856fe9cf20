"""From the trajectory of a file to positions in cycles per pixel, and the proof that these are spokes."""

from __future__ import annotations

import numpy as np

from kspace.errors import InputError
from kspace.formats.mrd.header import Encoding

_EDGE = 0.5 + 5e-7  # float32 rounding of positions that touch the edge
_TOLERANCE = 2.0  # samples
_HINT = "Only two-dimensional radial scans can be read"


def read_positions(traj: np.ndarray, encoding: Encoding, name: str) -> np.ndarray:
    """Return positions in cycles per pixel of the reconstruction grid.

    A trajectory whose largest coordinate is at most 0.5 counts in cycles per pixel of the encoded space. A larger one
    counts in cycles per field of view of the encoded space and is divided by the encoded matrix; the result has to
    reach between 0.1 and 0.5, which tells it from radians. Where a pixel of the reconstruction space has another size
    than one of the encoded space (matrix over field of view), positions are scaled by the ratio; readout oversampling
    enlarges both matrix and field of view and changes nothing.

    Parameters
    ----------
    traj
        (spoke, sample, 2 or 3), order (kx, ky[, kz]).
    encoding
        The matrices and fields of view.
    name
        Name of the file, for messages.

    Returns
    -------
        (spoke, sample, 2) float32, order (ky, kx).

    Raises
    ------
    InputError
        When the unit cannot be told, positions leave [-0.5, 0.5], or the lines are no spokes.
    """
    if traj.shape[-1] == 3 and np.abs(traj[..., 2]).max() > 1e-3 * np.abs(traj[..., :2]).max():
        raise InputError(f"the trajectory of {name} leaves the plane", expected="kz = 0 on every spoke", hint=_HINT)
    plane = traj[..., :2]
    extent = float(np.abs(plane).max())
    if extent > _EDGE:
        plane = plane / np.array(encoding.encoded_matrix[:2], dtype=np.float32)
        reach = float(np.abs(plane).max())
        if not 0.1 <= reach <= _EDGE:
            raise InputError(
                f"the trajectory of {name} reaches {extent:.4g}, {reach:.4g} of the encoded matrix",
                expected="at most 0.5 cycles per pixel, or half the matrix in cycles per field of view",
                hint="Check the unit of the trajectory and the encoded matrix in the header",
            )
    encoded = np.array(encoding.encoded_fov_mm[:2]) / np.array(encoding.encoded_matrix[:2])
    recon = np.array(encoding.recon_fov_mm[:2]) / np.array(encoding.recon_matrix[:2])
    if not np.allclose(encoded, recon, rtol=1e-6):
        plane = plane * (recon / encoded).astype(np.float32)
        if float(np.abs(plane).max()) > _EDGE:
            raise InputError(
                f"{name} was acquired at pixels of {encoded[0]:.4g} x {encoded[1]:.4g} mm but is to be reconstructed"
                f" at {recon[0]:.4g} x {recon[1]:.4g} mm, so that positions reach {np.abs(plane).max():.4g}",
                expected="positions within 0.5 cycles per pixel",
                hint="Check reconSpace and encodedSpace in the header",
            )
    positions = np.ascontiguousarray(plane[..., ::-1], dtype=np.float32)
    _require_spokes(positions, encoding, name)
    return positions


def _require_spokes(positions: np.ndarray, encoding: Encoding, name: str) -> None:
    """Each readout has to be straight and to come within two samples of the centre, gradient delays included."""
    p = positions.astype(np.float64)
    start, along = p[:, :1], p[:, -1] - p[:, 0]
    length = np.linalg.norm(along, axis=1)
    if (length == 0).any():
        raise InputError(
            f"readout {int(np.argmin(length))} of {name} ends where it starts", expected="straight spokes", hint=_HINT
        )
    slack = _TOLERANCE * length / (p.shape[1] - 1)
    offset = p - start
    bend = np.abs(offset[..., 0] * along[:, None, 1] - offset[..., 1] * along[:, None, 0]).max(axis=1) / length
    nearest = np.linalg.norm(p, axis=-1).min(axis=1)
    if (bend > slack).any():
        bad = int(np.argmax(bend - slack))
        what = f"spoke {bad} of {name} is bent by {_TOLERANCE * bend[bad] / slack[bad]:.3g} samples"
    elif (nearest > slack).any():
        bad = int(np.argmax(nearest - slack))
        what = f"spoke {bad} of {name} passes k = 0 at {_TOLERANCE * nearest[bad] / slack[bad]:.3g} samples"
    else:
        return
    raise InputError(
        f"{what} (the header calls the trajectory {encoding.trajectory})",
        expected=f"straight spokes through the centre, to within {_TOLERANCE:g} samples",
        hint=_HINT,
    )
