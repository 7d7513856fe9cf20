"""Preconditioned conjugate gradients on all frames of a cine at once (Hestenes and Stiefel, 1952; Saad, algorithm 9.1).

The frames are independent problems. Each has its own step, its own residual and its own end; on a CPU each is worked on
by one thread, from the normal operator to the last sum, so that its images stay in that core's cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kspace.parallel import map_frames
from kspace.recon.method import OnIteration, Status


class FrameOperator(Protocol):
    """A linear operator on the images of some frames."""

    def __call__(self, images: Tensor, frames: slice) -> Tensor:
        """Return the operator's value for (n, y, x) images of the n frames in a slice: the same shape."""
        ...


@dataclass(frozen=True)
class Solution:
    """What conjugate gradients found.

    Parameters
    ----------
    image
        (frame, y, x) complex.
    iterations
        Of the frame that took most.
    residual
        Largest over frames of the residual over the right-hand side, both in the norm of the preconditioner.
    """

    image: Tensor
    iterations: int
    residual: float


def solve(
    operator: FrameOperator,
    right: Tensor,
    start: Tensor | None,
    parts: list[slice],
    *,
    tolerance: float,
    goal: Tensor,
    preconditioner: FrameOperator,
    max_iterations: int,
    on_iteration: OnIteration | None = None,
) -> Solution:
    """Solve A x = b for a Hermitian positive operator, frame by frame.

    Residuals are measured as sqrt(r^H M r), where M is the preconditioner: about sqrt(r^H A^-1 r), the error of x in
    the norm of A, which counts what is badly determined for what it is worth, as the plain norm does not.

    Parameters
    ----------
    operator
        A, damping included.
    right
        (frame, y, x) complex, b.
    start
        (frame, y, x) complex, where to start; not changed. None for nought, which saves an application of A.
    tolerance
        A frame ends when its residual has fallen to this share of the right-hand side's,
    goal
        or to this, (frame,) float64.
    parts
        How the frames are cut into pieces that are worked on side by side.
    preconditioner
        About the inverse of A, Hermitian and positive.
    max_iterations
        At most so many.
    on_iteration
        Hears of every iteration and may stop it.
    """
    x = torch.zeros_like(right) if start is None else start.clone()
    residual, direction = torch.empty_like(right), torch.empty_like(right)
    n_frames = right.shape[0]
    energy = torch.zeros(n_frames, dtype=torch.float64, device=right.device)
    size, limit = torch.zeros_like(energy), goal.to(right.device) ** 2

    def begin(part: slice) -> None:
        residual[part] = right[part] if start is None else right[part] - operator(x[part], part)
        direction[part] = preconditioner(residual[part], part)
        energy[part] = _products(residual[part], direction[part])
        size[part] = _products(right[part], preconditioner(right[part], part))
        limit[part] = torch.maximum(limit[part], tolerance**2 * size[part])

    def advance(part: slice) -> None:
        applied = operator(direction[part], part)
        curvature = _products(direction[part], applied)
        # A frame that has converged stands still where others of its part go on; so does one without spokes.
        moves = (energy[part] > limit[part]) & (curvature > 0)
        step = torch.where(moves, energy[part] / curvature.clamp_min(1e-300), 0.0).to(x.dtype)[:, None, None]
        # In place, as fresh pages cost more than the arithmetic on them.
        x[part].addcmul_(direction[part], step)
        residual[part].addcmul_(applied, step, value=-1)
        improved = preconditioner(residual[part], part)
        renewed = _products(residual[part], improved)
        ratio = torch.where(energy[part] > 0, renewed / energy[part].clamp_min(1e-300), 0.0)
        direction[part].mul_(ratio.to(x.real.dtype)[:, None, None]).add_(improved)
        energy[part] = renewed

    def largest() -> float:
        used = size > 0
        return float((energy[used] / size[used]).max().clamp_min(0).sqrt()) if bool(used.any()) else 0.0

    teams = right.device.type != "cpu"
    map_frames(begin, parts, teams=teams)
    iteration = 0
    while iteration < max_iterations:
        left = (energy > limit).cpu()
        active = [part for part in parts if bool(left[part].any())]
        if not active:
            break
        iteration += 1
        map_frames(advance, active, teams=teams)
        if on_iteration is not None and on_iteration(Status(iteration, max_iterations, largest())):
            break
    return Solution(x, iteration, largest())


def _products(a: Tensor, b: Tensor) -> Tensor:
    """Return the (frame,) float64 real parts of the scalar products of two (frame, y, x) cines."""
    products: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1)).real.double()
    return products
