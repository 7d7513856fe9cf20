from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.encoding import Encoding
from kspace.errors import InputError, ShapeError
from kspace.trajectory import (
    GOLDEN_ANGLE,
    cartesian_positions,
    golden_angles,
    pipe_menon_weights,
    radial_positions,
    ramp_weights,
    readout_radii,
    spoke_angles,
    uniform_angles,
)


def test_the_golden_angle_is_111_246_degrees() -> None:
    assert math.degrees(GOLDEN_ANGLE) == pytest.approx(111.246, abs=5e-4)
    assert math.degrees(float(golden_angles(2)[1])) == pytest.approx(111.246, abs=5e-4)


@pytest.mark.parametrize(("order", "degrees"), [(1, 111.246), (2, 68.754), (5, 32.039), (7, 23.628), (10, 16.952)])
def test_tiny_golden_angles_are_those_of_wundrak(order: int, degrees: float) -> None:
    assert math.degrees(float(golden_angles(2, order=order)[1])) == pytest.approx(degrees, abs=1e-3)


@given(n=st.integers(0, 300), cut=st.integers(0, 300), order=st.integers(1, 12))
def test_a_stream_of_angles_can_be_made_piece_by_piece(n: int, cut: int, order: int) -> None:
    cut = min(n, cut)
    pieces = torch.cat((golden_angles(cut, order=order), golden_angles(n - cut, start=cut, order=order)))
    whole = golden_angles(n, order=order)
    torch.testing.assert_close(pieces, whole, rtol=0, atol=0)
    assert bool(((whole >= 0) & (whole < 2 * math.pi)).all())


def test_uniform_angles_divide_half_a_turn() -> None:
    torch.testing.assert_close(uniform_angles(4).rad2deg(), torch.tensor([0, 45, 90, 135], dtype=torch.float64))


