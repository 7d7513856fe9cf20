from __future__ import annotations

import gzip
import warnings

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kspace.errors import InputError
from kspace.formats.nifti import read_cine, read_labels, write_cine, write_labels
from kspace.scan import Cine, Geometry

SIZES = st.tuples(*(st.integers(1, 7),) * 4)


def save(path, data, *, units=("mm", "sec"), step=0.04):
    image = nib.Nifti1Image(data, np.diag([2.0, 3.0, 4.0, 1.0]))
    image.header.set_xyzt_units(*units)
    image.header["pixdim"][4] = step
    nib.save(image, path)
    return path


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES, st.booleans(), st.sampled_from(["nii", "nii.gz"]), st.floats(0.2, 3.0))
def test_round_trip_keeps_images_affine_and_rr(tmp_path, shape, is_complex, suffix, rr_s):
    images = torch.randn(shape, dtype=torch.complex64 if is_complex else torch.float32)
    affine = np.array([[1.5, 0.1, 0, -3], [0, -1.25, 0.2, 4], [0.3, 0, 8, 5], [0, 0, 0, 1]])
    cine = Cine(images, Geometry((shape[0], *shape[2:]), affine), rr_s)
    write_cine(tmp_path / f"cine.{suffix}", cine)
    back = read_cine(tmp_path / f"cine.{suffix}")
    assert torch.equal(back.images, images)
    np.testing.assert_allclose(back.geometry.affine, affine, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(back.rr_s, cine.rr_s, rtol=1e-6)
    assert back.source == "NIfTI"


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SIZES)
def test_labels_round_trip(tmp_path, shape):
    labels = torch.randint(0, 4, shape, dtype=torch.uint8)
    write_labels(tmp_path / "l.nii.gz", labels, Geometry((shape[0], *shape[2:])), 0.8)
    assert torch.equal(read_labels(tmp_path / "l.nii.gz"), labels)
    assert nib.load(tmp_path / "l.nii.gz").get_data_dtype() == np.uint8


def test_axes_are_column_row_slice_phase(tmp_path):
    cine = read_cine(save(tmp_path / "a.nii", np.arange(120.0, dtype=np.float32).reshape(2, 3, 4, 5)))
    assert cine.images.shape == (4, 5, 3, 2)
    assert cine.images[3, 2, 1, 0] == np.arange(120.0).reshape(2, 3, 4, 5)[0, 1, 3, 2]
    assert cine.geometry.spacing_mm == (4.0, 3.0, 2.0)


@pytest.mark.parametrize(
    ("units", "step", "rr_s"),
    [
        (("mm", "sec"), 0.2, 1.0),
        (("mm", "msec"), 160.0, 0.8),
        (("mm", "usec"), 150_000.0, 0.75),
        (("mm", "unknown"), 0.16, None),
        (("mm", "sec"), 0.0, None),
        (("mm", "sec"), 40.0, None),
    ],
)
def test_rr_is_taken_where_the_unit_makes_sense_and_said_to_be_assumed_elsewhere(tmp_path, units, step, rr_s):
    cine = read_cine(save(tmp_path / "a.nii", np.ones((2, 2, 1, 5), np.float32), units=units, step=step))
    assert cine.slice_rr_s(0) == pytest.approx(rr_s or 1.0)
    assert ("assumed" in cine.source) == (rr_s is None)


def test_metres_become_millimetres(tmp_path):
    cine = read_cine(save(tmp_path / "a.nii", np.ones((2, 2, 1, 5), np.float32), units=("meter", "sec")))
    assert cine.geometry.spacing_mm == (4000.0, 3000.0, 2000.0)


def test_scale_factors_are_applied(tmp_path):
    image = nib.Nifti1Image(np.full((2, 2, 1, 3), 3, np.int16), np.eye(4))
    image.header.set_slope_inter(2.0, 10.0)
    nib.save(image, tmp_path / "a.nii")
    cine = read_cine(tmp_path / "a.nii")
    assert cine.images.dtype == torch.float32
    assert (cine.images == 2 * 3 + 10).all()


