"""Gradient delays: the convention, what is found under which conditions, what is corrected, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.delay_estimate import DelayEstimate, estimate_delays, find_delays
from kspace.delays import NO_DELAYS, GradientDelays, correct, parse_delays
from kspace.errors import InputError, ShapeError, UsageError
from kspace.formats.source import open_source
from kspace.nufft import Nufft
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions, readout_radii, uniform_angles
from simulate.body_scanner import BodyScannerOptions
from simulate.lines import spoke_lines
from simulate.subject import SubjectOptions, scan_patient

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "radial" / "perfusion_golden_angle.h5"
MakeMaps = Callable[..., Tensor]
MakeHeart = Callable[..., Tensor]
ENTRIES = st.floats(-2, 2)


def entries(delays: GradientDelays) -> tuple[float, float, float]:
    return delays.x, delays.y, delays.xy


def error(found: DelayEstimate, true: GradientDelays) -> float:
    return max(abs(a - b) for a, b in zip(entries(found.delays), entries(true), strict=True))


@pytest.fixture(scope="module")
def measure(make_maps: MakeMaps, make_heart: MakeHeart) -> Callable[..., RadialScan]:
    """Measure a beating heart, the frame changing from spoke to spoke, with spokes beside where they should be."""

    def run(
        delays: GradientDelays,
        *,
        matrix: tuple[int, int] = (64, 64),
        n_spokes: int = 120,
        n_readout: int = 128,
        n_coils: int = 4,
        snr: float = 30.0,
        angles: Tensor | None = None,
        roll: tuple[int, int] = (0, 0),
        contrast: bool = False,
    ) -> RadialScan:
        hearts = make_heart(6, *matrix).roll(roll, dims=(1, 2))
        images = hearts[:, None] * make_maps(n_coils, *matrix)
        angles = golden_angles(n_spokes) if angles is None else angles
        positions = radial_positions(angles, n_readout)
        frame = (torch.arange(n_spokes) // 4) % 6
        level = torch.ones(n_spokes)
        fixed = None
        if contrast:
            fixed = torch.arange(n_spokes) // (n_spokes // 3)
            level = torch.tensor([1.0, 3.0, 0.5])[fixed]
        samples = torch.zeros(n_spokes, n_coils, n_readout, dtype=torch.complex64)
        for f in range(6):
            chosen = torch.nonzero(frame == f)[:, 0]
            if not len(chosen):
                continue
            where = delays.apply(positions[chosen].double()).reshape(-1, 2)
            # What lies out of the band wraps around in this transform; the estimate looks at the centre alone.
            plan = Nufft((where + 0.5) % 1 - 0.5, matrix, n_transforms=n_coils)
            samples[chosen] = plan.forward(images[f]).reshape(n_coils, len(chosen), -1).transpose(0, 1)
        samples = samples * level[:, None, None]
        if math.isfinite(snr):
            sigma = float(hearts.abs().mean()) / snr * math.sqrt(n_spokes * n_readout / math.prod(matrix))
            samples += sigma * torch.randn(
                samples.shape, dtype=samples.dtype, generator=torch.Generator().manual_seed(1)
            )
        return RadialScan(
            samples,
            positions,
            torch.arange(n_spokes, dtype=torch.float64) * 3e-3,
            Geometry((1, *matrix)),
            frame=fixed,
        )

    return run


@given(x=ENTRIES, y=ENTRIES, xy=ENTRIES, n_readout=st.integers(2, 65))
@settings(max_examples=30, deadline=None)
def test_spokes_move_to_where_the_simulation_has_them(x: float, y: float, xy: float, n_readout: int) -> None:
    angles = golden_angles(7)
    true = spoke_lines(angles, (1.0, 1.0), n_readout, (x, y, xy)).positions(readout_radii(n_readout))
    moved = GradientDelays(x, y, xy).apply(radial_positions(angles, n_readout).double())
    torch.testing.assert_close(moved, true, atol=2e-7, rtol=0)


def test_a_virtual_patients_delays_are_found() -> None:
    true = (1.3, -0.8, 0.6)
    subject = SubjectOptions(gradient_delays=true)
    source = scan_patient(subject.patient(4), subject, {"matrix": 48, "n_coils": 3}, seed=4)
    assert isinstance(source.options, BodyScannerOptions)
    found = estimate_delays(source.open_slice(5).acquire(0.5))
    assert found.significant
    assert error(found, GradientDelays(*true)) < 0.05


@pytest.mark.parametrize(
    ("true", "given_"),
    [
        ((0.7, -0.4, 0.2), {"n_coils": 1}),
        ((0.7, -0.4, 0.2), {"n_readout": 64}),
        ((0.7, -0.4, 0.2), {"snr": 10.0, "n_readout": 129}),
        ((0.7, -0.4, 0.2), {"roll": (9, -14), "n_spokes": 30}),
        ((0.7, -0.4, 0.2), {"contrast": True}),
        ((0.7, -0.4, 0.2), {"matrix": (64, 48)}),
        ((0.7, -0.4, 0.2), {"matrix": (33, 37), "n_readout": 74}),
        ((0.7, -0.4, 0.2), {"matrix": (192, 192), "n_readout": 384}),
        ((1.0, 1.0, 0.0), {}),
        ((-4.0, -4.0, 0.0), {"n_spokes": 60, "n_coils": 2}),
        ((4.0, -3.0, 1.0), {"n_spokes": 60, "n_coils": 1}),
    ],
    ids=str,
)
def test_delays_are_found(
    measure: Callable[..., RadialScan], true: tuple[float, ...], given_: dict[str, object]
) -> None:
    found = estimate_delays(measure(GradientDelays(*true), **given_))
    assert found.significant
    assert error(found, GradientDelays(*true)) < 0.05, found
    assert max(found.error) < 0.05


@pytest.mark.parametrize(
    "given_", [{}, {"roll": (9, -14)}, {"n_coils": 1, "n_spokes": 40}, {"contrast": True}], ids=str
)
def test_without_delays_nothing_is_done(measure: Callable[..., RadialScan], given_: dict[str, object]) -> None:
    delays, found = find_delays(measure(NO_DELAYS, **given_), "auto")
    assert found is not None
    assert error(found, NO_DELAYS) < 0.05
    assert delays == NO_DELAYS


def test_noise_has_no_delays() -> None:
    noise = torch.randn(20, 1, 64, dtype=torch.complex64, generator=torch.Generator().manual_seed(3))
    geometry, time_s = Geometry((1, 32, 32)), torch.arange(20, dtype=torch.float64)
    delays, _ = find_delays(RadialScan(noise, radial_positions(golden_angles(20), 64), time_s, geometry), "auto")
    assert delays == NO_DELAYS


def test_dropped_spokes_do_no_harm(measure: Callable[..., RadialScan]) -> None:
    scan = measure(GradientDelays(0.7, -0.4, 0.2))
    scan.samples[::7] = 0
    assert error(estimate_delays(scan), GradientDelays(0.7, -0.4, 0.2)) < 0.05


def test_correction_puts_spokes_where_they_lie_and_keeps_them_in_the_band(measure: Callable[..., RadialScan]) -> None:
    delays = GradientDelays(1.5, -0.5, 0.3)
    scan = measure(delays)
    mended = correct(scan, delays)
    lost = math.ceil(delays.largest)
    assert mended.n_readout == scan.n_readout - 2 * lost
    assert torch.equal(mended.samples, scan.samples[..., lost:-lost])
    torch.testing.assert_close(mended.positions, delays.apply(scan.positions)[:, lost:-lost])
    assert error(estimate_delays(mended), NO_DELAYS) < 0.05
    assert correct(scan, NO_DELAYS) is scan


def test_what_cannot_tell_its_delays_is_refused(measure: Callable[..., RadialScan]) -> None:
    with pytest.raises(InputError, match="at least 8"):
        estimate_delays(measure(NO_DELAYS, n_spokes=4))
    silent = measure(NO_DELAYS, n_spokes=20)
    with pytest.raises(InputError, match="with signal"):
        estimate_delays(replace(silent, samples=torch.zeros_like(silent.samples)))
    with pytest.raises(InputError, match="longer readouts"):
        correct(measure(NO_DELAYS, n_readout=9, n_spokes=8), GradientDelays(4.0, 0, 0))
    with pytest.raises(ShapeError):
        NO_DELAYS.apply(torch.zeros(3, 2))
    delays, found = find_delays(measure(NO_DELAYS, n_spokes=4), "auto")
    assert (delays, found) == (NO_DELAYS, None)
    parallel = measure(GradientDelays(0.5, 0, 0), n_spokes=12, angles=uniform_angles(1).repeat(12))
    assert find_delays(parallel, "auto")[0] == NO_DELAYS


def test_text_is_understood_or_refused() -> None:
    assert parse_delays("auto") == "auto"
    assert parse_delays("off") == NO_DELAYS
    assert parse_delays("1,-2.5,0.25") == GradientDelays(1, -2.5, 0.25)
    for text in ("", "on", "1,2", "1,2,3,4", "1,x,2"):
        with pytest.raises(UsageError, match="dx,dy,dxy"):
            parse_delays(text)
    for text in ("nan,0,0", "0,inf,0", "0,0,9"):
        with pytest.raises(UsageError, match="within 8"):
            parse_delays(text)


@pytest.mark.real
def test_a_delay_put_into_real_spokes_is_found() -> None:
    """Measured perfusion spokes have none to speak of; reported as if one sample off, they tell the difference."""
    if not REAL.is_file():
        pytest.skip(f"the real spokes are not at {REAL}")
    scan = open_source(REAL)
    assert isinstance(scan, RadialScan)
    scan = scan.select(slice(0, 30))
    there = estimate_delays(scan)
    assert not there.significant
    reported = GradientDelays(-0.8, 0.5, 0.2).apply(scan.positions)[:, 2:-2]
    found = estimate_delays(replace(scan, samples=scan.samples[..., 2:-2], positions=reported))
    difference = [a - b for a, b in zip(entries(found.delays), entries(there.delays), strict=True)]
    assert difference == pytest.approx([0.8, -0.5, -0.2], abs=0.15)
