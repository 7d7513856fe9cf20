from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from kspace.errors import InputError, ShapeError
from kspace.segment.maps import bounding_box
from kspace.segment.persistence import bars, topological_loss
from kspace.segment.segmentation import Structure
from kspace.segment.topology import PARTS, betti_numbers


def sure(labels: Tensor) -> Tensor:
    """One-hot (4, y, x)."""
    return functional.one_hot(labels.long(), len(Structure)).movedim(-1, 0).float()


def test_two_hills_and_a_ring() -> None:
    hills = torch.tensor([[0.1, 0.9, 0.2, 0.6, 0.1]])
    pieces, holes = bars(hills)
    torch.testing.assert_close(pieces, torch.tensor([0.9, 0.4]))
    assert holes.numel() == 0
    ring = torch.full((4, 6), 0.8)
    ring[1:3, 1:5] = torch.tensor([[0.3, 0.2, 0.25, 0.3], [0.3, 0.3, 0.3, 0.3]])
    ring[0, 3] = 0.7
    pieces, holes = bars(ring)
    torch.testing.assert_close(pieces, torch.tensor([0.8]))
    torch.testing.assert_close(holes, torch.tensor([0.5]))


def test_ends_of_bars_are_the_right_pixels() -> None:
    hills = torch.tensor([[0.1, 0.9, 0.2, 0.6, 0.1]]).repeat(3, 1) * torch.tensor([[0.9], [1.0], [0.8]])
    hills.requires_grad_()
    (slope,) = torch.autograd.grad(bars(hills)[0][1], hills)
    expected = torch.zeros(3, 5)
    expected[1, 3], expected[1, 2] = 1, -1
    assert torch.equal(slope, expected)


@settings(deadline=None, max_examples=15)
@given(st.integers(2, 6), st.integers(2, 6), st.integers(0, 2**31))
def test_gradients_are_those_of_small_changes(ny: int, nx: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(4 * ny * nx, generator=generator)
    # Steps of unequal height: where two bars are of the same length the loss has no derivative.
    heights = (0.5 + torch.rand(len(order), generator=generator, dtype=torch.float64)).cumsum(0)
    values = (0.26 + 0.7 * heights / heights[-1])[order].reshape(4, ny, nx).requires_grad_()
    single = PARTS[:3]  # of no pair, so that no two values of a map are the same
    assert torch.autograd.gradcheck(lambda p: topological_loss(p, single), values, eps=1e-6, fast_mode=True)
    assert torch.autograd.gradcheck(lambda p: topological_loss(p, single, power=2), values, eps=1e-6, fast_mode=True)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_of_a_binary_image_bars_are_betti_numbers(ny: int, nx: int, seed: int) -> None:
    mask = torch.rand(ny, nx, generator=torch.Generator().manual_seed(seed)) < 0.6
    mask[0, 0] = True
    pieces, holes = bars(mask.float())
    assert bool((torch.cat([pieces, holes]) == 1).all())
    assert [len(pieces), len(holes)] == betti_numbers(mask.long())[2].tolist()


def test_the_loss_of_a_sure_heart_is_zero_and_mistakes_add_up(heart: Tensor) -> None:
    assert float(topological_loss(sure(heart))) == 0
    heart[2, 2] = Structure.RV
    assert float(topological_loss(sure(heart))) == 3  # a piece too many of RV and of its two pairs
    assert float(topological_loss(sure(heart), PARTS[1:3])) == 0
    faint = 0.6 * sure(heart) + 0.4 * sure(torch.zeros_like(heart))
    rv = PARTS[:1]
    assert float(topological_loss(faint, rv)) == pytest.approx(0.4 + 0.6)
    assert float(topological_loss(faint, rv, power=2)) == pytest.approx(0.4 + 0.36)
    nothing = sure(torch.zeros_like(heart))
    assert float(topological_loss(nothing)) == sum(part.pieces + part.holes for part in PARTS)


def test_boxes_stay_in_the_image() -> None:
    mask = torch.zeros(8, 9, dtype=torch.bool)
    assert mask[bounding_box(mask, 2)].shape == (8, 9)
    mask[1, 4] = mask[3, 8] = True
    assert mask[bounding_box(mask, 0)].shape == (3, 5)
    assert mask[bounding_box(mask, 2)].shape == (6, 7)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ShapeError):
        bars(torch.zeros(3))
    with pytest.raises(ShapeError):
        topological_loss(torch.zeros(3, 5, 5))
    with pytest.raises(InputError, match="power"):
        topological_loss(torch.zeros(4, 5, 5), power=0)
