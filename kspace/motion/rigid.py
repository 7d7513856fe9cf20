"""Rigid motion in the plane: found by comparing spokes with images, undone in k-space.

A body that has turned by R and then shifted by t has, at k, the transform F(R^-1 k) exp(-2 pi i k.t) of the body at
rest. Coils stay where they are, which is left out of account: for a shift of 10 mm their maps change by a few percent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.motion.evidence import gather
from kspace.motion.features import move_equations
from kspace.scan import RadialScan

_STEPS = 4
_LARGEST_PX, _LARGEST_RAD = 4.0, 0.35
_RIDGE = torch.tensor([1.0, 1.0, 0.1])  # pixels and radians


@dataclass(frozen=True)
class Moves:
    """Where the body was at each spoke.

    Parameters
    ----------
    shift
        (spoke, 2), order (y, x), as a share of the field of view's pixels: in pixels of the grid of the spokes.
    turn
        (spoke,) radians, from +x to +y about the pixel ``N // 2``.
    """

    shift: Tensor
    turn: Tensor

    def __post_init__(self) -> None:
        if self.shift.shape != (len(self.turn), 2):
            raise ShapeError("the shifts", self.shift, f"(spoke, 2) = ({len(self.turn)}, 2)")

    def scaled(self, ratio: tuple[float, float]) -> Moves:
        """Return the moves in pixels of another grid, so many times as fine along (y, x)."""
        return Moves(self.shift * torch.tensor(ratio), self.turn)


def undo(spokes: RadialScan, moved: Moves) -> RadialScan:
    """Return the spokes as if the body had not moved."""
    k = spokes.positions.double()
    phase = 2 * math.pi * (k * moved.shift.double()[:, None]).sum(-1)
    samples = spokes.samples * torch.polar(torch.ones_like(phase), phase).to(spokes.samples.dtype)[:, None]
    c, s = torch.cos(moved.turn.double())[:, None], torch.sin(moved.turn.double())[:, None]
    ky, kx = k[..., 0], k[..., 1]
    # R takes (x, y) to (c x - s y, s x + c y); positions go back by its inverse.
    turned = torch.stack((c * ky - s * kx, s * ky + c * kx), dim=-1).clamp(-0.5, 0.5)
    return replace(spokes, samples=samples, positions=turned.to(spokes.positions.dtype))


def find_moves(spokes: RadialScan, frame: Tensor, state: Tensor, image: Tensor, maps: Tensor, weight: Tensor) -> Moves:
    """Find where the body was, one place for all spokes of a state, by Gauss-Newton from where it rests.

    Parameters
    ----------
    spokes
        Short ones, see :mod:`kspace.motion.navigator`.
    frame
        (spoke,) int64.
    state
        (spoke,) int64 from 0, which spokes share a place.
    image, maps
        Small images and coil maps that they are compared with.
    weight
        (spoke, ring), one over the squared deviation that is usual.
    """
    n_states = int(state.max()) + 1
    place = torch.zeros((n_states, 3), dtype=torch.float64)
    spark = torch.ones(spokes.n_spokes)
    for _ in range(_STEPS):
        here = Moves(place[state, :2].float(), place[state, 2].float())
        found = gather(undo(spokes, here), frame, image, maps, n_frames=len(image), spark=spark)
        curvature, score = move_equations(found, weight)
        a = torch.zeros((n_states, 3, 3), dtype=torch.float64).index_add_(0, state, curvature[:, :3, :3].double())
        b = torch.zeros((n_states, 3), dtype=torch.float64).index_add_(0, state, score[:, :3].double())
        step = torch.linalg.solve(a + torch.diag(1 / _RIDGE.double().square()), b[..., None])[..., 0]
        step = step.clamp(-1.0, 1.0)
        c, s = torch.cos(place[:, 2]), torch.sin(place[:, 2])
        # The step is seen from the body that has been brought back.
        y, x = step[:, 0].clone(), step[:, 1].clone()
        place[:, 0] += s * x + c * y
        place[:, 1] += c * x - s * y
        place[:, 2] += step[:, 2]
    place[:, :2] = place[:, :2].clamp(-_LARGEST_PX, _LARGEST_PX)
    place[:, 2] = place[:, 2].clamp(-_LARGEST_RAD, _LARGEST_RAD)
    return Moves(place[state, :2].float(), place[state, 2].float())