@pytest.mark.parametrize("n_readout", [1, 2, 7, 64])
def test_a_readout_passes_the_centre_at_half_its_length(n_readout: int) -> None:
    radii = readout_radii(n_readout)
    assert float(radii[n_readout // 2]) == 0
    assert float(radii.min()) >= -0.5
    assert float(radii.max()) < 0.5


def test_a_spoke_at_angle_zero_runs_along_kx_and_at_a_right_angle_along_ky() -> None:
    positions = radial_positions(torch.tensor([0.0, math.pi / 2]), 8)
    assert positions.shape == (2, 8, 2)
    assert positions.dtype == torch.float32
    torch.testing.assert_close(positions[0, :, 1], readout_radii(8).float())
    torch.testing.assert_close(positions[1, :, 0], readout_radii(8).float())
    assert float(positions[0, :, 0].abs().max()) == 0
    assert float(positions[1, :, 1].abs().max()) < 1e-7


@given(angle=st.floats(-3.1, 3.1), n_readout=st.integers(2, 50))
def test_the_angle_of_a_spoke_is_read_back(angle: float, n_readout: int) -> None:
    positions = radial_positions(torch.tensor([angle], dtype=torch.float64), n_readout)
    assert float(spoke_angles(positions)[0]) == pytest.approx(angle, abs=1e-5)


def test_positions_keep_leading_axes() -> None:
    assert radial_positions(golden_angles(6).reshape(2, 3), 5).shape == (2, 3, 5, 2)
    assert cartesian_positions(torch.tensor([[0, 1], [2, 3]]), 4, 6).shape == (2, 2, 6, 2)


@pytest.mark.parametrize(("rows", "columns"), [(6, 8), (7, 5)])
def test_all_cartesian_lines_are_the_centred_unitary_fft(rows: int, columns: int, make_noise: Any, check: Any) -> None:
    positions = cartesian_positions(torch.arange(rows), rows, columns)
    x = make_noise(1, rows, columns)
    encoding = Encoding(positions[None], torch.ones(1, rows, columns, dtype=torch.complex64), accuracy="reference")
    shifted = torch.fft.fftshift(torch.fft.fft2(torch.fft.ifftshift(x, dim=(-2, -1)), norm="ortho"), dim=(-2, -1))
    check.close(encoding.forward(x)[:, 0], shifted, 2e-6)
    # Full k-space has no gaps: the normal operator is the identity.
    check.close(encoding.normal(x), x, 2e-6)


# Weights


@settings(deadline=None)
@given(n_spokes=st.integers(1, 40), n_readout=st.integers(2, 200), order=st.integers(1, 8))
def test_ramp_weights_sum_to_the_area_of_the_disc(n_spokes: int, n_readout: int, order: int) -> None:
    weights = ramp_weights(radial_positions(golden_angles(n_spokes, order=order), n_readout))
    # Cells reach from -0.5 - dk/2 to 0.5 - dk/2: for an even readout exactly pi/4 + pi dk^2 / 4.
    half = 0.5 / n_readout
    edges = (0.5 + half, 0.5 - half) if n_readout % 2 == 0 else (0.5, 0.5)
    area = math.pi * (edges[0] ** 2 + edges[1] ** 2) / 2
    assert float(weights.double().sum()) == pytest.approx(area, rel=1e-5)
    assert area == pytest.approx(math.pi / 4, rel=1.1 / n_readout**2)
    assert float(weights.min()) > 0


def test_weights_of_lone_spokes_add_up_over_batches() -> None:
    positions = radial_positions(golden_angles(9), 32)
    lone = torch.cat([ramp_weights(p, n_spokes=1) for p in positions.split([2, 1, 6])])
    torch.testing.assert_close(lone / 9, ramp_weights(positions))
    torch.testing.assert_close(ramp_weights(positions, n_spokes=3) * 3, lone)


def test_a_delayed_spoke_is_weighted_by_where_it_was() -> None:
    delayed = radial_positions(golden_angles(1), 64) + radial_positions(golden_angles(1), 64)[:, 33:34]
    weights = ramp_weights(delayed)[0]
    # The sample that lies at the centre now comes one earlier.
    assert int(weights.argmin()) == 31


def test_ramp_weights_make_the_normal_operator_of_dense_spokes_about_the_identity(check: Any) -> None:
    n = 64
    y, x = torch.meshgrid(torch.arange(n) - n / 2.0, torch.arange(n) - n / 2.0, indexing="ij")
    image = (torch.exp(-((y - 3) ** 2 + (x + 5) ** 2) / 60) * torch.exp(0.2j * x)).to(torch.complex64)[None]
    positions = radial_positions(uniform_angles(120), 2 * n)[None]
    weights = ramp_weights(positions) * n * n
    encoding = Encoding(positions, torch.ones(1, n, n, dtype=torch.complex64), weights=weights)
    check.close(encoding.normal(image), image, 0.01)


def test_pipe_menon_finds_the_ramp_in_the_middle_of_the_band() -> None:
    positions = radial_positions(uniform_angles(128), 128)
    found = pipe_menon_weights(positions, (64, 64))
    ramp = ramp_weights(positions)
    middle = (torch.linalg.vector_norm(positions, dim=-1) - 0.25).abs() < 0.15
    ratio = found[middle] / ramp[middle]
    assert float((ratio - 1).abs().max()) < 0.05
    assert float(found.sum()) == pytest.approx(math.pi / 4, rel=0.15)


def test_pipe_menon_weights_of_full_cartesian_sampling_are_equal() -> None:
    positions = cartesian_positions(torch.arange(12), 12, 10)
    weights = pipe_menon_weights(positions, (12, 10), n_iterations=30)
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 120), rtol=0.05, atol=0)


# Errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: golden_angles(-1), "-1 spokes"),
        (lambda: golden_angles(3, start=-2), "from number -2"),
        (lambda: golden_angles(3, order=0), "order is 0"),
        (lambda: uniform_angles(0), "at least one"),
        (lambda: readout_radii(0), "at least one"),
        (lambda: cartesian_positions(torch.tensor([0, 4]), 4, 8), "0 to 3"),
        (lambda: cartesian_positions(torch.tensor([-1]), 4, 8), "run from -1"),
        (lambda: ramp_weights(torch.zeros(1, 4, 2)), "no length"),
    ],
)
def test_senseless_numbers_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize(
    "call",
    [
        lambda: spoke_angles(torch.zeros(3, 1, 2)),
        lambda: spoke_angles(torch.zeros(3, 2)),
        lambda: ramp_weights(torch.zeros(3, 4)),
        lambda: ramp_weights(torch.zeros(3, 1, 2)),
        lambda: pipe_menon_weights(torch.zeros(1, 3, 4, 2), (8, 8)),
    ],
)
def test_wrong_shapes_are_named(call: Callable[[], object]) -> None:
    with pytest.raises(ShapeError, match="positions has shape"):
        call()
