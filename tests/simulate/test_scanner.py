from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import CubicSpline
from torch import Tensor

from kspace.equations import NormalEquations
from kspace.errors import InputError, UsageError
from kspace.gating import cardiac_phase
from kspace.metrics import body_mask
from kspace.nufft import exact_transform
from kspace.recon.cg_sense import CgSense
from kspace.scan import Cine, Geometry, RadialScan, concatenate
from kspace.trajectory import golden_angles, spoke_angles
from simulate.calibration import calibrate
from simulate.physiology import smooth_phase_map
from simulate.scanner import (
    ScannerOptions,
    SimulatedScanner,
    SimulatedSlice,
    band_limited,
    enclosing_ellipse_mm,
    periodic_spline,
    spline_images,
)

NO_NOISE = ScannerOptions(n_coils=2, snr=math.inf, seed=3)


def error(got: Tensor, expected: Tensor) -> float:
    return float(torch.linalg.vector_norm(got - expected) / torch.linalg.vector_norm(expected))


def exact_spokes(scanner: SimulatedScanner, images: Tensor, scan: RadialScan, index: int = 0) -> Tensor:
    """(spoke, coil, readout): the exact transform of (spoke, y, x) complex images times maps, each at its own spoke.

    The unit is that of the unitary transform on the reconstruction grid: mean of the fine image times the root of the
    number of coarse pixels.
    """
    matrix, fine = scan.matrix, images.shape[-2:]
    ratio = torch.tensor([matrix[0] / fine[0], matrix[1] / fine[1]], dtype=torch.float64)
    scale = math.sqrt(math.prod(matrix) / math.prod(fine))
    maps = scanner.sensitivities[index]
    return torch.stack(
        [
            scale * exact_transform(image * maps, positions.double() * ratio)
            for image, positions in zip(images, scan.positions, strict=True)
        ]
    )


@pytest.mark.parametrize(("rows", "columns", "matrix"), [(48, 48, 36), (49, 40, 31), (30, 44, 43)])
def test_a_heart_that_stands_still_gives_the_exact_transform(make_cine: Any, rows: int, columns: int, matrix: int):
    cine = make_cine(rows=rows, columns=columns, beat=0.0)
    scanner = SimulatedScanner(cine, replace(NO_NOISE, matrix=matrix))
    scan = scanner.open_slice(0).acquire(0.06)
    image = cine.images[0, 0] * smooth_phase_map((rows, columns), seed=3)
    assert error(scan.samples, exact_spokes(scanner, image.expand(scan.n_spokes, -1, -1), scan)) < 1e-4


def test_a_beating_heart_gives_each_spoke_its_own_instant(make_cine: Any):
    cine = make_cine(frames=5)
    scanner = SimulatedScanner(cine, replace(NO_NOISE, tr_s=0.05, rr_variability=0.1))
    scan = scanner.open_slice(0).acquire(5.0)
    scan = scan.select(scan.time_s < scan.ecg_s[-1])
    phase = cardiac_phase(scan.time_s, scan.ecg_s)
    assert float(phase.max() - phase.min()) > 0.9
    frames = np.concatenate([cine.images[0], cine.images[0, :1]]).astype(np.float64)
    spline = CubicSpline(np.arange(6) / 5, frames, bc_type="periodic")
    images = torch.from_numpy(spline((phase.numpy() - 0.1) % 1.0)) * smooth_phase_map((48, 48), seed=3)
    assert error(scan.samples, exact_spokes(scanner, images, scan)) < 1e-4


def test_complex_images_keep_their_phase(make_cine: Any):
    cine = make_cine(beat=0.0)
    own = torch.exp(1j * torch.linspace(0, 3, 48))
    scanner = SimulatedScanner(replace(cine, images=cine.images * own), NO_NOISE)
    scan = scanner.open_slice(0).acquire(0.03)
    images = (cine.images[0, 0] * own).expand(scan.n_spokes, -1, -1)
    assert error(scan.samples, exact_spokes(scanner, images, scan)) < 1e-4


