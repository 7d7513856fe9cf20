"""Labels as DICOM segmentation objects beside the images that they were drawn on, for PACS and DICOM viewers.

A segmentation object has one frame for each place in space, so a beating stack becomes one object for each phase, all
in one series of the images' study. They carry the patient's name and number as the images do: that is what ties them
together.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pydicom
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError
from kspace.formats.dicom import read_stack
from kspace.formats.files import written_beside
from kspace.segment.segmentation import Structure

_SERIES_NUMBER = 9100
_BLANKS = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


def require_highdicom() -> None:
    """Refuse to go on without highdicom.

    Raises
    ------
    InputError
        When it is not installed.
    """
    if find_spec("highdicom") is None:
        raise InputError(
            "DICOM segmentation objects are written by highdicom, which is not installed",
            expected="the extra dicomseg",
            hint="pip install 'spokewise[dicomseg]'",
        )


def write_dicom_seg(
    folder: str | os.PathLike[str],
    labels: Tensor,
    images: str | os.PathLike[str],
    *,
    series: int | str | None = None,
) -> list[Path]:
    """Write one segmentation object for each phase that has labels: ``phase-01.dcm`` and on.

    The same labels of the same images get the same UIDs.

    Parameters
    ----------
    folder
        Where they go; it is made if need be.
    labels
        (slice, frame, y, x) uint8, as :class:`~kspace.segment.segmentation.Structure`, on the grid of the images.
    images, series
        The folder of the images and their series, as for :func:`kspace.formats.dicom.read_cine_folder`.

    Returns
    -------
        The files.

    Raises
    ------
    ShapeError
        When the labels do not fit the images.
    InputError
        When highdicom is not installed, the images cannot be read, or the folder cannot be written.
    """
    require_highdicom()
    from highdicom.seg import Segmentation

    stack = read_stack(images, series=series)
    shape = (len(stack), len(stack[0]), stack[0][0].rows, stack[0][0].columns)
    if tuple(labels.shape) != shape:
        raise ShapeError("the labels", labels, f"(slice, frame, y, x) = {shape}")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror})", expected="a folder to write to") from error
    written = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on names, dates and UIDs of the source, which are what they are
        for frame in range(shape[1]):
            pixels = labels[:, frame].cpu().numpy()
            if not pixels.any():
                continue
            sources = [_source(slices[frame].path) for slices in stack]
            for source in sources[1:]:  # anonymising has been seen to give every image of a stack its own space
                source.FrameOfReferenceUID = sources[0].FrameOfReferenceUID
            made = Segmentation(
                source_images=sources,
                pixel_array=pixels,
                segmentation_type="BINARY",
                segment_descriptions=_segments(),
                series_instance_uid=_uid(labels, stack[0][0].series_uid),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=_uid(labels, stack[0][0].series_uid, frame),
                instance_number=frame + 1,
                manufacturer="Spokewise",
                manufacturer_model_name="spokewise",
                software_versions=version("spokewise"),
                device_serial_number="0",
                content_description=f"Cardiac phase {frame + 1} of {shape[1]}",
                content_label="CARDIAC_CINE",
                series_description="Spokewise cine segmentation",
            )
            path = folder / f"phase-{frame + 1:02d}.dcm"
            with written_beside(path) as temporary:
                made.save_as(temporary)
            written.append(path)
    return written


def _source(path: Path) -> Any:
    """Read the header of an image, with what is impossible or absent (anonymised files) left blank."""
    from pydicom.valuerep import DA, TM

    data = pydicom.dcmread(path, stop_before_pixels=True)
    for name in _BLANKS:
        value = data.get(name)
        try:
            (DA if name.endswith("Date") else TM if name.endswith("Time") else str)(value or "")
        except ValueError:
            value = None
        setattr(data, name, "" if value is None else value)
    if "FrameOfReferenceUID" not in data:
        data.FrameOfReferenceUID = _derived(str(data.get("SeriesInstanceUID", path.parent)), "space")
    return data


def _segments() -> list[Any]:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from pydicom.sr.codedict import codes

    algorithm = AlgorithmIdentificationSequence(
        name="spokewise segment", version=version("spokewise"), family=codes.cid7162.ArtificialIntelligence
    )
    kinds = {
        Structure.LV: ("LV cavity", codes.SCT.LeftVentricle),
        Structure.MYOCARDIUM: ("Myocardium", codes.SCT.LeftVentricleMyocardium),
        Structure.RV: ("RV cavity", codes.SCT.RightVentricle),
    }
    return [
        SegmentDescription(
            segment_number=int(structure),
            segment_label=name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=code,
            algorithm_type="AUTOMATIC",
            algorithm_identification=algorithm,
            tracking_uid=_derived(name),
            tracking_id=name,
        )
        for structure, (name, code) in kinds.items()
    ]


def _uid(labels: Tensor, series: str, frame: int | None = None) -> str:
    digest = hashlib.sha256(labels.to("cpu", torch.uint8).contiguous().numpy().tobytes()).hexdigest()
    return _derived(series, digest, "series" if frame is None else str(frame))


def _derived(*parts: str) -> str:
    return str(pydicom.uid.generate_uid(entropy_srcs=["spokewise", *parts]))
