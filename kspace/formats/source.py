"""Open whatever a source is: a DICOM folder, a NIfTI cine or radial raw data."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path

from kspace.errors import InputError
from kspace.formats.files import existing_file
from kspace.scan import Cine, RadialScan

_KINDS = "a folder of DICOM files, a 4D NIfTI file or a radial ISMRMRD file"
_HDF5 = b"\x89HDF\r\n\x1a\n"


def open_source(
    path: str | os.PathLike[str], *, series: int | str | None = None, dataset: str = "dataset"
) -> Cine | RadialScan:
    """Read images or raw data, whichever the path holds; the content decides, not the suffix.

    Parameters
    ----------
    path
        A folder of DICOM files, a NIfTI file (``.nii``, ``.nii.gz``) or an ISMRMRD file.
    series
        Series number or UID, where a DICOM folder holds several.
    dataset
        Name of the group in an ISMRMRD file.

    Returns
    -------
        A :class:`Cine` from images, a :class:`RadialScan` from raw data.

    Raises
    ------
    InputError
        When the path is none of these, or its reader refuses it.
    """
    # The readers are imported where they are needed: together they cost more than a second.
    path = Path(path)
    if path.is_dir():
        from kspace.formats.dicom import read_cine_folder

        return read_cine_folder(path, series=series)
    kind = _kind(existing_file(path, _KINDS))
    if kind == "mrd":
        from kspace.formats.mrd import read_scan

        return read_scan(path, dataset)
    if kind == "nifti":
        from kspace.formats.nifti import read_cine

        return read_cine(path)
    hint = "Give the folder that holds it, not one of its files" if kind == "dicom" else ""
    what = "is one DICOM file" if kind == "dicom" else "is of no known format"
    raise InputError(f"{path.name} {what}", expected=_KINDS, hint=hint)


def _kind(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(352)
    if start.startswith(_HDF5):
        return "mrd"
    if start[128:132] == b"DICM":
        return "dicom"
    if start.startswith(b"\x1f\x8b"):
        try:
            with gzip.open(path, "rb") as stream:
                start = stream.read(352)
        except (OSError, EOFError, zlib.error):
            # A damaged .nii.gz gets its message from the NIfTI reader.
            return "nifti" if path.name.endswith(".nii.gz") else ""
    if start[344:347] in (b"n+1", b"ni1") or start[4:7] == b"n+2" or path.name.endswith((".nii", ".nii.gz")):
        return "nifti"
    return ""