def test_three_axes_are_refused_with_a_hint(tmp_path, refused):
    with refused("3 axes", "(column, row, slice, phase)", "Stack"):
        read_cine(save(tmp_path / "a.nii", np.ones((2, 2, 3), np.float32)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_refused(tmp_path, refused, bad):
    data = np.ones((2, 2, 1, 3), np.float32)
    data[0, 0, 0, 1] = bad
    with refused("1 value(s)", "NaN"):
        read_cine(save(tmp_path / "a.nii", data))


def test_empty_is_refused(tmp_path, refused):
    with refused("empty"):
        read_cine(save(tmp_path / "a.nii", np.ones((2, 0, 1, 3), np.float32)))


def test_colour_is_refused(tmp_path, refused):
    data = np.zeros((2, 2, 1, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "a.nii")
    with refused("no colours"):
        read_cine(tmp_path / "a.nii")


def test_missing_and_foreign_files_are_refused(tmp_path, refused):
    with refused("does not exist"):
        read_cine(tmp_path / "a.nii")
    (tmp_path / "a.nii").write_text("no image at all")
    with refused("a.nii"):
        read_cine(tmp_path / "a.nii")
    (tmp_path / "a.txt").write_text("no image at all")
    with refused("not a NIfTI"):
        read_cine(tmp_path / "a.txt")


@pytest.mark.parametrize("kept", [0, 5, 200, -10])
def test_truncated_gzip_is_refused(tmp_path, refused, kept):
    rng = np.random.default_rng(0)
    save(tmp_path / "a.nii.gz", rng.normal(size=(9, 9, 2, 5)).astype(np.float32))
    whole = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(whole[:kept])
    with refused("a.nii.gz"):
        read_cine(tmp_path / "a.nii.gz")


def test_header_that_declares_more_than_the_file_holds_is_refused_before_allocation(tmp_path, refused):
    save(tmp_path / "a.nii", np.ones((2, 2, 1, 3), np.float32))
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[42:50] = np.array([30000] * 4, "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    with refused("declares"):
        read_cine(tmp_path / "a.nii")
    with gzip.open(tmp_path / "a.nii.gz", "wb") as stream:
        stream.write(raw)
    with refused("declares"):
        read_cine(tmp_path / "a.nii.gz")


def test_random_damage_of_the_header_gives_an_input_error_or_a_cine(tmp_path):
    raw = np.frombuffer(save(tmp_path / "a.nii", np.ones((5, 4, 2, 3), np.float32)).read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    refusals = []
    for _ in range(300):
        bad = raw.copy()
        bad[rng.integers(0, 352, 4)] = rng.integers(0, 256, 4)
        (tmp_path / "a.nii").write_bytes(bad.tobytes())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert read_cine(tmp_path / "a.nii").images.ndim == 4
            except InputError as error:
                refusals.append(str(error))
    assert len(refusals) > 20
    assert not any("\n" in message for message in refusals)


def test_singular_affine_is_refused(tmp_path, refused):
    image = nib.Nifti1Image(np.ones((2, 2, 1, 3), np.float32), np.eye(4))
    image.header["srow_x"] = 0
    nib.save(image, tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[280:296] = bytes(16)
    (tmp_path / "a.nii").write_bytes(raw)
    with refused("affine"):
        read_cine(tmp_path / "a.nii")


def test_labels_that_are_none_are_refused(tmp_path, refused, left):
    geometry = Geometry((1, 2, 2))
    for bad in (0.5, -1, 256, np.nan):
        with refused("0 to 255"):
            write_labels(tmp_path / "l.nii", np.full((1, 3, 2, 2), bad), geometry)
    with refused("(1, 3, 2, 4)"):
        write_labels(tmp_path / "l.nii", np.zeros((1, 3, 2, 4)), geometry)
    assert left() == []
    with refused("0 to 255"):
        read_labels(save(tmp_path / "a.nii", np.full((2, 2, 1, 3), 0.25, np.float32)))


def test_other_suffix_and_missing_folder_are_refused(tmp_path, refused):
    cine = Cine(torch.ones(1, 2, 3, 3), Geometry((1, 3, 3)))
    with refused(".nii or .nii.gz"):
        write_cine(tmp_path / "a.png", cine)
    with refused("does not exist"):
        write_cine(tmp_path / "no" / "a.nii", cine)


@pytest.mark.real
def test_real_cine_survives_the_round_trip(tmp_path, hearts):
    path = hearts / "sunnybrook" / "SC-HF-I-4" / "cine.nii.gz"
    cine = read_cine(path)
    assert cine.images.shape == (10, 20, 256, 256)
    assert cine.slice_rr_s(0) == pytest.approx(0.923, abs=1e-3)
    write_cine(tmp_path / "a.nii", cine)
    back = read_cine(tmp_path / "a.nii")
    assert torch.equal(back.images, cine.images)
    np.testing.assert_allclose(back.geometry.affine, cine.geometry.affine, atol=1e-5)
    labels = read_labels(path.with_name("labels.nii.gz"))
    assert cine.images[labels == 1].mean() > 1.5 * cine.images[labels == 2].mean()
