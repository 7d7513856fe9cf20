"""Drift of phase and gain: what is found, and what a beating heart must not lose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kspace.drift import describe_drift, drift_of_slices, estimate_drift
from kspace.errors import InputError, ShapeError
from kspace.nufft import Nufft
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions, spoke_angles


@pytest.fixture(scope="module")
def scan(make_maps: Callable[..., Tensor], make_heart: Callable[..., Tensor]) -> RadialScan:
    """13 s of a heart of 0.8 s, 20 ms a spoke, with noise."""
    n_spokes, n_readout, matrix = 650, 64, (32, 32)
    positions = radial_positions(golden_angles(n_spokes), n_readout)
    time_s = torch.arange(n_spokes, dtype=torch.float64) * 20e-3
    frame = ((time_s / 0.8) % 1 * 10).long()
    images = make_heart(10, *matrix)[:, None] * make_maps(3, *matrix)
    samples = torch.zeros(n_spokes, 3, n_readout, dtype=torch.complex64)
    for f in range(10):
        chosen = torch.nonzero(frame == f)[:, 0]
        plan = Nufft(positions[chosen].reshape(-1, 2), matrix, n_transforms=3)
        samples[chosen] = plan.forward(images[f]).reshape(3, len(chosen), -1).transpose(0, 1)
    noise = torch.randn(samples.shape, dtype=samples.dtype, generator=torch.Generator().manual_seed(2))
    return RadialScan(samples + 0.05 * noise, positions, time_s, Geometry((1, *matrix)))


def spoilt(scan: RadialScan, phase: Tensor, log_gain: Tensor) -> RadialScan:
    factor = torch.polar(torch.exp(log_gain), phase).to(torch.complex64)
    return replace(scan, samples=scan.samples * factor[:, None, None])


def test_a_clean_beating_heart_is_left_alone(scan: RadialScan) -> None:
    mended = estimate_drift(scan).correct(scan)
    assert float((mended.samples - scan.samples).norm() / scan.samples.norm()) < 2e-3


@pytest.mark.parametrize("slow", [False, True])
def test_drift_is_found_and_taken_out(scan: RadialScan, slow: bool) -> None:
    angle, where = spoke_angles(scan.positions), scan.time_s / scan.time_s[-1]
    phase = 0.2 * torch.cos(angle) - 0.1 * torch.sin(angle) + (0.6 * where if slow else 0.0)
    gain = 0.2 * where**2 if slow else torch.zeros_like(where)
    bad = spoilt(scan, phase, gain)
    found = estimate_drift(bad)
    assert (found.cosine, found.sine) == pytest.approx((0.2, -0.1), abs=0.01)
    torch.testing.assert_close(found.phase, phase - phase.mean(), atol=0.03, rtol=0)
    torch.testing.assert_close(found.log_gain, gain - gain.mean(), atol=0.03, rtol=0)
    mended = found.correct(bad).samples
    scale = (mended.conj() * scan.samples).sum() / (mended.abs() ** 2).sum()
    assert float((scale * mended - scan.samples).norm() / scan.samples.norm()) < 0.015


def test_beating_is_not_taken_for_drift(scan: RadialScan) -> None:
    """A gain that follows the heart beat by beat stays as it is."""
    beating = spoilt(scan, torch.zeros_like(scan.time_s), 0.1 * torch.cos(2 * torch.pi * scan.time_s / 0.8))
    assert float(estimate_drift(beating).log_gain.abs().max()) < 0.005


def test_a_short_scan_has_no_slow_drift(scan: RadialScan) -> None:
    short = scan.select(slice(0, 100))
    angle = spoke_angles(short.positions)
    found = estimate_drift(spoilt(short, 0.1 * torch.cos(angle), 0.3 * short.time_s))
    assert float(found.log_gain.abs().max()) == 0
    assert found.cosine == pytest.approx(0.1, abs=0.02)


def test_refusals(scan: RadialScan) -> None:
    with pytest.raises(InputError, match="at least 8"):
        estimate_drift(scan.select(slice(0, 5)))
    with pytest.raises(ShapeError):
        estimate_drift(scan).correct(scan.select(slice(0, 5)))


def test_every_slice_is_mended_by_itself(scan: RadialScan) -> None:
    """Noise is not white, one slice drifts, one does not, and one has too few spokes to tell."""
    phase = 0.3 * torch.cos(spoke_angles(scan.positions))
    bad = spoilt(scan, phase, torch.zeros_like(phase))
    few = 5
    samples = torch.cat((scan.samples, bad.samples, bad.samples[:few]))
    stack = RadialScan(
        7 * samples,
        torch.cat((scan.positions, scan.positions, scan.positions[:few])),
        torch.cat((scan.time_s, scan.time_s + 20, scan.time_s[:few] + 40)),
        Geometry((3, *scan.matrix)),
        slice_index=torch.tensor([0] * 650 + [1] * 650 + [2] * few),
        noise_covariance=(7 * 0.05) ** 2 * torch.eye(3, dtype=torch.complex64),
    )
    mended, found = drift_of_slices(stack)
    assert set(found) == {0, 1}
    assert (found[1].cosine, found[1].sine) == pytest.approx((0.3, 0.0), abs=0.01)
    assert found[1].found
    assert found[1].record()["phase_rad"] == pytest.approx(0.3 / math.sqrt(2), abs=0.02)
    for index in (0, 1):
        wanted, given = 7 * scan.samples, mended.samples[stack.slices == index]
        scale = (given.conj() * wanted).sum() / (given.abs() ** 2).sum()
        assert float((scale * given - wanted).norm() / wanted.norm()) < 0.015
    assert torch.equal(mended.samples[stack.slices == 2], stack.samples[stack.slices == 2])
    assert "of 2 slices" in describe_drift(found)
    assert "none" in describe_drift({})
