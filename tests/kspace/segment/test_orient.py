from __future__ import annotations

import numpy as np
import pytest
import torch

from kspace.scan import Geometry
from kspace.segment.orient import Turn, usual_turn

TURNS = [Turn(s, y, x) for s in (False, True) for y in (False, True) for x in (False, True)]


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_is_undone(turn: Turn) -> None:
    images = torch.arange(2 * 3 * 5).reshape(2, 3, 5)
    turned = turn.apply(images)
    assert turned.shape == ((2, 5, 3) if turn.swapped else (2, 3, 5))
    assert torch.equal(turn.undo(turned), images)


@pytest.mark.parametrize("turn", TURNS)
def test_the_same_slice_is_turned_the_same_way_however_it_is_stored(turn: Turn) -> None:
    """A point of the body lands in the same corner after the usual turn, whichever way the scanner stored it."""
    n = 8
    columns, rows = np.array([-0.6, -0.5, -0.62]), np.array([0.1, -0.5, -0.86])
    rows = rows - columns * (columns @ rows) / (columns @ columns)
    across = np.cross(columns, rows)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([v / np.linalg.norm(v) for v in (columns, rows, across)], 1)
    usual = Geometry((1, n, n), affine)
    assert usual_turn(usual) == Turn()
    marked = torch.zeros(1, n, n)
    marked[0, 1, 2] = 1
    stored = turn.undo(marked)
    # The affine of the stored image: where its pixel (column, row) lies in the usual one, as linear functions.
    corners = {}
    for row, column in ((0, 0), (0, 1), (1, 0)):
        probe = torch.zeros(1, n, n)
        probe[0, row, column] = 1
        at = torch.nonzero(turn.apply(probe)[0])[0].tolist()
        corners[row, column] = affine @ np.array([at[1], at[0], 0, 1.0])
    theirs = affine.copy()
    theirs[:, 3] = corners[0, 0]
    theirs[:, 0], theirs[:, 1] = corners[0, 1] - corners[0, 0], corners[1, 0] - corners[0, 0]
    assert torch.equal(usual_turn(Geometry((1, n, n), theirs)).apply(stored), marked)
