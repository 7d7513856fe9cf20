from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kspace.formats.cfl import (
    bart_samples,
    bart_trajectory,
    positions_from_bart,
    read_cfl,
    samples_from_bart,
    write_cfl,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6))
def test_round_trip_is_exact(tmp_path, left, shape):
    rng = np.random.default_rng(0)
    array = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)
    write_cfl(tmp_path / "a", array)
    for name in ("a", "a.cfl", "a.hdr"):
        back = read_cfl(tmp_path / name)
        assert back.dtype == np.complex64
        assert back.flags.f_contiguous
        np.testing.assert_array_equal(back, array)
    assert left() == ["a.cfl", "a.hdr"]


def test_dots_in_a_stem_are_kept(tmp_path, left):
    write_cfl(tmp_path / "a.b", torch.ones(2))
    assert left() == ["a.b.cfl", "a.b.hdr"]
    assert read_cfl(tmp_path / "a.b").shape == (2,)


@pytest.mark.parametrize(
    ("header", "fragment"),
    [
        ("", "0 dimension(s)"),
        ("# Dimensions\n", "0 dimension(s)"),
        ("# Dimensions\n" + "1 " * 17, "17 dimension(s)"),
        ("# Dimensions\n2 x 1\n", "'x'"),
        ("# Dimensions\n-2 -3\n", "'-2'"),
        ("# Dimensions\n2 0\n", "'0'"),
        ("# Dimensions\n2.5\n", "'2.5'"),
        ("# Dimensions\n999999999999999999999\n", "'999"),
        ("# Dimensions\n" + "999999999999 " * 16, "bytes"),
        ("# Dimensions\n7 1\n", "48 bytes"),
        ("# Dimensions\n²\n", "expected"),
    ],
)
def test_bad_header_is_refused(tmp_path, refused, header, fragment):
    write_cfl(tmp_path / "a", np.ones((2, 3)))
    (tmp_path / "a.hdr").write_text(header)
    with refused(fragment):
        read_cfl(tmp_path / "a")


def test_missing_half_is_refused(tmp_path, refused):
    with refused("does not exist"):
        read_cfl(tmp_path / "a")
    write_cfl(tmp_path / "a", np.ones(3))
    (tmp_path / "a.cfl").unlink()
    with refused("a.cfl does not exist"):
        read_cfl(tmp_path / "a")


@pytest.mark.parametrize("array", [np.ones(()), np.ones((2, 0)), np.ones((1,) * 17)])
def test_array_that_does_not_fit_is_refused(tmp_path, refused, array):
    with refused("1 to 16 axes"):
        write_cfl(tmp_path / "a", array)


def test_conversions_invert_each_other():
    positions = torch.rand(5, 8, 2) - 0.5
    trajectory = bart_trajectory(positions, (20, 26))
    assert trajectory.shape == (3, 8, 5)
    np.testing.assert_allclose(trajectory[0, 3, 2].real, 26 * float(positions[2, 3, 1]), rtol=1e-6)
    torch.testing.assert_close(positions_from_bart(trajectory, (20, 26)), positions)
    samples = torch.randn(5, 3, 8, dtype=torch.complex64)
    assert torch.equal(samples_from_bart(bart_samples(samples)[..., None, None]), samples)
    assert torch.equal(samples_from_bart(bart_samples(samples)[..., 0]), samples[:, :1])


def test_wrong_shapes_are_refused(refused):
    with refused("(spoke, readout, 2)"):
        bart_trajectory(torch.zeros(3, 4, 3), (8, 8))
    with refused("(3, readout, spoke)"):
        positions_from_bart(np.zeros((2, 4, 3)), (8, 8))
    with refused("kz = 0"):
        positions_from_bart(np.ones((3, 4, 3)), (8, 8))
    with refused("(spoke, coil, readout)"):
        bart_samples(torch.zeros(3, 4))
    with refused("(1, readout, spoke, coil)"):
        samples_from_bart(np.zeros((2, 4, 3)))


@pytest.mark.skipif(shutil.which("bart") is None, reason="BART is not installed")
@pytest.mark.parametrize("matrix", [(20, 26), (24, 16)])
def test_bart_computes_the_same_transform(tmp_path, matrix):
    rows, columns = matrix
    rng = np.random.default_rng(0)
    image = rng.normal(size=matrix) + 1j * rng.normal(size=matrix)
    angle, radius = np.arange(7) * 1.94, (np.arange(52) - 26) / 52 * 0.9
    positions = np.stack([np.sin(angle)[:, None] * radius, np.cos(angle)[:, None] * radius], -1)
    y, x = np.arange(rows) - rows // 2, np.arange(columns) - columns // 2
    phase = positions[..., 0, None, None] * y[:, None] + positions[..., 1, None, None] * x
    exact = (np.exp(-2j * np.pi * phase) * image).sum((-1, -2)) / np.sqrt(rows * columns)
    write_cfl(tmp_path / "traj", bart_trajectory(torch.from_numpy(positions), matrix))
    write_cfl(tmp_path / "image", image.T[..., None])
    subprocess.run(["bart", "nufft", "traj", "image", "samples"], cwd=tmp_path, check=True, capture_output=True)
    got = samples_from_bart(read_cfl(tmp_path / "samples")).numpy()[:, 0]
    assert np.linalg.norm(got - exact) < 3e-3 * np.linalg.norm(exact)
