"""What a cine needs of one DICOM file: a few header fields and the pixels, both checked before use."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from kspace.errors import InputError
from kspace.formats.files import one_line

_MAX_FILES = 50_000
_MAX_SIDE = 8192
_TAGS = [
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "InstanceNumber",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SliceThickness",
    "TriggerTime",
    "NominalInterval",
    "HeartRate",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "RescaleSlope",
    "RescaleIntercept",
]


@dataclass(frozen=True)
class Header:
    """The header fields of one image; lengths in mm, times in ms, directions and positions in DICOM's LPS axes."""

    path: Path
    series_uid: str
    series_number: int | None
    description: str
    instance: int
    rows: int
    columns: int
    spacing_mm: tuple[float, float]
    orientation: np.ndarray
    position: np.ndarray
    slope: float
    intercept: float
    trigger_ms: float | None
    nominal_interval_ms: float | None
    heart_rate: float | None
    thickness_mm: float | None
    slice_distance_mm: float | None

    @property
    def name(self) -> str:
        """File name, for messages."""
        return self.path.name

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector, row direction x column direction."""
        return np.asarray(np.cross(self.orientation[0], self.orientation[1]))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence pydicom's remark on UIDs with leading zeros, which anonymised hearts (Sunnybrook) are full of."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Invalid value for VR UI", category=UserWarning)
        yield


def read_headers(folder: Path) -> list[Header]:
    """Read the headers of all images in a folder and its subfolders, sorted by path.

    Raises
    ------
    InputError
        When there is no folder, no image in it, or an image that cannot be used.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder", expected="a folder of DICOM files", hint="Check the path")
    headers, seen = [], 0
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            seen += 1
            if seen > _MAX_FILES:
                raise InputError(f"{folder} holds more than {_MAX_FILES} files", expected="the folder of one cine")
            if name.startswith(".") or name.upper() == "DICOMDIR":
                continue
            header = _read_header(Path(root) / name)
            if header is not None:
                headers.append(header)
    if not headers:
        raise InputError(
            f"{folder} holds no DICOM image among {seen} file(s)",
            expected="a folder of DICOM files, one image a file",
            hint="Check the path",
        )
    return headers


