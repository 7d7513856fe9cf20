"""Rigid motion: undone exactly where coils see all alike, and found from spokes."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.motion.evidence import N_RINGS
from kspace.motion.rigid import Moves, find_moves, undo
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions

N = 32
BLOBS = ((-3.0, 2.0, 3.0, 1.0), (5.0, -4.0, 2.0, 0.7), (1.0, 7.0, 2.5, 0.5))
"""(y, x) in pixels, width and height of Gaussians, whose transforms are known."""


def transform(positions, shift=(0.0, 0.0), turn=0.0):
    """Return the exact transform of the blobs after a turn and a shift, (spoke, 1, readout)."""
    c, s = math.cos(turn), math.sin(turn)
    total = torch.zeros(positions.shape[:-1], dtype=torch.complex128)
    ky, kx = positions[..., 0].double(), positions[..., 1].double()
    for y, x, width, height in BLOBS:
        at_y, at_x = s * x + c * y + shift[0], c * x - s * y + shift[1]
        size = height * 2 * math.pi * width**2 * torch.exp(-2 * (math.pi * width) ** 2 * (ky**2 + kx**2))
        total += size * torch.exp(-2j * math.pi * (ky * at_y + kx * at_x))
    return (total / N).to(torch.complex64)[:, None]


def image():
    """Return the (y, x) blobs."""
    y, x = torch.meshgrid(torch.arange(N) - N // 2, torch.arange(N) - N // 2, indexing="ij")
    blobs = (h * torch.exp(-((y - a) ** 2 + (x - b) ** 2) / (2 * w**2)) for a, b, w, h in BLOBS)
    return sum(blobs).to(torch.complex64)


def spokes(n, shift=(0.0, 0.0), turn=0.0):
    positions = radial_positions(golden_angles(n), 2 * N)
    geometry = Geometry.from_spacing((1, N, N), (1.0, 1.0, 1.0))
    return RadialScan(transform(positions, shift, turn), positions, torch.arange(n) * 3e-3, geometry)


@settings(max_examples=12, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-0.3, 0.3))
def test_undone_motion_is_as_if_nothing_had_moved(y, x, turn):
    moved = spokes(9, (y, x), turn)
    back = undo(moved, Moves(torch.tensor([[y, x]]).repeat(9, 1), torch.full((9,), turn)))
    assert torch.allclose(back.samples, transform(back.positions), atol=2e-4)


def test_the_place_is_found_and_what_rests_stays():
    still, moved = spokes(20), spokes(20, (1.3, -0.8), 0.08)
    both = RadialScan(
        torch.cat((still.samples, moved.samples)), torch.cat((still.positions, moved.positions)),
        torch.arange(40) * 3e-3, still.geometry,
    )  # fmt: skip
    state = torch.arange(40) // 20
    found = find_moves(
        both, torch.zeros(40, dtype=torch.int64), state, image()[None], torch.ones(1, N, N, dtype=torch.complex64),
        torch.full((40, N_RINGS), 1e4),
    )  # fmt: skip
    assert torch.allclose(found.shift[:20], torch.zeros(20, 2), atol=0.02)
    assert torch.allclose(found.shift[20:], torch.tensor([1.3, -0.8]).repeat(20, 1), atol=0.03)
    assert abs(float(found.turn[30]) - 0.08) < 0.005
    assert abs(float(found.turn[0])) < 0.002


def test_pixels_of_another_grid():
    moves = Moves(torch.tensor([[1.0, -2.0]]), torch.tensor([0.1])).scaled((2.0, 3.0))
    assert moves.shift.tolist() == [[2.0, -6.0]]
