"""Betti numbers against gudhi's, and what a heart may look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gudhi import CubicalComplex
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.errors import InputError, ShapeError
from kspace.segment.segmentation import Structure
from kspace.segment.topology import PARTS, betti_errors, betti_numbers


def gudhi_numbers(labels: Tensor) -> list[list[int]]:
    """b0 and b1 of each part, from the persistence of its binary image with a border of background."""
    found = []
    for part in PARTS:
        mask = np.pad(np.isin(labels.numpy(), part.structures), 1)
        cells = CubicalComplex(top_dimensional_cells=1.0 - mask)
        cells.compute_persistence()
        found.append(cells.persistent_betti_numbers(0.0, 0.5)[:2] if mask.any() else [0, 0])
    return found


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 3), st.integers(1, 14), st.integers(1, 14), st.floats(0, 1), st.integers(0, 2**31))
def test_numbers_are_those_of_gudhi(n: int, ny: int, nx: int, background: float, seed: int) -> None:
    chance = np.random.default_rng(seed)
    shares = [background, *chance.dirichlet([1, 1, 1]) * (1 - background)]
    labels = torch.from_numpy(chance.choice(4, (n, ny, nx), p=np.array(shares) / sum(shares)).astype(np.uint8))
    assert betti_numbers(labels).tolist() == [gudhi_numbers(image) for image in labels]


def test_a_heart_has_no_errors_wherever_it_lies(heart: Tensor) -> None:
    assert betti_errors(heart).shape == ()
    assert int(betti_errors(heart)) == 0
    assert betti_numbers(heart).tolist() == [[part.pieces, part.holes] for part in PARTS]
    assert int(betti_errors(heart[8:32, 9:42])) == 0, "where the heart touches the border"
    assert int(betti_errors(heart.flip(0).T.long())) == 0


def test_mistakes_are_counted_where_they_are(heart: Tensor) -> None:
    names = [part.name for part in PARTS]
    assert names == ["RV", "MYOCARDIUM", "LV", "RV+MYOCARDIUM", "RV+LV", "MYOCARDIUM+LV"]
    opened, island, pierced = heart.clone(), heart.clone(), heart.clone()
    opened[19:22, 36:42] = Structure.BACKGROUND  # the wall has a gap on the far side
    island[2, 2] = Structure.RV
    pierced[20, 30] = Structure.BACKGROUND
    errors = betti_errors(torch.stack([heart, opened, island, pierced]), each=True)
    assert errors.tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 0, 1, 0, 0],
        [1, 0, 0, 1, 1, 0],
        [0, 0, 1, 0, 1, 1],
    ]


def test_corners_join_the_foreground_and_part_the_background() -> None:
    diagonal = torch.eye(3, dtype=torch.uint8) * 2
    assert betti_numbers(diagonal)[1].tolist() == [1, 0]
    diamond = torch.tensor([[0, 2, 0], [2, 0, 2], [0, 2, 0]])
    assert betti_numbers(diamond)[1].tolist() == [1, 1]


def test_stacks_are_counted_image_by_image(heart: Tensor) -> None:
    empty = torch.zeros_like(heart)
    stack = torch.stack([heart, empty, heart.roll(5, 1), empty, empty, heart]).reshape(2, 3, *heart.shape)
    whole = sum(part.pieces + part.holes for part in PARTS)
    assert betti_errors(stack).tolist() == [[0, whole, 0], [whole, whole, 0]]
    assert betti_errors(stack, each=True).shape == (2, 3, 6)
    assert betti_errors(empty[:, :0]).tolist() == whole
    assert betti_numbers(stack[:0]).shape == (0, 3, 6, 2)


def test_what_is_no_label_image_is_refused() -> None:
    with pytest.raises(ShapeError):
        betti_numbers(torch.zeros(4, dtype=torch.uint8))
    with pytest.raises(InputError, match="integers"):
        betti_numbers(torch.zeros(4, 4))
    with pytest.raises(InputError, match="0 to 3"):
        betti_numbers(torch.full((4, 4), 4))
    with pytest.raises(InputError, match="0 to 3"):
        betti_numbers(torch.full((4, 4), -1))
