from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import InputError
from kspace.scan import Geometry
from simulate.coils import loop_field, loop_sensitivities, noise_covariance

MU0 = 4e-7 * np.pi


@pytest.mark.parametrize("normal", [(0, 0, 1), (1, 0, 0), (1, -2, 3)])
@pytest.mark.parametrize("radius_mm", [30.0, 65.0])
def test_field_on_the_axis_is_the_closed_formula(normal, radius_mm):
    axis = np.array(normal) / np.linalg.norm(normal)
    centre = np.array([5.0, -3.0, 11.0])
    z = np.array([-200.0, -40.0, 0.0, 10.0, 65.0, 300.0])
    field = loop_field(centre + z[:, None] * axis, centre, np.array(normal), radius_mm)
    expected = MU0 / 2 * (radius_mm * 1e-3) ** 2 / ((radius_mm * 1e-3) ** 2 + (z * 1e-3) ** 2) ** 1.5
    np.testing.assert_allclose(field, expected[:, None] * axis, rtol=1e-9, atol=1e-15)


def test_field_far_away_is_a_dipole():
    point = np.array([900.0, 400.0, 1200.0])
    field = loop_field(point, np.zeros(3), np.array([0.0, 0.0, 1.0]), 20.0)
    r = point * 1e-3
    distance = np.linalg.norm(r)
    moment = np.array([0.0, 0.0, np.pi * 0.02**2])
    dipole = MU0 / (4 * np.pi) * (3 * r * (moment @ r) / distance**5 - moment / distance**3)
    np.testing.assert_allclose(field, dipole, rtol=2e-3)


def test_field_has_no_sources():
    point, h = np.array([25.0, -10.0, 40.0]), 0.05
    sides = np.stack([point + sign * h * np.eye(3)[axis] for axis in range(3) for sign in (1, -1)])
    field = loop_field(sides, np.zeros(3), np.array([0.3, 0.2, 1.0]), 65.0, segments=400)
    divergence = sum(field[2 * axis, axis] - field[2 * axis + 1, axis] for axis in range(3))
    assert abs(divergence) < 1e-6 * np.abs(field).max()


@settings(deadline=None, max_examples=15)
@given(
    n_coils=st.integers(1, 12),
    shape=st.tuples(st.integers(1, 3), st.integers(4, 40), st.integers(4, 40)),
    seed=st.integers(0, 1000),
)
def test_maps_have_unit_root_sum_of_squares(n_coils, shape, seed):
    maps = loop_sensitivities(Geometry.from_spacing(shape, (8.0, 5.0, 6.0)), n_coils, seed=seed)
    assert maps.shape == (shape[0], n_coils, *shape[1:])
    assert maps.dtype == torch.complex64
    torch.testing.assert_close(maps.abs().square().sum(1), torch.ones(shape), rtol=1e-4, atol=1e-4)


def test_maps_are_those_of_the_place_not_of_the_matrix():
    fine = Geometry.from_spacing((1, 96, 80), (8.0, 3.0, 3.0))
    coarse = fine.with_matrix(48, 40)
    one, other = (loop_sensitivities(geometry, 6, seed=3) for geometry in (fine, coarse))
    # The pixel at N // 2 keeps its place, and every second fine pixel falls on a coarse one.
    difference = one[..., ::2, ::2] - other
    assert float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(other)) < 5e-3


def test_every_coil_sees_a_side_of_its_own():
    maps = loop_sensitivities(Geometry.from_spacing((1, 64, 64), (8.0, 5.0, 5.0)), 8).abs()[0]
    assert len({tuple(divmod(int(m.argmax()), 64)) for m in maps}) == 8
    assert float(maps[0].max() / maps[0].min()) > 5


def test_same_seed_same_coils():
    geometry = Geometry.from_spacing((1, 20, 20), (8.0, 8.0, 8.0))
    assert torch.equal(loop_sensitivities(geometry, 4, seed=5), loop_sensitivities(geometry, 4, seed=5))
    assert not torch.equal(loop_sensitivities(geometry, 4, seed=5), loop_sensitivities(geometry, 4, seed=6))
    assert torch.equal(noise_covariance(4, seed=5), noise_covariance(4, seed=5))
    assert not torch.equal(noise_covariance(4, seed=5), noise_covariance(4, seed=6))


@settings(deadline=None)
@given(n_coils=st.integers(1, 32), correlation=st.floats(0, 0.9), seed=st.integers(0, 1000))
def test_covariance_is_hermitian_positive_definite_with_mean_diagonal_one(n_coils, correlation, seed):
    covariance = noise_covariance(n_coils, correlation=correlation, seed=seed).to(torch.complex128)
    assert covariance.shape == (n_coils, n_coils)
    torch.testing.assert_close(covariance, covariance.mH)
    assert float(torch.linalg.eigvalsh(covariance).min()) > 0
    assert float(covariance.diagonal().real.mean()) == pytest.approx(1, abs=1e-6)


def test_nearest_coils_share_the_correlation_asked_for():
    covariance = noise_covariance(8, correlation=0.3)
    scale = covariance.diagonal().real.sqrt()
    correlation = (covariance / scale[:, None] / scale).abs() - torch.eye(8)
    assert float(correlation.max()) == pytest.approx(0.3, abs=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: noise_covariance(0),
        lambda: noise_covariance(2, correlation=1.0),
        lambda: noise_covariance(2, correlation=float("nan")),
        lambda: loop_sensitivities(Geometry((1, 8, 8)), 0),
        lambda: loop_sensitivities(Geometry((1, 8, 8)), 2, torso_mm=(0.0, 10.0)),
        lambda: loop_sensitivities(Geometry((1, 8, 8)), 2, radius_mm=float("inf")),
    ],
)
def test_what_cannot_be_placed_is_refused(make):
    with pytest.raises(InputError, match="expected"):
        make()
