from __future__ import annotations

import h5py
import ismrmrd
import ismrmrd.xsd
import numpy as np
import pytest
import torch
from ismrmrd.hdf5 import acquisition_dtype

from kspace.formats.mrd import read_scan, write_scan
from kspace.formats.mrd.header import parse_header
from kspace.formats.source import open_source

N, COILS, READOUT, MATRIX = 12, 2, 32, 24


def header(**changes):
    """A vendor's header: no extra parameters, readout oversampled by two."""
    space = ismrmrd.xsd.encodingSpaceType
    size, fov = ismrmrd.xsd.matrixSizeType, ismrmrd.xsd.fieldOfViewMm
    values = {
        "encoded": (MATRIX, MATRIX, 240.0, 240.0),
        "recon": (MATRIX, MATRIX, 240.0, 240.0),
        "tr_ms": [3.0],
        "slices": 1,
        "doubles": {},
        **changes,
    }
    spaces = [
        space(matrixSize=size(x=a[0], y=a[1], z=1), fieldOfView_mm=fov(x=a[2], y=a[3], z=8.0))
        for a in (values["encoded"], values["recon"])
    ]
    limits = ismrmrd.xsd.encodingLimitsType(slice=ismrmrd.xsd.limitType(maximum=values["slices"] - 1))
    return ismrmrd.xsd.ToXML(
        ismrmrd.xsd.ismrmrdHeader(
            subjectInformation=ismrmrd.xsd.subjectInformationType(patientName="Heart^Jane"),
            experimentalConditions=ismrmrd.xsd.experimentalConditionsType(H1resonanceFrequency_Hz=63_870_000),
            encoding=[
                ismrmrd.xsd.encodingType(
                    encodedSpace=spaces[0],
                    reconSpace=spaces[1],
                    encodingLimits=limits,
                    trajectory=ismrmrd.xsd.trajectoryType.GOLDENANGLE,
                )
            ],
            sequenceParameters=ismrmrd.xsd.sequenceParametersType(TR=values["tr_ms"]),
            userParameters=ismrmrd.xsd.userParametersType(
                userParameterDouble=[
                    ismrmrd.xsd.userParameterDoubleType(name=n, value=v) for n, v in values["doubles"].items()
                ]
            ),
        )
    ).encode()


