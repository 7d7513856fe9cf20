from __future__ import annotations

import gzip

import pytest
import torch

from kspace.formats.mrd import write_scan
from kspace.formats.nifti import write_cine
from kspace.formats.source import open_source
from kspace.scan import Cine, Geometry, RadialScan


@pytest.mark.parametrize("name", ["a.h5", "a.mrd", "a.hdf5", "a"])
def test_raw_data_are_known_by_their_content(tmp_path, scan, name):
    write_scan(tmp_path / name, scan)
    assert isinstance(open_source(tmp_path / name), RadialScan)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_images_are_known_by_their_content(tmp_path, name):
    write_cine(tmp_path / name, Cine(torch.ones(1, 2, 3, 3), Geometry((1, 3, 3))))
    assert isinstance(open_source(tmp_path / name), Cine)


def test_what_is_nothing_is_refused(tmp_path, refused):
    with refused("does not exist"):
        open_source(tmp_path / "a")
    with refused("no DICOM image"):
        open_source(tmp_path)
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with refused("no known format", "ISMRMRD"):
        open_source(tmp_path / "a.png")
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"text"))
    with refused("no known format"):
        open_source(tmp_path / "a.gz")
    (tmp_path / "a.nii.gz").write_bytes(b"\x1f\x8b\x08 damaged")
    with refused("a.nii.gz"):
        open_source(tmp_path / "a.nii.gz")


def test_one_dicom_file_asks_for_its_folder(tmp_path, refused):
    (tmp_path / "1.dcm").write_bytes(bytes(128) + b"DICM" + bytes(300))
    with refused("Give the folder"):
        open_source(tmp_path / "1.dcm")


@pytest.mark.real
def test_real_folder_opens(hearts):
    assert isinstance(open_source(hearts / "sunnybrook" / "SC-HF-I-1" / "dicom"), Cine)
