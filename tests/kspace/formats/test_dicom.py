from __future__ import annotations

import time
import warnings

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    MRImageStorage,
    generate_uid,
)

from kspace.errors import InputError
from kspace.formats.dicom import read_cine_folder
from kspace.formats.nifti import read_labels

ROW, COLUMN = np.array([0.6, 0.8, 0.0]), np.array([0.0, 0.0, -1.0])
NORMAL = np.cross(ROW, COLUMN)
SERIES = generate_uid(entropy_srcs=["series"])


def image(depth=0.0, phase=0, **changes):
    """One file of a cine: slice at ``depth`` mm along the normal; any attribute can be changed, None removes it."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = changes.pop("syntax", ExplicitVRLittleEndian)
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    values = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "PatientName": "Heart^Jane",
        "PatientID": "12345",
        "SeriesInstanceUID": SERIES,
        "SeriesNumber": 7,
        "SeriesDescription": "short axis",
        "InstanceNumber": phase + 1,
        "Rows": 3,
        "Columns": 4,
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
        "ImageOrientationPatient": [*ROW, *COLUMN],
        "ImagePositionPatient": [round(float(v), 6) for v in np.array([1.0, 2.0, 3.0]) + depth * NORMAL],
        "PixelData": (np.arange(12, dtype="<u2") + 100 * phase + int(10 * depth) + 1000).tobytes(),
    }
    for key, value in {**values, **changes}.items():
        if value is not None:
            setattr(data, key, value)
    return data


def folder(path, images):
    path.mkdir(exist_ok=True)
    for index, data in enumerate(images):
        data.save_as(path / f"{(index * 7919) % 1009:04d}.bin", enforce_file_format=True)
    return path


def grid(slices=3, phases=4, **changes):
    return [image(8.0 * s, p, **changes) for s in range(slices) for p in range(phases)]


def test_slices_descend_along_the_normal_and_phases_ascend_in_trigger_time(tmp_path):
    cine = read_cine_folder(folder(tmp_path / "d", grid()))
    assert cine.images.shape == (3, 4, 3, 4)
    for s in range(3):
        for p in range(4):
            depth = 8.0 * (2 - s)
            torch.testing.assert_close(
                cine.images[s, p], torch.arange(12.0).reshape(3, 4) + 100 * p + int(10 * depth) + 1000
            )
    assert cine.rr_s == (0.8, 0.8, 0.8)
    assert cine.geometry.slice_thickness_mm == 6


def test_affine_takes_indices_to_ras(tmp_path):
    affine = read_cine_folder(folder(tmp_path / "d", grid())).geometry.affine
    got = affine @ np.array([3, 2, 1, 1.0])
    lps = np.array([1.0, 2.0, 3.0]) + 3 * 2.0 * ROW + 2 * 1.5 * COLUMN + 8.0 * NORMAL
    np.testing.assert_allclose(got[:3], lps * [-1, -1, 1], atol=1e-5)


def test_nothing_names_the_patient(tmp_path):
    cine = read_cine_folder(folder(tmp_path / "d", grid()))
    assert cine.source == "DICOM"
    assert not any(name in repr(cine) for name in ("Jane", "12345"))


def test_instance_numbers_order_phases_without_trigger_times(tmp_path):
    for changes in ({"TriggerTime": None}, {"TriggerTime": 0.0}):
        cine = read_cine_folder(folder(tmp_path / "d", grid(**changes)[::-1]))
        assert torch.equal(cine.images[0, :, 0, 0].diff(), torch.full((3,), 100.0))


@pytest.mark.parametrize(
    ("changes", "rr_s"),
    [
        ({"NominalInterval": None, "HeartRate": 75}, 0.8),
        ({"NominalInterval": 0, "HeartRate": 60}, 1.0),
        ({"NominalInterval": None}, 0.16),
        ({"NominalInterval": None, "TriggerTime": None}, None),
    ],
)
def test_rr_falls_back_step_by_step(tmp_path, changes, rr_s):
    rr_s = None if rr_s is not None and rr_s < 0.2 else rr_s
    cine = read_cine_folder(folder(tmp_path / "d", grid(**changes)))
    assert cine.slice_rr_s(0) == pytest.approx(rr_s or 1.0)
    assert ("assumed" in cine.source) == (rr_s is None)


def test_rr_from_the_last_trigger_and_one_step(tmp_path):
    images = [image(0.0, p, NominalInterval=None, TriggerTime=200.0 * p) for p in range(4)]
    assert read_cine_folder(folder(tmp_path / "d", images)).slice_rr_s(0) == pytest.approx(0.8)


def test_rescaling_is_applied(tmp_path):
    cine = read_cine_folder(folder(tmp_path / "d", [image(RescaleSlope=0.5, RescaleIntercept=-3)]))
    assert cine.images[0, 0, 0, 1] == 1001 * 0.5 - 3


def test_one_slice_takes_its_distance_from_the_header(tmp_path):
    assert read_cine_folder(folder(tmp_path / "d", [image()])).geometry.spacing_mm == pytest.approx((6, 1.5, 2.0))
    cine = read_cine_folder(folder(tmp_path / "d", [image(SpacingBetweenSlices=9)]))
    assert cine.geometry.spacing_mm[0] == pytest.approx(9)


def test_what_is_no_dicom_image_is_passed_over(tmp_path):
    path = folder(tmp_path / "d", grid())
    (path / "sub").mkdir()
    (path / "notes.txt").write_text("not an image")
    (path / ".hidden").write_bytes((path / "0000.bin").read_bytes())
    (path / "DICOMDIR").write_bytes(b"rubbish")
    directory = image(Rows=None)
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.save_as(path / "index", enforce_file_format=True)
    image(Rows=None, Columns=None, PixelData=None, SeriesInstanceUID="1.2.3").save_as(path / "report")
    (path / "0000.bin").rename(path / "sub" / "one.dcm")
    assert read_cine_folder(path).images.shape == (3, 4, 3, 4)


def test_folder_without_dicom_is_refused(tmp_path, refused):
    with refused("no folder"):
        read_cine_folder(tmp_path / "none")
    (tmp_path / "a.txt").write_text("nothing")
    with refused("no DICOM image among 1 file(s)"):
        read_cine_folder(tmp_path)


def test_several_series_are_listed_and_one_can_be_selected(tmp_path, refused):
    other = generate_uid()
    extra = {"SeriesInstanceUID": other, "SeriesNumber": 8, "SeriesDescription": "long axis"}
    path = folder(tmp_path / "d", grid() + grid(slices=1, phases=2, **extra))
    with refused(SERIES, other, "number 7", "number 8", "'long axis'", "12 image(s)", "2 image(s)", "series="):
        read_cine_folder(path)
    for series in (8, "8", other):
        assert read_cine_folder(path, series=series).images.shape == (1, 2, 3, 4)
    with refused("no series 9", "number 7"):
        read_cine_folder(path, series=9)


@pytest.mark.parametrize(
    ("images", "fragment"),
    [
        (grid()[:-1], "slice 0 has 3"),
        ([*grid(), image(8.0, 2)], "both show slice 1 at trigger time 80 ms"),
        ([*grid(TriggerTime=None), image(8.0, 2, TriggerTime=None)], "both show slice 1 at instance number 3"),
        ([*grid()[:-1], image(16.0, 3, ImageOrientationPatient=[1, 0, 0, 0, 1, 0])], "not parallel"),
        ([*grid()[:-1], image(16.0, 3, Rows=4, Columns=3)], "images of one size"),
        ([*grid()[:-1], image(16.0, 3, PixelSpacing=[1.5, 2.1])], "one pixel spacing"),
        ([image(d, p) for d in (0, 8, 20) for p in range(2)], "not evenly spaced: 12, 8 mm"),
        ([*grid()[:-1], image(16.0, 3, ImagePositionPatient=[30 + 16 * NORMAL[0], 2, 3])], "slice"),
        ([image(PhotometricInterpretation="RGB", SamplesPerPixel=3)], "colour"),
        ([image(PhotometricInterpretation="PALETTE COLOR")], "colour"),
        ([image(NumberOfFrames=20)], "20 frames"),
        ([image(Rows=0)], "0 x 4"),
        ([image(Rows=65535, Columns=65535)], "65535 x 65535"),
        ([image(Rows=300)], "holds 24 bytes of pixels; expected 2400 bytes"),
        ([image(BitsAllocated=0)], "expected"),
        ([image(PixelData=None)], "holds 0 bytes"),
        ([image(PixelSpacing=None)], "PixelSpacing"),
        ([image(PixelSpacing=[0, 1])], "two positive numbers"),
        ([image(ImagePositionPatient=None)], "ImagePositionPatient"),
        ([image(ImageOrientationPatient=None)], "ImageOrientationPatient"),
        ([image(ImageOrientationPatient=[1, 0, 0, 1, 0, 0])], "no pair of axes"),
        ([image(syntax=DeflatedExplicitVRLittleEndian)], "deflated"),
    ],
)
def test_bad_stack_is_refused(tmp_path, refused, images, fragment):
    with refused(fragment):
        read_cine_folder(folder(tmp_path / "d", images))


def test_compressed_pixels_that_cannot_be_decoded_are_refused(tmp_path, refused):
    data = image(syntax=JPEG2000Lossless, PixelData=None)
    data.PixelData = pydicom.encaps.encapsulate([b"\xff\x4f rubbish"])
    data["PixelData"].VR = "OB"
    with refused("JPEG 2000", "decoder"):
        read_cine_folder(folder(tmp_path / "d", [data]))


@pytest.mark.parametrize("kept", [140, 300, -5, -24])
def test_truncated_file_is_refused(tmp_path, refused, kept):
    path = folder(tmp_path / "d", [image()]) / "0000.bin"
    path.write_bytes(path.read_bytes()[:kept])
    with refused():
        read_cine_folder(path.parent)


def test_random_damage_gives_an_input_error_or_an_image(tmp_path, monkeypatch):
    monkeypatch.setattr(pydicom.config.logger, "disabled", True)
    path = folder(tmp_path / "d", [image()]) / "0000.bin"
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refusals = []
    for _ in range(150):
        bad = raw.copy()
        bad[rng.integers(132, len(raw), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(bad.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_cine_folder(path.parent).images.ndim == 4
            except InputError as error:
                refusals.append(str(error))
    assert len(refusals) > 20
    assert not any("\n" in message for message in refusals)


@pytest.mark.real
def test_real_folder_is_read_quickly_and_agrees_with_its_labels(hearts):
    heart = hearts / "sunnybrook" / "SC-HF-I-1"
    start = time.process_time()
    cine = read_cine_folder(heart / "dicom")
    assert time.process_time() - start < 5
    assert cine.images.shape == (12, 20, 256, 256)
    assert cine.slice_rr_s(0) == 0.75
    assert cine.geometry.spacing_mm == pytest.approx((10, 1.367188, 1.367188), abs=1e-4)
    labels = read_labels(heart / "labels.nii.gz")
    # Blood is bright: in the right order the cavity outshines the muscle by more than in any other.
    contrast = {
        name: float(images[labels == 1].mean() / images[labels == 2].mean())
        for name, images in (
            ("as read", cine.images),
            ("slices reversed", cine.images.flip(0)),
            ("phases reversed", cine.images.flip(1)),
            ("transposed", cine.images.transpose(2, 3)),
            ("columns reversed", cine.images.flip(3)),
        )
    }
    assert contrast["as read"] > 2.5
    assert max(contrast, key=lambda name: contrast[name]) == "as read"