def read_pixels(header: Header) -> np.ndarray:
    """Read the image of one file as (row, column), float32, rescaled.

    Raises
    ------
    InputError
        When there are fewer pixels than declared, or they are compressed in a way that nothing installed can decode.
    """
    name = header.name
    syntax, compressed = "", False
    try:
        data = pydicom.dcmread(header.path)
        syntax, compressed = one_line(data.file_meta.TransferSyntaxUID.name), _is_compressed(data)
        stored = len(data.get("PixelData") or b"")
        declared = header.rows * header.columns * int(data.get("BitsAllocated", 0)) // 8
        if not compressed and (stored < declared or stored == 0):
            raise InputError(
                f"{name} holds {stored} bytes of pixels", expected=f"{declared} bytes", hint="Copy the file again"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # padding behind the pixels does no harm
            pixels = data.pixel_array
    except InputError:
        raise
    except Exception as error:  # decoders and pydicom raise whatever they like on damaged files
        if compressed:
            raise InputError(
                f"the pixels of {name} are compressed ({syntax}) and could not be decoded",
                expected="uncompressed pixels, or an installed decoder and undamaged data",
                hint="Install pylibjpeg with its plugins, or decompress the files (dcmdjpeg, gdcmconv --raw)",
            ) from error
        raise _damaged(name, error) from error
    if pixels.shape != (header.rows, header.columns):
        raise InputError(f"{name} decodes to shape {pixels.shape}", expected=f"({header.rows}, {header.columns})")
    return np.asarray(pixels.astype(np.float32) * np.float32(header.slope) + np.float32(header.intercept))


def _is_compressed(data: Any) -> bool:
    syntax = data.file_meta.TransferSyntaxUID
    return bool(syntax.is_transfer_syntax and syntax.is_compressed)


def _read_header(path: Path) -> Header | None:
    """Return the header of an image, None for a file that is no DICOM image."""
    try:
        with path.open("rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                return None
    except OSError as error:
        raise InputError(f"{path} cannot be read", expected="a readable file", hint="Check permissions") from error
    try:
        meta = read_file_meta_info(path)
        if meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage:
            return None
        if meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
            # Inflating a whole file of unknown size is no risk to take for a format that scanners do not write.
            raise InputError(f"{path.name} is a deflated file", expected="DICOM that is not deflated as a whole")
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
        return _header(path, data) if "Rows" in data or "NumberOfFrames" in data else None
    except InputError:
        raise
    except (struct.error, ValueError, TypeError, AttributeError, KeyError, EOFError, OSError, NotImplementedError) as e:
        raise _damaged(path.name, e) from e
    except (pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException, RecursionError) as e:
        raise _damaged(path.name, e) from e


def _header(path: Path, data: Any) -> Header:
    name = path.name
    if int(data.get("NumberOfFrames") or 1) > 1:
        raise InputError(
            f"{name} holds {int(data.NumberOfFrames)} frames",
            expected="one image a file",
            hint="Convert enhanced DICOM to classic, or to 4D NIfTI",
        )
    rows, columns = int(data.Rows), int(data.get("Columns") or 0)
    if not (0 < rows <= _MAX_SIDE and 0 < columns <= _MAX_SIDE):
        raise InputError(f"{name} declares {rows} x {columns} pixels", expected=f"1 to {_MAX_SIDE} along each axis")
    photometric = str(data.get("PhotometricInterpretation", "MONOCHROME2"))
    if int(data.get("SamplesPerPixel") or 1) != 1 or photometric != "MONOCHROME2":
        raise InputError(f"{name} is a colour image ({one_line(photometric)})", expected="grey values (MONOCHROME2)")
    orientation = _numbers(data, "ImageOrientationPatient", 6, name).reshape(2, 3)
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-2):
        raise InputError(f"{name} has an image orientation that is no pair of axes", expected="orthogonal unit vectors")
    spacing = _numbers(data, "PixelSpacing", 2, name)
    if spacing.min() <= 0:
        raise InputError(f"{name} has a pixel spacing of {spacing.tolist()} mm", expected="two positive numbers")
    slope, intercept = _number(data, "RescaleSlope"), _number(data, "RescaleIntercept")
    number = data.get("SeriesNumber")
    return Header(
        path=path,
        series_uid=one_line(data.get("SeriesInstanceUID") or "unknown", 64),
        series_number=None if number in (None, "") else int(number),
        description=one_line(data.get("SeriesDescription") or "", 64),
        instance=int(data.get("InstanceNumber") or 0),
        rows=rows,
        columns=columns,
        spacing_mm=(float(spacing[0]), float(spacing[1])),
        orientation=orientation,
        position=_numbers(data, "ImagePositionPatient", 3, name),
        slope=slope or 1.0,
        intercept=intercept or 0.0,
        trigger_ms=_number(data, "TriggerTime"),
        nominal_interval_ms=_number(data, "NominalInterval"),
        heart_rate=_positive(data, "HeartRate"),
        thickness_mm=_positive(data, "SliceThickness"),
        slice_distance_mm=_positive(data, "SpacingBetweenSlices"),
    )


def _numbers(data: Any, tag: str, count: int, name: str) -> np.ndarray:
    value = data.get(tag)
    if value is None or isinstance(value, str | bytes) or len(value) != count:
        raise InputError(f"{name} has no usable {tag}", expected=f"{count} numbers", hint="It is no image of a stack")
    numbers = np.array([float(v) for v in value])
    if not np.isfinite(numbers).all():
        raise InputError(f"{name} has {tag} {numbers.tolist()}", expected=f"{count} finite numbers")
    return numbers


def _number(data: Any, tag: str) -> float | None:
    value = data.get(tag)
    if value in (None, ""):
        return None
    number = float(value)
    return number if np.isfinite(number) else None


def _positive(data: Any, tag: str) -> float | None:
    number = _number(data, tag)
    return number if number is not None and number > 0 else None


def _damaged(name: str, error: Exception) -> InputError:
    return InputError(
        f"{name} is damaged or truncated ({one_line(error) or type(error).__name__})",
        expected="a complete DICOM file",
        hint="Copy it again from its source",
    )
