"""Data consistency: what a network proposes is brought to agree with what was measured.

The image nearest to the data and to the proposal z at once minimises |W^(1/2) (E x - s)|^2 + w |x - z|^2, so that
(A + w) x = b + w z, solved by conjugate gradients (MoDL: Aggarwal, Mani, Jacob, IEEE TMI 38:394, 2019, eq. 9). Its
gradient is another solution with the same matrix, which keeps nothing of the iterations in memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kspace.recon.conjugate_gradients import solve
from kspace.recon.networks.least_squares import LeastSquares
from kspace.toeplitz import SenseNormal


def _solve(
    problem: LeastSquares, weight: Tensor, right: Tensor, start: Tensor, iterations: int, tolerance: float
) -> Tensor:
    """Solve (A + w) x = ``right`` without recording it."""
    normal = SenseNormal(problem.maps, problem.spectrum)
    # The threads of the frames do not know that gradients are off here.
    factors = weight.detach()[:, None, None]

    def damped(images: Tensor, frames: slice) -> Tensor:
        return normal(images, frames).div_(problem.scale).add_(factors[frames] * images)

    return solve(
        damped,
        right.detach(),
        start.detach(),
        normal.parts,
        tolerance=tolerance,
        goal=torch.zeros(len(right), dtype=torch.float64),
        preconditioner=lambda images, frames: images,  # A is about the identity
        max_iterations=iterations,
    ).image


class _Solve(torch.autograd.Function):
    """The solution of (A + w) x = b + w z, differentiated implicitly with respect to z and w."""

    @staticmethod
    def forward(
        ctx: Any, proposal: Tensor, weight: Tensor, problem: LeastSquares, iterations: int, tolerance: float
    ) -> Tensor:
        ctx.problem, ctx.iterations, ctx.tolerance = problem, iterations, tolerance
        right = problem.right + weight[:, None, None] * proposal
        solution = _solve(problem, weight, right, proposal, iterations, tolerance)
        ctx.save_for_backward(proposal, weight, solution)
        return solution

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        saved: tuple[Tensor, ...] = ctx.saved_tensors
        proposal, weight, solution = saved
        # The inverse is Hermitian: the gradient goes through it once more.
        through = _solve(ctx.problem, weight, grads[0], grads[0], ctx.iterations, ctx.tolerance)
        to_proposal = weight[:, None, None] * through
        to_weight = (through.conj() * (proposal - solution)).real.sum((-2, -1))
        return to_proposal, to_weight, None, None, None


def consistent(
    problem: LeastSquares, proposal: Tensor, weight: Tensor, *, iterations: int = 4, tolerance: float = 0.0
) -> Tensor:
    """Return the images nearest to the data and to a proposal.

    Parameters
    ----------
    problem
        The data.
    proposal
        (frame, y, x) complex.
    weight
        (frame,) real, above 0: how much the proposal counts beside the data, 1 being as much.
    iterations, tolerance
        Of conjugate gradients, forwards and backwards. The gradient is exact as far as they have converged.

    Returns
    -------
    (frame, y, x) complex.
    """
    result: Tensor = _Solve.apply(proposal, weight, problem, iterations, tolerance)  # type: ignore[no-untyped-call]
    return result


def gradient_step(problem: LeastSquares, proposal: Tensor, weight: Tensor) -> Tensor:
    """Return a proposal moved one step down the data's gradient (Hammernik et al., MRM 79:3055, 2018).

    Parameters
    ----------
    problem, proposal, weight
        As for :func:`consistent`; the step is 1 / (1 + weight), since A is about the identity.
    """
    return proposal + problem.gradient(proposal) / (1 + weight)[:, None, None]
