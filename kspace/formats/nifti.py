"""Cines and labels as 4D NIfTI files, axes (column, row, slice, phase)."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from torch import Tensor

from kspace.errors import InputError, ShapeError
from kspace.formats.files import MAX_COMPRESSION, existing_file, one_line, written_beside
from kspace.scan import Cine, Geometry

# The codes of NIfTI's xyzt_units; a space of no or an unknown unit is taken in millimetres.
_SECONDS = {8: 1.0, 16: 1e-3, 24: 1e-6}
_MILLIMETRES = {1: 1e3, 2: 1.0, 3: 1e-3}
_AXES = "4 axes (column, row, slice, phase)"


def read_cine(path: str | os.PathLike[str]) -> Cine:
    """Read a 4D NIfTI file with axes (column, row, slice, phase).

    Parameters
    ----------
    path
        A ``.nii`` or ``.nii.gz`` file of real or complex numbers; its scale factors are applied.

    Returns
    -------
        Images (slice, frame, y, x), float32 or complex64, and the affine of the file in mm. The RR interval is the
        time step (``pixdim[4]``) times the number of phases where the file gives a unit of time and the result lies
        within 0.2 to 3 s. Otherwise it is 1 s, and :attr:`Cine.source` says "RR assumed 1 s".

    Raises
    ------
    InputError
        When the file is missing, damaged, not NIfTI, not four-dimensional, empty, or holds NaN or colours.
    """
    path = existing_file(path, "a 4D NIfTI file")
    image, data = _load(path)
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        numbers = data.astype(np.complex64 if np.iscomplexobj(data) else np.float32)
    bad = int(np.count_nonzero(~np.isfinite(numbers)))
    if bad:
        raise InputError(
            f"{path.name} holds {bad} value(s) that are NaN or infinite",
            expected="finite numbers",
            hint="Replace them, or find out why the images are damaged",
        )
    images = torch.from_numpy(np.ascontiguousarray(numbers.transpose(2, 3, 1, 0)))
    units = int(image.header["xyzt_units"])
    space, time = units & 0x07, units & 0x38
    affine = np.diag([*(_MILLIMETRES.get(space, 1.0),) * 3, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
    rr_s = float(image.header["pixdim"][4]) * _SECONDS.get(time, 0.0) * images.shape[1]
    known = 0.2 - 1e-6 <= rr_s <= 3.0 + 1e-6  # the file's time step is rounded to float32
    geometry = Geometry((images.shape[0], images.shape[2], images.shape[3]), affine)
    return Cine(
        images, geometry, min(max(rr_s, 0.2), 3.0) if known else 1.0, "NIfTI" if known else "NIfTI, RR assumed 1 s"
    )


def read_labels(path: str | os.PathLike[str]) -> Tensor:
    """Read a 4D label file with axes (column, row, slice, phase) as uint8 (slice, frame, y, x).

    Raises
    ------
    InputError
        As :func:`read_cine`, and when a value is not a whole number from 0 to 255.
    """
    path = existing_file(path, "a 4D NIfTI file of labels")
    _, data = _load(path)
    labels = _as_labels(data, path.name)
    return torch.from_numpy(np.ascontiguousarray(labels.transpose(2, 3, 1, 0)))


def write_cine(path: str | os.PathLike[str], cine: Cine) -> None:
    """Write a cine as 4D NIfTI: float32, or complex64 if its images are complex.

    The time step is the RR interval over the number of frames; NIfTI has one for the whole file, so slices with
    different RR intervals share their mean.

    Parameters
    ----------
    path
        The final name, ``.nii`` or ``.nii.gz``; the file appears there complete or not at all.
    cine
        Images (slice, frame, y, x).

    Raises
    ------
    InputError
        When the suffix is another one or the folder cannot be written.
    """
    images = cine.images.detach().cpu()
    data = images.to(torch.complex64 if images.is_complex() else torch.float32).numpy()
    rr_s = sum(cine.slice_rr_s(index) for index in range(cine.n_slices)) / cine.n_slices
    _write(path, data, cine.geometry, rr_s)


def write_labels(
    path: str | os.PathLike[str], labels: Tensor | np.ndarray, geometry: Geometry, rr_s: float = 1.0
) -> None:
    """Write labels as 4D NIfTI, uint8, on the grid of ``geometry``.

    Parameters
    ----------
    path
        The final name, ``.nii`` or ``.nii.gz``; the file appears there complete or not at all.
    labels
        (slice, frame, y, x), whole numbers from 0 to 255.
    geometry
        Where the pixels lie.
    rr_s
        RR interval in seconds, for the time step.

    Raises
    ------
    ShapeError, InputError
        When the labels do not fit the geometry or are no labels, or the folder cannot be written.
    """
    values = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
    if values.ndim != 4 or (values.shape[0], *values.shape[2:]) != geometry.shape or values.shape[1] < 1:
        slices, rows, columns = geometry.shape
        raise ShapeError("the labels", values, f"(slice, frame, y, x) = ({slices}, n >= 1, {rows}, {columns})")
    _write(path, _as_labels(values, "the label array"), geometry, rr_s)


def _load(path: Path) -> tuple[Any, np.ndarray]:
    """Open, check the declared size against the file, and only then read."""
    try:
        loaded = nib.load(path)
        if not isinstance(loaded, nib.Nifti1Image):
            raise ImageFileError("another format")
        image: Any = loaded
        shape, stored = image.shape, image.get_data_dtype()
        _check_shape(path, shape)
        if stored.kind not in "iufc":
            raise InputError(f"{path.name} stores {stored}", expected="real or complex numbers, no colours")
        size, declared = path.stat().st_size, int(np.prod(shape, dtype=object)) * stored.itemsize
        if declared > size * (MAX_COMPRESSION if path.suffix == ".gz" else 1):
            raise InputError(
                f"{path.name} declares {declared} bytes of {shape} but is {size} bytes long",
                expected="as much data as its header says",
                hint="The file is truncated or its header damaged; copy it again",
            )
        # Scale factors are applied in single precision, which is what a cine holds.
        complex_ = stored.kind == "c"
        return image, np.asarray(image.dataobj if complex_ else image.get_fdata(dtype=np.float32, caching="unchanged"))
    except (ImageFileError, HeaderDataError) as error:
        raise InputError(
            f"{path.name} is not a NIfTI file ({one_line(error)})", expected="a 4D .nii or .nii.gz file"
        ) from error
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise InputError(
            f"{path.name} is damaged or truncated ({one_line(error)})",
            expected="a complete NIfTI file",
            hint="Copy it again from its source",
        ) from error


def _check_shape(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) == 3:
        raise InputError(
            f"{path.name} has 3 axes {shape}", expected=_AXES, hint="Stack the phases of the heartbeat as fourth axis"
        )
    if len(shape) != 4 or min(shape) < 1:
        raise InputError(f"{path.name} has shape {shape}", expected=f"{_AXES}, none of them empty")


def _as_labels(values: np.ndarray, name: str) -> np.ndarray:
    labels = values.astype(np.uint8) if values.dtype.kind in "biuf" and np.isfinite(values).all() else None
    if labels is None or not np.array_equal(labels, values):
        raise InputError(f"{name} holds values that are no labels", expected="whole numbers from 0 to 255")
    return labels


def _write(path: str | os.PathLike[str], data: np.ndarray, geometry: Geometry, rr_s: float) -> None:
    path = Path(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{path.name} does not end like a NIfTI file", expected="a name ending in .nii or .nii.gz")
    if max(data.shape) > np.iinfo(np.int16).max:
        raise ShapeError("the array to write", data, "at most 32767 along each axis, as NIfTI-1 allows")
    nifti: Any = nib.Nifti1Image  # its methods carry no types
    image = nifti(data.transpose(3, 2, 0, 1), np.array(geometry.affine))
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = rr_s / data.shape[1]
    image.set_sform(np.array(geometry.affine), code="scanner")
    with written_beside(path) as temporary:
        nib.save(image, temporary)