def spokes(n=N, readout=READOUT):
    """(spoke, readout, 2), order (kx, ky), cycles per pixel."""
    angle, radius = np.arange(n) * 1.9416, (np.arange(readout) - readout // 2) / readout
    return np.stack([np.cos(angle)[:, None] * radius, np.sin(angle)[:, None] * radius], -1).astype(np.float32)


def readout(index=0, traj=None, *, samples=READOUT, coils=COILS, flag=None, **fields):
    traj = spokes(index + 1)[index] if traj is None else np.asarray(traj, np.float32)
    dims = traj.shape[-1] if traj.size else 0
    acq = ismrmrd.Acquisition()
    acq.resize(samples, coils, dims)
    rng = np.random.default_rng(index)
    acq.data[:] = rng.normal(size=(coils, samples)) + 1j * rng.normal(size=(coils, samples))
    if dims:
        acq.traj[:] = traj
    acq.scan_counter = index
    for name, value in fields.items():
        target = acq.idx if hasattr(acq.idx, name) else acq
        if isinstance(value, tuple):
            getattr(target, name)[: len(value)] = value
        else:
            setattr(target, name, value)
    if flag is not None:
        acq.set_flag(flag)
    return acq


def save(path, readouts, xml=None, dataset="dataset"):
    with ismrmrd.Dataset(path, dataset, mode="w") as data:
        if xml != b"":
            data.write_xml_header(header() if xml is None else xml)
        for acq in readouts:
            data.append_acquisition(acq)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.h5"


def test_vendor_file_is_read(path):
    acqs = [readout(i) for i in range(N)]
    scan = read_scan(save(path, acqs))
    assert torch.equal(scan.samples, torch.from_numpy(np.stack([a.data for a in acqs])))
    np.testing.assert_array_equal(scan.positions, spokes()[..., ::-1])
    assert scan.matrix == (MATRIX, MATRIX)
    assert scan.geometry.spacing_mm == (8.0, 10.0, 10.0)
    assert scan.geometry.slice_thickness_mm == 8.0
    assert scan.frame is None
    assert scan.noise_covariance is None
    assert scan.ecg_s.numel() == 0
    np.testing.assert_allclose(scan.time_s, np.arange(N) * 3e-3)
    assert scan.source == "ISMRMRD, instants from TR, 3 ms"
    assert "Jane" not in repr(scan)


def test_other_group_can_be_named(path, refused):
    save(path, [readout(0)], dataset="other")
    assert read_scan(path, "other").n_spokes == 1
    with refused("no 'dataset'", "'other'"):
        read_scan(path)


@pytest.mark.parametrize(
    "name",
    [
        "NOISE_MEASUREMENT",
        "NAVIGATION_DATA",
        "PHASECORR_DATA",
        "HPFEEDBACK_DATA",
        "RTFEEDBACK_DATA",
        "DUMMYSCAN_DATA",
        "SURFACECOILCORRECTIONSCAN_DATA",
        "PHASE_STABILIZATION_REFERENCE",
        "PHASE_STABILIZATION",
        "PARALLEL_CALIBRATION",
    ],
)
def test_readouts_that_are_no_image_are_left_out(path, name):
    flag = getattr(ismrmrd, f"ACQ_IS_{name}")
    extra = [readout(50 + i, np.zeros(0), samples=16, flag=flag) for i in range(2)]
    keep = [readout(i) for i in range(N)]
    scan = read_scan(save(path, [extra[0], *keep[:5], extra[1], *keep[5:]]))
    assert torch.equal(scan.samples, torch.from_numpy(np.stack([a.data for a in keep])))
    assert (scan.noise_covariance is not None) == (name == "NOISE_MEASUREMENT")


def test_noise_covariance_is_scaled_to_the_sampling_time(path):
    noise = [readout(50 + i, np.zeros(0), flag=ismrmrd.ACQ_IS_NOISE_MEASUREMENT) for i in range(8)]
    samples = np.concatenate([a.data for a in noise], axis=1)
    expected = samples @ samples.conj().T / samples.shape[1]
    for dwell, noise_dwell, scale in ((4.0, 10.0, 2.5), (0.0, 10.0, 1.0), (4.0, 0.0, 1.0)):
        for a in noise:
            a.sample_time_us = noise_dwell
        scan = read_scan(save(path, [*noise, readout(0, sample_time_us=dwell)]))
        np.testing.assert_allclose(scan.noise_covariance, expected * scale, rtol=1e-5)


def test_discarded_samples_are_cut_off(path):
    scan = read_scan(save(path, [readout(i, discard_pre=3, discard_post=2) for i in range(3)]))
    assert torch.equal(scan.samples[1], torch.from_numpy(readout(1).data[:, 3:-2]))
    np.testing.assert_array_equal(scan.positions, spokes(3)[:, 3:-2, ::-1])


def test_cycles_per_field_of_view_are_divided_by_the_encoded_matrix(path):
    traj = spokes(4) * MATRIX
    scan = read_scan(save(path, [readout(i, traj[i]) for i in range(4)]))
    np.testing.assert_allclose(scan.positions, spokes(4)[..., ::-1], atol=1e-7)


def test_oversampled_encoding_changes_nothing_and_coarser_pixels_scale(path, refused):
    acqs = [readout(i) for i in range(4)]
    save(path, acqs, header(encoded=(2 * MATRIX, MATRIX, 480.0, 240.0)))
    np.testing.assert_allclose(read_scan(path).positions, spokes(4)[..., ::-1], atol=1e-7)
    save(path, acqs, header(recon=(2 * MATRIX, 2 * MATRIX, 240.0, 240.0)))
    scan = read_scan(path)
    assert scan.matrix == (2 * MATRIX, 2 * MATRIX)
    np.testing.assert_allclose(scan.positions, spokes(4)[..., ::-1] / 2, atol=1e-7)
    save(path, acqs, header(recon=(MATRIX // 2, MATRIX // 2, 240.0, 240.0)))
    with refused("reconSpace"):
        read_scan(path)


@pytest.mark.parametrize("factor", [1.2, 2 * np.pi, 3 * MATRIX])
def test_unknown_unit_is_refused(path, refused, factor):
    encoded = (144, 144, 240.0, 240.0) if factor < 10 else (MATRIX, MATRIX, 240.0, 240.0)
    traj = spokes(4) * factor
    with refused("cycles per pixel", "Check the unit"):
        read_scan(save(path, [readout(i, traj[i]) for i in range(4)], header(encoded=encoded, recon=encoded)))


def test_third_dimension_has_to_be_zero(path, refused):
    flat = np.concatenate([spokes(4), np.zeros((4, READOUT, 1), np.float32)], -1)
    scan = read_scan(save(path, [readout(i, flat[i]) for i in range(4)]))
    np.testing.assert_array_equal(scan.positions, spokes(4)[..., ::-1])
    flat[2, :, 2] = 0.1
    with refused("leaves the plane"):
        read_scan(save(path, [readout(i, flat[i]) for i in range(4)]))


def test_gradient_delay_of_a_sample_is_tolerated(path):
    traj = spokes(4) + np.float32(1 / READOUT)
    assert read_scan(save(path, [readout(i, traj[i] * 0.9) for i in range(4)])).n_spokes == 4


def cartesian():
    kx = (np.arange(READOUT) - READOUT // 2) / READOUT
    return [np.stack([kx, np.full(READOUT, (y - 6) / 12)], -1) for y in range(12)]


def spiral():
    t = np.linspace(0, 1, READOUT)
    return [np.stack([0.5 * t * np.cos(20 * t + a), 0.5 * t * np.sin(20 * t + a)], -1) for a in range(4)]


@pytest.mark.parametrize(
    ("traj", "fragment"),
    [
        (cartesian(), "passes k = 0"),
        (spiral(), "is bent"),
        ([np.zeros((READOUT, 2))] * 3, "ends where it starts"),
        ([np.linspace([0.15, 0], [0.5, 0], READOUT)] * 2, "passes k = 0"),
    ],
)
def test_what_is_not_radial_is_refused(path, refused, traj, fragment):
    with refused(fragment, "Only two-dimensional radial"):
        read_scan(save(path, [readout(i, k) for i, k in enumerate(traj)]))


def test_counters_fix_the_frame(path):
    scan = read_scan(save(path, [readout(i, phase=i // 4, repetition=i) for i in range(N)]))
    assert scan.frame.tolist() == [i // 4 for i in range(N)]
    scan = read_scan(save(path, [readout(i, phase=3, repetition=i // 6) for i in range(N)]))
    assert scan.frame.tolist() == [i // 6 for i in range(N)]
    assert read_scan(save(path, [readout(i, phase=3, repetition=2) for i in range(N)])).frame is None


def test_vendor_ticks_give_instants_and_r_waves(path):
    exact, waves = np.arange(250) * 2.8e-3, np.array([0.1, 0.5])
    since = exact - np.where(exact >= 0.5, 0.5, 0.1)
    ticks = [max(0, round(s / 2.5e-3)) for s in since]
    acqs = [
        readout(0, acquisition_time_stamp=40_000 + round(t / 2.5e-3), physiology_time_stamp=(k,))
        for t, k in zip(exact, ticks, strict=True)
    ]
    scan = read_scan(save(path, acqs))
    assert (scan.time_s.diff() >= 0).all()
    np.testing.assert_allclose(scan.time_s, exact, atol=3e-3)
    np.testing.assert_allclose(scan.ecg_s, waves, atol=3e-3)
    assert scan.source == "ISMRMRD"


def test_spokes_that_share_a_tick_are_spread_by_tr(path):
    acqs = [readout(i, acquisition_time_stamp=1 + i // 3) for i in range(6)]
    save(path, acqs, header(tr_ms=[2.0], doubles={"timestamp_tick_s": 0.01}))
    np.testing.assert_allclose(read_scan(path).time_s, [0.01, 0.012, 0.014, 0.02, 0.022, 0.024])


def test_spokes_out_of_time_are_sorted_within_their_slice(path):
    acqs = [readout(i, acquisition_time_stamp=100 - 10 * i, slice=i % 2) for i in range(4)]
    scan = read_scan(save(path, acqs))
    assert scan.slices.tolist() == [0, 1, 0, 1]
    assert torch.equal(scan.samples, torch.from_numpy(np.stack([acqs[i].data for i in (2, 3, 0, 1)])))


def test_directions_place_the_slices(path, refused):
    dirs = {"read_dir": (0, 1, 0), "phase_dir": (0, 0, 1), "slice_dir": (1, 0, 0)}
    acqs = [readout(i, slice=i, position=(5.0 + 9 * i, 2.0, 3.0), **dirs) for i in range(3)]
    affine = read_scan(save(path, acqs)).geometry.affine
    centre = affine @ np.array([MATRIX // 2, MATRIX // 2, 1, 1.0])
    np.testing.assert_allclose(centre[:3], [-14, -2, 3], atol=1e-5)
    np.testing.assert_allclose(affine[:3, :3], [[0, 0, -9], [-10, 0, 0], [0, 10, 0]], atol=1e-5)
    acqs[1].position[0] += 3
    with refused("not evenly spaced"):
        read_scan(save(path, acqs))
    flat = [readout(0, read_dir=(1, 0, 0), phase_dir=(1, 0, 0), slice_dir=(0, 0, 1))]
    with refused("affine"):
        read_scan(save(path, flat))


@pytest.mark.parametrize(
    ("readouts", "fragment"),
    [
        ([readout(0, np.zeros(0))], "trajectory of 0 dimensions", ),
        ([readout(0, spokes(1)[0][:, :1])], "trajectory of 1 dimensions"),
        ([readout(0), readout(1, spokes(2, 30)[1], samples=30)], "number_of_samples: 30, 32"),
        ([readout(0), readout(1, coils=3)], "active_channels: 2, 3"),
        ([readout(0), readout(1, discard_pre=1)], "discard_pre"),
        ([readout(0), readout(1, contrast=1)], "contrast"),
        ([readout(0), readout(1, kspace_encode_step_2=1)], "kspace_encode_step_2"),
        ([readout(0, discard_pre=20, discard_post=11)], "fewer than 2"),
        ([readout(0, encoding_space_ref=3)], "encoding 3"),
        ([readout(0, flag=ismrmrd.ACQ_IS_NAVIGATION_DATA)], "no imaging readouts"),
        ([readout(0), readout(1, coils=3, flag=ismrmrd.ACQ_IS_NOISE_MEASUREMENT)], "noise of the coils"),
    ],
)  # fmt: skip
def test_bad_readouts_are_refused(path, refused, readouts, fragment):
    with refused(fragment):
        read_scan(save(path, readouts))


@pytest.mark.parametrize("field", ["data", "traj"])
def test_nan_is_refused_with_the_number_of_the_readout(path, refused, field):
    acqs = [readout(i) for i in range(5)]
    getattr(acqs[3], field)[1, 1] = np.nan
    with refused("readout 3", "NaN"):
        read_scan(save(path, acqs))


@pytest.mark.parametrize(
    ("xml", "fragment"),
    [
        (b"", "no 'xml'"),
        (b" ", "empty"),
        (b"<ismrmrdHeader", "cannot be parsed"),
        (b"<other/>", "cannot be parsed"),
        (header().replace(b"<x>24</x>", b"<x>many</x>"), "cannot be parsed"),
        (header().replace(b"<x>24</x>", b"<x>0</x>"), "matrix of 0"),
        (header().replace(b"<x>24</x>", b"<x>99999999</x>"), "matrix of 99999999"),
        (header().replace(b"<x>240.0</x>", b"<x>nan</x>"), "field of view"),
        (header(slices=10**9), "1000000000 slices"),
        (b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>' + header(), "Do not trust"),
        (b'<!doctype x SYSTEM "file:///etc/passwd">' + header(), "Do not trust"),
        (header().decode().encode("utf-16"), "no text"),
    ],
)
def test_bad_header_is_refused(path, refused, xml, fragment):
    save(path, [readout(0)], b"x" if fragment == "empty" or b"\0" in xml else xml)
    if fragment == "empty" or b"\0" in xml:
        with h5py.File(path, "r+") as file:
            del file["dataset/xml"]
            file["dataset/xml"] = np.void(xml) if b"\0" in xml else np.bytes_(b"")
    with refused(fragment):
        read_scan(path)


def test_header_in_another_encoding_is_refused(refused):
    with refused("UTF-8"):
        parse_header(header().decode().encode("utf-16"), "a.h5")


def test_missing_foreign_and_truncated_files_are_refused(path, refused):
    with refused("does not exist"):
        read_scan(path)
    path.write_text("no HDF5")
    with refused("no HDF5 file"):
        read_scan(path)
    save(path, [readout(i) for i in range(200)])
    whole = path.read_bytes()
    for kept in (0, 8, 500, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:kept])
        with refused("a.h5"):
            read_scan(path)


def test_file_without_data_is_refused(path, refused):
    with refused("no 'data'"):
        read_scan(save(path, []))
    with h5py.File(path, "r+") as file:
        file["dataset"].create_dataset("data", (0,), dtype=acquisition_dtype)
    with refused("holds no readouts"):
        read_scan(path)
    with h5py.File(path, "w") as file:
        file["dataset"] = 3
    with refused("wrong kind"):
        read_scan(path)
    with h5py.File(path, "w") as file:
        file["dataset/xml"] = header()
        file["dataset/data"] = np.zeros(3)
    with refused("stored as"):
        read_scan(path)


def test_links_to_other_files_are_refused(path, refused, tmp_path):
    save(tmp_path / "secret.h5", [readout(0)])
    with h5py.File(path, "w") as file:
        file["dataset"] = h5py.ExternalLink("secret.h5", "/dataset")
    with refused("is a link"):
        read_scan(path)


def test_absurd_sizes_are_refused_before_allocation(path, refused):
    save(path, [readout(i) for i in range(3)])
    with h5py.File(path, "r+") as file:
        file["dataset/data"].resize(10**12, axis=0)
    with refused("declares 1000000000000 readouts"):
        read_scan(path)
    save(path, [readout(i) for i in range(3)])
    with h5py.File(path, "r+") as file:
        rows = file["dataset/data"][:]
        rows["head"]["number_of_samples"] = 65535
        rows["head"]["active_channels"] = 65535
        file["dataset/data"][:] = rows
    with refused("declares 3 readouts of 65535 x 65535"):
        read_scan(path)
    save(path, [readout(i) for i in range(3)])
    with h5py.File(path, "r+") as file:
        rows = file["dataset/data"][:]
        rows["head"]["number_of_samples"] = READOUT - 1
        file["dataset/data"][:] = rows
    with refused("readout 0", "128 numbers of samples; expected 124"):
        read_scan(path)


@pytest.mark.real
def test_real_heart_is_read_as_the_library_reads_it(hearts, tmp_path):
    path = hearts / "radial" / "perfusion_golden_angle.h5"
    scan = open_source(path)
    with ismrmrd.Dataset(path, mode="r") as data:
        acqs = [data.read_acquisition(i) for i in range(data.number_of_acquisitions())]
    assert torch.equal(scan.samples, torch.from_numpy(np.stack([a.data for a in acqs])))
    assert torch.equal(scan.positions, torch.from_numpy(np.stack([a.traj for a in acqs])[..., ::-1].copy()))
    assert scan.samples.shape == (210, 3, 288)
    assert scan.frame.tolist() == np.repeat(np.arange(7), 30).tolist()
    np.testing.assert_allclose(scan.time_s, np.arange(210) * 2.8e-3)
    assert scan.source == "ISMRMRD, instants from an assumed TR, 2.8 ms"
    write_scan(tmp_path / "a.h5", scan)
    again = read_scan(tmp_path / "a.h5")
    assert torch.equal(again.samples, scan.samples)
    assert torch.equal(again.frame, scan.frame)
