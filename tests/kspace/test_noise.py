from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.coils import whiten
from kspace.errors import InputError
from kspace.noise import noise_std
from kspace.nufft import exact_transform
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions


def make_scan(samples: torch.Tensor, covariance: torch.Tensor | None = None) -> RadialScan:
    n_spokes, _, n_readout = samples.shape
    return RadialScan(
        samples=samples,
        positions=radial_positions(golden_angles(n_spokes), n_readout),
        time_s=torch.arange(n_spokes) * 0.003,
        geometry=Geometry((1, 64, 64)),
        noise_covariance=covariance,
    )


def test_a_whitened_scan_knows_its_noise(make_noise: Any) -> None:
    mixing = 1e-3 * make_noise(3, 3)
    scan = make_scan(make_noise(5, 3, 16), mixing @ mixing.mH)
    assert noise_std(whiten(scan)) == 1


def test_a_known_covariance_gives_the_mean_variance_of_the_channels(make_noise: Any) -> None:
    for dtype in (torch.float32, torch.complex64):
        scan = make_scan(make_noise(5, 2, 16), torch.diag(torch.tensor([4.0, 16.0])).to(dtype))
        assert noise_std(scan) == pytest.approx(math.sqrt(10))


@settings(deadline=None, max_examples=20)
@given(sigma=st.floats(1e-6, 1e6), outer=st.floats(0.01, 1), seed=st.integers(0, 1000))
def test_pure_noise_is_measured_to_a_few_per_cent(sigma: float, outer: float, seed: int, make_noise: Any) -> None:
    scan = make_scan(sigma * make_noise(100, 4, 64, seed=seed))
    # The median of n magnitudes has a relative standard deviation of 0.72 / sqrt(n), with 2 x 400 of them 2.5 %.
    assert noise_std(scan, outer=outer) == pytest.approx(sigma, rel=0.12)


def test_a_heart_in_the_middle_of_k_space_hardly_counts(make_noise: Any, make_heart: Any, make_maps: Any) -> None:
    positions = radial_positions(golden_angles(60), 128)
    images = make_heart(1, 64, 64) * make_maps(3, 64, 64)
    clean = exact_transform(images, positions.reshape(-1, 2)).reshape(3, 60, 128).transpose(0, 1)
    samples = clean.to(torch.complex64) + 0.5 * make_noise(60, 3, 128)
    assert float(clean.abs().max()) > 20
    assert 0.98 * 0.5 < noise_std(make_scan(samples)) < 1.1 * 0.5


@pytest.mark.parametrize("n_readout", [1, 2, 3, 7])
def test_the_shortest_readouts_work(n_readout: int, make_noise: Any) -> None:
    assert noise_std(make_scan(make_noise(1, 1, n_readout))) > 0


def test_zeros_are_without_noise() -> None:
    assert noise_std(make_scan(torch.zeros(3, 2, 8, dtype=torch.complex64))) == 0


def test_without_spokes_there_is_nothing_to_read(make_noise: Any) -> None:
    with pytest.raises(InputError, match="no spokes to read the noise from"):
        noise_std(make_scan(make_noise(0, 2, 8)))
    assert noise_std(make_scan(make_noise(0, 2, 8), torch.eye(2))) == 1
