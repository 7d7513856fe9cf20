from __future__ import annotations

from dataclasses import replace

import h5py
import ismrmrd
import ismrmrd.xsd
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kspace.formats.mrd import ScanWriter, read_scan, write_scan
from kspace.scan import Geometry, RadialScan


def assert_same(got, wanted):
    assert torch.equal(got.samples, wanted.samples)
    assert (got.positions - wanted.positions).abs().max() <= 1e-7
    assert (got.time_s - wanted.time_s).abs().max() <= 1e-5
    torch.testing.assert_close(got.ecg_s, wanted.ecg_s, rtol=0, atol=2e-5)
    assert torch.equal(got.slices, wanted.slices)
    assert got.geometry.shape == wanted.geometry.shape
    np.testing.assert_allclose(got.geometry.affine, wanted.geometry.affine, atol=1e-4)
    assert got.geometry.slice_thickness_mm == wanted.geometry.slice_thickness_mm
    assert got.source == wanted.source
    for name in ("frame", "noise_covariance"):
        assert (getattr(got, name) is None) == (getattr(wanted, name) is None)
    if wanted.frame is not None:
        assert torch.equal(got.frame, wanted.frame)
    if wanted.noise_covariance is not None:
        scale = wanted.noise_covariance.abs().max()
        assert (got.noise_covariance - wanted.noise_covariance).abs().max() <= 1e-5 * scale


def test_everything_survives(tmp_path, scan, left):
    write_scan(tmp_path / "a.h5", scan, tr_s=2.8e-3, te_s=1.4e-3, dwell_s=4e-6)
    assert_same(read_scan(tmp_path / "a.h5"), scan)
    assert left() == ["a.h5"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(1, 6), st.integers(1, 5), st.integers(3, 9), st.tuples(*(st.integers(1, 9),) * 3), st.booleans(),
    st.sampled_from([None, "zero", "vary"]), st.booleans(),
)  # fmt: skip
def test_odd_shapes_survive(tmp_path, n, coils, readout, shape, has_noise, frames, has_ecg):
    generator = torch.Generator().manual_seed(n + 10 * coils)
    angle = torch.rand(n, generator=generator) * 6.2
    radius = torch.linspace(-0.5, 0.5, readout)
    root = torch.randn(coils, 1, dtype=torch.complex64, generator=generator)  # rank 1 on purpose
    scan = RadialScan(
        torch.randn(n, coils, readout, dtype=torch.complex64, generator=generator),
        torch.stack([torch.sin(angle)[:, None] * radius, torch.cos(angle)[:, None] * radius], -1),
        torch.arange(n, dtype=torch.float64) * 3e-3,
        Geometry.from_spacing(shape, (8.0, 1.5, 1.25)),
        slice_index=torch.arange(n) % shape[0],
        ecg_s=torch.tensor([0.0, 5.0], dtype=torch.float64) if has_ecg else torch.zeros(0, dtype=torch.float64),
        frame={None: None, "zero": torch.zeros(n).long(), "vary": torch.arange(n)}[frames],
        noise_covariance=root @ root.conj().T if has_noise else None,
    )
    write_scan(tmp_path / "a.h5", scan, tr_s=3e-3)
    got = read_scan(tmp_path / "a.h5")
    if n == 1:  # the one time stamp is 0
        got = replace(got, source="ISMRMRD")
    assert_same(got, replace(scan, source="ISMRMRD"))


