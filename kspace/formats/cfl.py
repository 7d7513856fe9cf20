"""BART's cfl files and its conventions, measured against BART 0.8.

BART counts k-space in cycles per field of view, order (kx, ky, kz); its first image axis belongs to kx. On grids of
even size its ``nufft`` then equals this project's transform, sign, origin and unitary scaling included: at 20 x 26 to
1e-4 and a factor of 1.0013. On grids of odd size BART 0.8 agrees with no direct sum that we tried; leave those alone.
"""

from __future__ import annotations

import os
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError
from kspace.formats.files import existing_file, one_line, written_beside

_ITEM = np.dtype("<c8").itemsize
_MAX_AXES = 16


def read_cfl(stem: str | os.PathLike[str]) -> np.ndarray:
    """Read ``stem.cfl`` with the dimensions of ``stem.hdr``.

    Parameters
    ----------
    stem
        The common name of both files; a suffix ``.cfl`` or ``.hdr`` may be there.

    Returns
    -------
        complex64, Fortran order, with as many axes as the header names (BART itself writes 16).

    Raises
    ------
    InputError
        When a file is missing, the header names no whole positive dimensions, or the data are not as long as it says.
    """
    header, data = _both(stem)
    existing_file(header, "a BART header")
    existing_file(data, "BART data beside its header")
    with header.open("rb") as stream:
        text = stream.read(65536).decode("ascii", errors="replace")
    dims = _dimensions(text, header.name)
    size = data.stat().st_size
    if prod(dims) * _ITEM != size:
        raise InputError(
            f"{data.name} is {size} bytes long but its header says {' x '.join(map(str, dims))}",
            expected=f"{one_line(prod(dims) * _ITEM, 40)} bytes, 8 for each complex number",
            hint="The pair is damaged or does not belong together; write it again",
        )
    return np.fromfile(data, dtype="<c8").astype(np.complex64, copy=False).reshape(dims, order="F")


def write_cfl(stem: str | os.PathLike[str], array: Tensor | np.ndarray) -> None:
    """Write ``stem.cfl`` and ``stem.hdr``, each complete or not at all, the header last.

    Parameters
    ----------
    stem
        The common name of both files.
    array
        Up to 16 axes, none empty; stored as complex64.

    Raises
    ------
    ShapeError, InputError
        When the array does not fit the format or the folder cannot be written.
    """
    values = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if not 1 <= values.ndim <= _MAX_AXES or values.size == 0:
        raise ShapeError("the array for BART", values, f"1 to {_MAX_AXES} axes, none of them empty")
    header, data = _both(stem)
    with written_beside(header) as temporary_header, written_beside(data) as temporary_data:
        temporary_header.write_text("# Dimensions\n" + " ".join(map(str, values.shape)) + "\n", encoding="ascii")
        values.astype("<c8").ravel(order="F").tofile(temporary_data)


def bart_trajectory(positions: Tensor, matrix: tuple[int, int]) -> np.ndarray:
    """Turn positions into a BART trajectory.

    Parameters
    ----------
    positions
        (spoke, readout, 2), order (ky, kx), cycles per pixel.
    matrix
        (rows, columns) of the grid that the positions refer to.

    Returns
    -------
        (3, readout, spoke) complex64, order (kx, ky, kz = 0), cycles per field of view.
    """
    if positions.ndim != 3 or positions.shape[-1] != 2:
        raise ShapeError("positions", positions, "(spoke, readout, 2)")
    values = positions.detach().cpu().double().numpy() * np.array(matrix)
    trajectory = np.zeros((3, positions.shape[1], positions.shape[0]), dtype=np.complex64)
    trajectory[:2] = values[..., ::-1].transpose(2, 1, 0)
    return trajectory


def positions_from_bart(trajectory: np.ndarray, matrix: tuple[int, int]) -> Tensor:
    """Turn a BART trajectory (3, readout, spoke, 1, ...) into positions (spoke, readout, 2), float32, cycles per pixel.

    Raises
    ------
    ShapeError, InputError
        When the shape is another one or the trajectory leaves the plane kz = 0.
    """
    if trajectory.ndim < 3 or trajectory.shape[0] != 3 or prod(trajectory.shape[3:]) != 1:
        raise ShapeError("the BART trajectory", trajectory, "(3, readout, spoke)")
    values = trajectory.reshape(trajectory.shape[:3]).real.astype(np.float64)
    if np.abs(values[2]).max(initial=0.0) > 1e-3:
        raise InputError("the BART trajectory leaves the plane", expected="kz = 0 for two-dimensional spokes")
    return torch.from_numpy((values[1::-1].transpose(2, 1, 0) / np.array(matrix)).astype(np.float32))


def bart_samples(samples: Tensor) -> np.ndarray:
    """Turn samples (spoke, coil, readout) into BART's (1, readout, spoke, coil), complex64."""
    if samples.ndim != 3:
        raise ShapeError("samples", samples, "(spoke, coil, readout)")
    return samples.detach().cpu().numpy().astype(np.complex64).transpose(2, 0, 1)[None]


def samples_from_bart(samples: np.ndarray) -> Tensor:
    """Turn BART's (1, readout, spoke[, coil, 1, ...]) into samples (spoke, coil, readout), complex64."""
    if samples.ndim < 3 or samples.shape[0] != 1 or prod(samples.shape[4:]) != 1:
        raise ShapeError("the BART samples", samples, "(1, readout, spoke, coil)")
    coils = samples.shape[3] if samples.ndim > 3 else 1
    values = samples.reshape(*samples.shape[1:3], coils).astype(np.complex64)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(1, 2, 0)))


def _both(stem: str | os.PathLike[str]) -> tuple[Path, Path]:
    path = Path(stem)
    if path.suffix in (".cfl", ".hdr"):
        path = path.with_suffix("")
    return path.with_name(path.name + ".hdr"), path.with_name(path.name + ".cfl")


def _dimensions(text: str, name: str) -> tuple[int, ...]:
    lines = [line.strip() for line in text.splitlines()]
    words = next((after.split() for line, after in pairwise(lines) if line == "# Dimensions"), [])
    if not 1 <= len(words) <= _MAX_AXES:
        raise InputError(
            f"{name} names {len(words)} dimension(s)", expected=f"1 to {_MAX_AXES} on the line after '# Dimensions'"
        )
    for word in words:
        if not (word.isascii() and word.isdigit() and len(word) <= 12) or int(word) == 0:
            raise InputError(f"{name} has the dimension '{one_line(word, 40)}'", expected="whole numbers from 1")
    return tuple(int(word) for word in words)