def test_spokes_lie_at_golden_angles_in_cycles_per_pixel_of_the_reconstruction_grid(make_cine: Any):
    scanner = SimulatedScanner(make_cine(), replace(NO_NOISE, matrix=30, readout_oversampling=1.5))
    scan = scanner.open_slice(0).acquire(0.1)
    assert scan.matrix == (30, 30)
    assert scan.n_readout == 45
    radius = torch.linalg.vector_norm(scan.positions, dim=-1)
    torch.testing.assert_close(radius[0], (torch.arange(45) - 22).abs() / 45, atol=1e-6, rtol=0)
    turned = torch.remainder(spoke_angles(scan.positions) - golden_angles(scan.n_spokes) + 1, 2 * math.pi) - 1
    assert float(turned.abs().max()) < 1e-5
    torch.testing.assert_close(scan.time_s, torch.arange(scan.n_spokes, dtype=torch.float64) * 2.8e-3)
    assert scan.geometry.field_of_view_mm == pytest.approx(scanner.cine.geometry.field_of_view_mm)


@settings(deadline=None, max_examples=15)
@given(
    steps=st.lists(st.floats(1e-4, 0.7), min_size=1, max_size=8),
    n_coils=st.integers(1, 3),
    oversampling=st.floats(1.0, 2.0),
)
def test_any_steps_give_the_same_spokes(make_cine: Any, steps: list[float], n_coils: int, oversampling: float):
    options = ScannerOptions(n_coils=n_coils, snr=20, tr_s=0.01, readout_oversampling=oversampling, matrix=19)
    scanner = SimulatedScanner(make_cine(rows=24, columns=24), options)
    stream = scanner.open_slice(0)
    pieces = [stream.acquire(step) for step in steps]
    assert all(piece.n_spokes for piece in pieces)
    pieced, whole = concatenate(pieces), scanner.open_slice(0).acquire(6.5)
    assert pieced.n_spokes >= math.ceil(sum(steps) / 0.01 - 1e-3)
    whole = whole.select(slice(0, pieced.n_spokes))
    assert torch.equal(pieced.time_s, whole.time_s)
    assert torch.equal(pieced.positions, whole.positions)
    assert torch.equal(pieced.ecg_s, whole.ecg_s[: len(pieced.ecg_s)])
    assert error(pieced.samples, whole.samples) < 1e-5


def test_a_step_shorter_than_tr_waits_for_the_next_spoke(make_cine: Any):
    stream = SimulatedScanner(make_cine(), replace(NO_NOISE, tr_s=0.01)).open_slice(0)
    assert [stream.acquire(0.004).n_spokes for _ in range(5)] == [1, 1, 1, 1, 1]
    for seconds in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="cannot measure"):
            stream.acquire(seconds)


def test_slices_in_any_order_are_the_same(make_cine: Any):
    cine = make_cine(slices=3, rows=24, columns=24)
    one, other = (SimulatedScanner(cine, ScannerOptions(n_coils=2, seed=4)) for _ in range(2))
    forth = [one.open_slice(index).acquire(0.1) for index in (0, 1, 2)]
    back = [other.open_slice(index).acquire(0.1) for index in (2, 1, 0)][::-1]
    for a, b in zip(forth, back, strict=True):
        assert torch.equal(a.samples, b.samples)
        assert torch.equal(a.ecg_s, b.ecg_s)
    assert not torch.equal(forth[0].ecg_s, forth[1].ecg_s)
    noise = (
        forth[0].samples
        - SimulatedScanner(cine, ScannerOptions(n_coils=2, snr=math.inf)).open_slice(0).acquire(0.1).samples
    )
    assert noise.abs().max() > 0


def test_same_seed_same_scan(make_cine: Any):
    cine = make_cine(rows=24, columns=24)
    scans = [SimulatedScanner(cine, ScannerOptions(seed=seed)).open_slice(0).acquire(0.1) for seed in (1, 1, 2)]
    assert torch.equal(scans[0].samples, scans[1].samples)
    assert not torch.equal(scans[0].samples, scans[2].samples)