def test_ismrmrd_reads_the_same_readout_by_readout(tmp_path, scan):
    write_scan(tmp_path / "a.h5", scan, tr_s=2.8e-3)
    with ismrmrd.Dataset(tmp_path / "a.h5", mode="r") as data:
        header = ismrmrd.xsd.CreateFromDocument(data.read_xml_header())
        readouts = [data.read_acquisition(i) for i in range(data.number_of_acquisitions())]
    assert header.sequenceParameters.TR == [2.8]
    assert header.encoding[0].trajectory is ismrmrd.xsd.trajectoryType.RADIAL
    noise = [a for a in readouts if a.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    spokes = [a for a in readouts if not a.is_flag_set(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)]
    assert len(noise) == 1
    assert len(spokes) == scan.n_spokes
    got = read_scan(tmp_path / "a.h5")
    assert torch.equal(torch.from_numpy(np.stack([a.data for a in spokes])), got.samples)
    assert torch.equal(torch.from_numpy(np.stack([a.traj for a in spokes])[..., ::-1].copy()), got.positions)
    assert [a.idx.slice for a in spokes] == got.slices.tolist()
    assert [a.idx.kspace_encode_step_1 for a in spokes] == [*range(10), *range(11)]
    assert [a.scan_counter for a in readouts] == list(range(len(readouts)))
    assert all(a.isChannelActive(c) == (c < scan.n_coils) for a in readouts for c in range(1024))
    np.testing.assert_allclose([a.acquisition_time_stamp * 1e-5 for a in spokes], scan.time_s, atol=1e-5)
    since = np.array([a.physiology_time_stamp[0] for a in spokes]) * 1e-5
    np.testing.assert_allclose(since[0], 0.123456 - 0.1, atol=2e-5)


def test_position_is_the_origin_of_the_transform_in_patient_axes(tmp_path, scan):
    write_scan(tmp_path / "a.h5", scan)
    with ismrmrd.Dataset(tmp_path / "a.h5", mode="r") as data:
        last = data.read_acquisition(data.number_of_acquisitions() - 1)
    centre = scan.geometry.affine @ np.array([13, 10, 1, 1.0])
    np.testing.assert_allclose(last.position, centre[:3] * [-1, -1, 1], atol=1e-4)
    np.testing.assert_allclose(last.phase_dir, [0, 1, 0], atol=1e-6)


def test_r_waves_come_back_from_physiology_stamps_alone(tmp_path, scan):
    n = 1000
    long = replace(
        scan,
        samples=torch.ones(n, 1, 34, dtype=torch.complex64),
        positions=scan.positions[:1].expand(n, -1, -1),
        time_s=torch.arange(n, dtype=torch.float64) * 2.8e-3,
        slice_index=None,
        ecg_s=torch.tensor([0.25, 1.11, 1.93], dtype=torch.float64),
        noise_covariance=None,
    )
    write_scan(tmp_path / "a.h5", long)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["dataset/xml"][0] = file["dataset/xml"][0].replace(b"r_wave_s", b"other")
    torch.testing.assert_close(read_scan(tmp_path / "a.h5").ecg_s, long.ecg_s, rtol=0, atol=2e-5)


def test_batches_add_up_to_the_scan(tmp_path, scan):
    with ScanWriter(tmp_path / "a.h5") as writer:
        for start in range(0, scan.n_spokes, 4):
            writer.append(scan.select(slice(start, start + 4)))
            assert not (tmp_path / "a.h5").exists()
        assert writer.n_spokes == scan.n_spokes
    assert_same(read_scan(tmp_path / "a.h5"), scan)
    write_scan(tmp_path / "b.h5", scan)
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert (a["dataset/data"].fields("head")[()] == b["dataset/data"].fields("head")[()]).all()
        assert a["dataset/xml"][0] == b["dataset/xml"][0]


def leave(path, batches, error, *, close=False):
    with ScanWriter(path) as writer:
        for batch in batches:
            writer.append(batch)
        if close:
            writer.close()
        raise error


def test_interrupt_keeps_what_was_appended(tmp_path, scan, left):
    with pytest.raises(KeyboardInterrupt):
        leave(tmp_path / "a.h5", [scan.select(slice(0, 5))], KeyboardInterrupt)
    assert torch.equal(read_scan(tmp_path / "a.h5").samples, scan.samples[:5])
    with pytest.raises(KeyboardInterrupt):
        leave(tmp_path / "b.h5", [], KeyboardInterrupt)
    assert left() == ["a.h5"]


def test_interrupt_within_a_batch_keeps_whole_batches(tmp_path, scan, monkeypatch):
    store = ScanWriter._store

    def interrupted(self, *args):
        store(self, *args)
        if self.n_spokes:
            raise KeyboardInterrupt

    monkeypatch.setattr(ScanWriter, "_store", interrupted)
    with pytest.raises(KeyboardInterrupt):
        leave(tmp_path / "a.h5", [scan.select(slice(0, 5)), scan.select(slice(5, 9))], AssertionError)
    assert torch.equal(read_scan(tmp_path / "a.h5").samples, scan.samples[:5])


def test_error_discards_unless_closed_before(tmp_path, scan, left):
    with pytest.raises(ZeroDivisionError):
        leave(tmp_path / "a.h5", [scan], ZeroDivisionError)
    assert left() == []
    with pytest.raises(ZeroDivisionError):
        leave(tmp_path / "a.h5", [scan], ZeroDivisionError, close=True)
    assert_same(read_scan(tmp_path / "a.h5"), scan)


def test_closing_twice_is_harmless_and_appending_after_is_refused(tmp_path, scan, refused):
    writer = ScanWriter(tmp_path / "a.h5")
    writer.append(scan)
    writer.close()
    writer.close()
    with refused("is closed"):
        writer.append(scan)


def test_nothing_to_write_is_refused(tmp_path, scan, refused, left):
    with refused("no spokes"):
        write_scan(tmp_path / "a.h5", scan.select(slice(0, 0)))
    with refused("does not exist"):
        ScanWriter(tmp_path / "no" / "a.h5")
    assert left() == []


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda s: replace(s, samples=s.samples[:, :2], noise_covariance=None), "2 coils x 34"),
        (lambda s: replace(s, geometry=Geometry((2, 21, 26), s.geometry.affine)), "(2, 21, 26)"),
        (lambda s: replace(s, geometry=Geometry((2, 20, 26))), "elsewhere"),
        (lambda s: replace(s, frame=s.slices), "only some batches have frames"),
        (lambda s: replace(s, time_s=s.time_s - 1), "0 to 42950 s"),
        (lambda s: replace(s, time_s=s.time_s + 50_000), "0 to 42950 s"),
        (lambda s: replace(s, frame=s.slices + 70_000), "65535"),
    ],
)
def test_batch_that_does_not_fit_is_refused(tmp_path, scan, refused, change, fragment):
    writer = ScanWriter(tmp_path / "a.h5")
    writer.append(scan)
    with refused(fragment):
        writer.append(change(scan))
    writer.close()
    assert_same(read_scan(tmp_path / "a.h5"), scan)


@pytest.mark.parametrize("bad", [torch.tensor([[1, 0, 0], [1, 1, 0], [0, 0, 1]]), -torch.eye(3)])
def test_noise_covariance_that_is_none_is_refused(tmp_path, scan, refused, bad, left):
    with refused("Hermitian"):
        write_scan(tmp_path / "a.h5", replace(scan, noise_covariance=bad.to(torch.complex64)))
    assert left() == []
