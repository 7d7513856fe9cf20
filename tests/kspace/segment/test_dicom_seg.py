from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from kspace.errors import InputError, ShapeError
from kspace.segment import dicom_seg
from kspace.segment.dicom_seg import write_dicom_seg
from kspace.segment.segmentation import Structure

pytest.importorskip("highdicom", reason="highdicom, of the extra dicomseg, is not installed")

SERIES = generate_uid(entropy_srcs=["images"])


def images(folder: Path, *, slices: int = 3, phases: int = 2, **changes: object) -> Path:
    """A cine in DICOM, as a folder; any attribute can be changed, None removes it."""
    folder.mkdir()
    for index in range(slices):
        for phase in range(phases):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = MRImageStorage
            meta.MediaStorageSOPInstanceUID = generate_uid()
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
            values = {
                "SOPClassUID": MRImageStorage,
                "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
                "StudyInstanceUID": generate_uid(entropy_srcs=["study"]),
                "SeriesInstanceUID": SERIES,
                "FrameOfReferenceUID": generate_uid(entropy_srcs=["space"]),
                "Modality": "MR",
                "PatientName": "Heart^Jane",
                "PatientID": "12345",
                "PatientBirthDate": "19600229",
                "PatientSex": "F",
                "AccessionNumber": "",
                "StudyID": "1",
                "StudyDate": "20200101",
                "StudyTime": "120000",
                "SeriesNumber": 7,
                "InstanceNumber": phase + 1,
                "Rows": 8,
                "Columns": 10,
                "BitsAllocated": 16,
                "BitsStored": 16,
                "HighBit": 15,
                "PixelRepresentation": 0,
                "SamplesPerPixel": 1,
                "PhotometricInterpretation": "MONOCHROME2",
                "PixelSpacing": [1.5, 2.0],
                "SliceThickness": 6,
                "TriggerTime": 40.0 * phase,
                "NominalInterval": 800,
                "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
                "ImagePositionPatient": [0.0, 0.0, -8.0 * index],
                "PixelData": np.zeros(80, dtype="<u2").tobytes(),
            }
            for key, value in {**values, **changes}.items():
                if value is not None:
                    setattr(data, key, value() if callable(value) else value)
            data.save_as(folder / f"{index}-{phase}.dcm", enforce_file_format=True)
    return folder


def labels(slices: int = 3, phases: int = 2) -> torch.Tensor:
    drawn = torch.zeros(slices, phases, 8, 10, dtype=torch.uint8)
    for phase in range(phases):
        drawn[1, phase, 1:6, 2:7] = Structure.MYOCARDIUM
        drawn[1, phase, 2 : 5 - phase, 3:6] = Structure.LV
        drawn[0, phase, 3:5, 7:9] = Structure.RV
    return drawn


def test_every_phase_is_read_back_where_it_was_drawn(tmp_path: Path) -> None:
    from highdicom.seg import segread

    source, drawn = images(tmp_path / "in"), labels()
    written = write_dicom_seg(tmp_path / "out", drawn, source)
    assert [path.name for path in written] == ["phase-01.dcm", "phase-02.dcm"]
    found = [segread(path) for path in written]
    assert len({one.SeriesInstanceUID for one in found}) == 1
    assert len({one.SOPInstanceUID for one in found}) == 2
    for phase, one in enumerate(found):
        assert one.PatientName == "Heart^Jane"
        assert one.StudyInstanceUID == dcmread(source / "0-0.dcm").StudyInstanceUID
        uids = [dcmread(source / f"{index}-{phase}.dcm").SOPInstanceUID for index in range(3)]
        pixels = one.get_pixels_by_source_instance(
            uids, combine_segments=True, assert_missing_frames_are_empty=True, skip_overlap_checks=True
        )
        np.testing.assert_array_equal(pixels, drawn[:, phase].numpy())
    assert [one.SegmentLabel for one in found[0].SegmentSequence] == ["LV cavity", "Myocardium", "RV cavity"]


def test_the_same_labels_get_the_same_uids(tmp_path: Path) -> None:
    source = images(tmp_path / "in")
    first, again, other = (
        dcmread(write_dicom_seg(tmp_path / name, drawn, source)[0]).SOPInstanceUID
        for name, drawn in (("a", labels()), ("b", labels()), ("c", labels().flip(-1)))
    )
    assert first == again != other


def test_a_phase_without_labels_has_no_object(tmp_path: Path) -> None:
    drawn = labels()
    drawn[:, 0] = 0
    written = write_dicom_seg(tmp_path / "out", drawn, images(tmp_path / "in"))
    assert [path.name for path in written] == ["phase-02.dcm"]


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_what_anonymising_leaves_behind_is_no_obstacle(tmp_path: Path) -> None:
    gone = dict.fromkeys(("StudyID", "AccessionNumber", "PatientSex"))
    odd = {"PatientBirthDate": "00000000", "StudyDate": "20120000", "FrameOfReferenceUID": generate_uid}
    source = images(tmp_path / "in", **gone, **odd)
    assert len(write_dicom_seg(tmp_path / "out", labels(), source)) == 2
    assert dcmread(tmp_path / "out" / "phase-01.dcm").PatientBirthDate in ("", None)


def test_images_without_a_space_get_one(tmp_path: Path) -> None:
    source = images(tmp_path / "in", FrameOfReferenceUID=None)
    found = [dcmread(path) for path in write_dicom_seg(tmp_path / "out", labels(), source)]
    assert found[0].FrameOfReferenceUID == found[1].FrameOfReferenceUID


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = images(tmp_path / "in")
    with pytest.raises(ShapeError, match="the labels"):
        write_dicom_seg(tmp_path / "out", labels(phases=3), source)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        write_dicom_seg(tmp_path / "file" / "out", labels(), source)


def test_without_highdicom_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(dicom_seg, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed; expected the extra dicomseg.*spokewise\[dicomseg\]"):
        write_dicom_seg(tmp_path, labels(), tmp_path)