def test_noise_has_the_covariance_that_is_stated_and_the_snr_that_is_defined(make_cine: Any):
    cine = make_cine(rows=64, columns=64)
    noisy = SimulatedScanner(cine, ScannerOptions(n_coils=4, snr=25, seed=6))
    clean = SimulatedScanner(cine, ScannerOptions(n_coils=4, snr=math.inf, seed=6))
    scan, without = (scanner.open_slice(0).acquire(2.8e-3 * 960) for scanner in (noisy, clean))
    assert without.noise_covariance is None
    noise = (scan.samples - without.samples).transpose(0, 1).reshape(4, -1)
    assert scan.noise_covariance is not None
    assert error(noise @ noise.mH / noise.shape[1], scan.noise_covariance) < 0.02
    assert float((noise @ noise.mT).abs().max() / (noise @ noise.mH).abs().max()) < 0.02

    # The definition: one fully sampled Cartesian frame, twice oversampled along the readout, of as many samples.
    mean = cine.images[0].mean(0)
    level = float(mean[body_mask(mean[None])].mean())
    frames = noise.reshape(4, 20, 48, 96)
    pixels = torch.fft.ifft2(frames, norm="forward") / (2 * 48)
    variance = pixels.abs().square().mean((1, 2, 3))
    assert level / math.sqrt(float(variance.mean())) == pytest.approx(25, rel=0.02)


def test_an_empty_slice_does_not_count_in_the_loudness(make_cine: Any):
    cine = make_cine(slices=3)
    images = cine.images.clone()
    images[2] = 0
    padded = SimulatedScanner(replace(cine, images=images), ScannerOptions(n_coils=2))
    kept = SimulatedScanner(cine.select_slices([0, 1]), ScannerOptions(n_coils=2))
    assert padded.noise_std == pytest.approx(kept.noise_std)
    assert padded.open_slice(2).acquire(0.1).samples.abs().max() > 0


