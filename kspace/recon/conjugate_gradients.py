"""Preconditioned conjugate gradients on all frames of a cine at once (Hestenes and Stiefel, 1952; Saad, algorithm 9.1).

The frames are independent problems. Each has its own step, its own residual and its own end; on a CPU each is worked on
by one thread, from the normal operator to the last sum, so that its images stay in that core's cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
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
    right = right.resolve_conj().contiguous()  # gradients come conjugated, and what is a view of something else
    x = torch.zeros_like(right) if start is None else torch.empty_like(right).copy_(start)
    residual, direction = torch.empty_like(right), torch.empty_like(right)
    # What is one number a frame is kept by the host: on one frame's images the tensor library would take as long for
    # its small operations, between which threads wait for the interpreter, as for the sums.
    energy, size, limit = (np.zeros(right.shape[0]) for _ in range(3))

    def begin(part: slice) -> None:
        residual[part] = right[part] if start is None else right[part] - operator(x[part], part)
        direction[part] = preconditioner(residual[part], part)
        energy[part] = _products(_flat(residual[part]), _flat(direction[part]))
        size[part] = _products(_flat(right[part]), _flat(preconditioner(right[part], part)))
        limit[part] = np.maximum(goal[part].cpu().numpy() ** 2, tolerance**2 * size[part])

    def advance(part: slice) -> None:
        p, r = direction[part], residual[part]
        flat_p, flat_r = _flat(p), _flat(r)
        applied = _flat(operator(p, part))
        curvature = _products(flat_p, applied)
        # A frame that has converged stands still where others of its part go on; so does one without spokes.
        moves = (energy[part] > limit[part]) & (curvature > 0)
        step = np.where(moves, energy[part] / np.maximum(curvature, 1e-300), 0.0)
        _add(_flat(x[part]), flat_p, step)
        _add(flat_r, applied, -step)
        improved = _flat(preconditioner(r, part))
        renewed = _products(flat_r, improved)
        ratio = np.where(energy[part] > 0, renewed / np.maximum(energy[part], 1e-300), 0.0)
        _scale(flat_p, ratio)
        flat_p.add_(improved)
        energy[part] = renewed

    def largest() -> float:
        used = size > 0
        return math.sqrt(max(0.0, float((energy[used] / size[used]).max()))) if used.any() else 0.0

    teams = right.device.type != "cpu"
    map_frames(begin, parts, teams=teams)
    iteration = 0
    while iteration < max_iterations:
        active = [part for part in parts if (energy[part] > limit[part]).any()]
        if not active:
            break
        iteration += 1
        map_frames(advance, active, teams=teams)
        if on_iteration is not None and on_iteration(Status(iteration, max_iterations, largest())):
            break
    return Solution(x, iteration, largest())


def _flat(images: Tensor) -> Tensor:
    """Return (n, y, x) complex images as the (n, 2 y x) real numbers they are; work on these takes half the time."""
    return torch.view_as_real(images).view(len(images), -1)


def _products(a: Tensor, b: Tensor) -> np.ndarray:
    """Return the (n,) float64 scalar products of rows."""
    if len(a) == 1:
        return np.array([float(torch.dot(a[0], b[0]))])
    return np.array(torch.linalg.vecdot(a, b).tolist())


def _add(to: Tensor, rows: Tensor, factors: np.ndarray) -> None:
    """Add rows times (n,) factors, in place, as fresh pages cost more than the arithmetic on them."""
    if len(to) == 1:
        to.add_(rows, alpha=float(factors[0]))
    else:
        to.addcmul_(rows, torch.from_numpy(factors).to(to)[:, None])


def _scale(rows: Tensor, factors: np.ndarray) -> None:
    """Multiply rows by (n,) factors in place."""
    rows.mul_(float(factors[0]) if len(rows) == 1 else torch.from_numpy(factors).to(rows)[:, None])