@settings(deadline=None, max_examples=30)
@given(n_frames=st.integers(1, 9), seed=st.integers(0, 1000))
def test_spline_passes_through_its_frames(n_frames: int, seed: int):
    images = torch.randn(n_frames, 3, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))
    centres = (torch.arange(n_frames) + 0.5) / n_frames
    coefficients = periodic_spline(images)
    torch.testing.assert_close(spline_images(coefficients, centres), images, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(spline_images(coefficients, centres + 1), images, atol=1e-5, rtol=1e-5)


def test_spline_of_a_wave_is_the_wave():
    phases = torch.linspace(0, 1, 101)[:-1].double()
    frames = torch.cos(2 * math.pi * (torch.arange(20) + 0.5) / 20).to(torch.complex64)[:, None, None]
    got = spline_images(periodic_spline(frames), phases)[:, 0, 0]
    torch.testing.assert_close(got.real.double(), torch.cos(2 * math.pi * phases), atol=2e-4, rtol=0)


@settings(deadline=None, max_examples=40)
@given(
    coarse=st.tuples(st.integers(4, 20), st.integers(4, 20)),
    more=st.tuples(st.integers(0, 13), st.integers(0, 13)),
    seed=st.integers(0, 1000),
)
def test_band_limit_keeps_what_is_band_limited_and_the_mean(coarse: tuple[int, int], more: tuple[int, int], seed: int):
    generator = torch.Generator().manual_seed(seed)
    fine = (coarse[0] + more[0], coarse[1] + more[1])
    image = torch.randn(2, *fine, dtype=torch.complex64, generator=generator)
    limited = band_limited(image, coarse)
    assert limited.shape == (2, *coarse)
    torch.testing.assert_close(limited.mean((-2, -1)), image.mean((-2, -1)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(band_limited(limited, coarse), limited, atol=1e-5, rtol=1e-5)
    # What a disc of k-space leaves is the same continuous image on either grid: evaluate it at the coarse pixels.
    y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / n for n in coarse)
    ky, kx = (torch.arange(n, dtype=torch.float64) - n // 2 for n in coarse)
    spectrum = exact_transform(image, torch.cartesian_prod(ky / fine[0], kx / fine[1])) / math.sqrt(math.prod(fine))
    inside = (ky[:, None] / coarse[0]) ** 2 + (kx / coarse[1]) ** 2 <= 0.25
    spectrum = spectrum.reshape(2, *coarse) * inside
    along_y, along_x = (torch.exp(2j * math.pi * k[:, None] * r) for k, r in ((ky, y), (kx, x)))
    expected = torch.einsum("fkl,ky,lx->fyx", spectrum, along_y, along_x)
    torch.testing.assert_close(limited.to(torch.complex128), expected, atol=1e-5, rtol=1e-5)


def test_reconstruction_of_many_spokes_converges_to_the_truth(make_cine: Any):
    cine = make_cine(rows=64, columns=60, beat=0.0, frames=3)
    scanner = SimulatedScanner(cine, ScannerOptions(n_coils=4, snr=math.inf))
    stream = scanner.open_slice(0)
    truth = stream.truth(1)
    scan = stream.acquire(12.0)
    equations = NormalEquations(scan.matrix, 1, 4)
    equations.add(scan.samples, scan.positions, torch.zeros(scan.n_spokes, dtype=torch.int64))
    image = CgSense(l2=1e-4, tolerance=1e-4)(equations, calibrate(equations, None).maps).image.abs()
    assert error(image, truth) < 0.01
    assert float((image * truth).sum() / image.square().sum()) == pytest.approx(1, abs=2e-3)
    for wrong in (truth.flip(-1), truth.flip(-2), truth.flip(-1, -2)):
        assert error(image, wrong) > 0.1


def test_truth_is_the_cine_at_the_middle_of_each_frame(make_cine: Any):
    cine = make_cine(frames=6)
    stream = SimulatedScanner(cine, NO_NOISE).open_slice(0)
    complex_images = cine.images[0] * smooth_phase_map((48, 48), seed=3)
    torch.testing.assert_close(stream.truth(6), band_limited(complex_images, (36, 36)).abs(), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("matrix", [48, 49, 400, 7, 0, -3])
def test_reconstruction_grid_has_to_be_coarser_than_the_cine(make_cine: Any, matrix: int):
    with pytest.raises((InputError, UsageError), match="finer than what reconstructs"):
        SimulatedScanner(make_cine(), ScannerOptions(matrix=matrix))


def test_default_grid_is_three_quarters_of_the_cine_and_at_most_192(make_cine: Any):
    assert SimulatedScanner(make_cine(columns=40)).geometry.shape == (1, 36, 30)
    large = Cine(torch.ones(1, 1, 400, 300), Geometry((1, 400, 300)))
    assert SimulatedScanner(large).geometry.shape == (1, 192, 144)


def test_nothing_to_scan_is_refused(make_cine: Any):
    cine = make_cine()
    with pytest.raises(InputError, match="zero everywhere"):
        SimulatedScanner(replace(cine, images=0 * cine.images))
    scanner = SimulatedScanner(cine)
    for index in (-1, 1):
        with pytest.raises(InputError, match="no slice"):
            scanner.open_slice(index)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_coils": 0},
        {"snr": 0.0},
        {"snr": math.nan},
        {"tr_s": 0.0},
        {"tr_s": math.nan},
        {"readout_oversampling": 0.5},
        {"seed": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], make_cine: Any):
    with pytest.raises((UsageError, InputError)):
        SimulatedScanner(make_cine(), ScannerOptions(**wrong)).open_slice(0)


def test_a_stream_is_what_the_loop_expects(make_cine: Any):
    stream = SimulatedScanner(make_cine(slices=2), NO_NOISE).open_slice(1)
    assert isinstance(stream, SimulatedSlice)
    batch = stream.acquire(1.0)
    assert batch.geometry.shape == (1, 36, 36)
    assert float(batch.time_s[0]) == 0
    assert float(batch.ecg_s[0]) <= 0
    assert float(batch.ecg_s[-1]) <= 1.0


@pytest.mark.parametrize("shape", [(40, 40), (30, 44)])
def test_the_ellipse_that_carries_the_coils_holds_the_whole_body(shape: tuple[int, int]) -> None:
    geometry = Geometry.from_spacing((1, *shape), (8.0, 3.0, 2.0))
    body = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.02
    width, depth = enclosing_ellipse_mm(body, geometry)
    rows, columns = torch.nonzero(body, as_tuple=True)
    y, x = (rows - shape[0] // 2) * 3.0, (columns - shape[1] // 2) * 2.0
    reach = (2 * x / width) ** 2 + (2 * y / depth) ** 2
    assert float(reach.max()) == pytest.approx(1.0, abs=1e-6)


def test_a_body_that_fills_the_picture_has_no_coil_in_it(make_cine: Any) -> None:
    cine = make_cine(rows=128, columns=128)
    wide = Geometry.from_spacing((1, 128, 128), (8.0, 2.6, 2.6))
    full = replace(cine, images=torch.full_like(cine.images, 50.0), geometry=wide)
    maps = SimulatedScanner(full, replace(NO_NOISE, n_coils=8)).sensitivities[0].abs()
    steps = torch.cat((maps.diff(dim=1).abs().flatten(), maps.diff(dim=2).abs().flatten()))
    assert float(steps.max()) < 0.1  # next to a wire, sensitivities jump
