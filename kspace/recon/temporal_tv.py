"""Compressed sensing with temporal total variation, by a primal-dual method.

Minimise  1/2 |W^(1/2) (E x - s)|^2 + lambda sum |x_(f+1) - x_f|  over cine images x, circular in time (the model of
GRASP, Feng et al., MRM 72:707, 2014; the algorithm of Condat, J. Optim. Theory Appl. 158:460, 2013). One normal
operator an iteration; the dual variable is kept, so that a warm start goes on where the last decision ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.parallel import map_frames
from kspace.recon.method import OnIteration, Reconstruction, Status
from kspace.recon.proximal import Scaled, WatchedNormal, inner
from kspace.recon.proximal import largest_eigenvalue as largest_eigenvalue

DUAL_STEP = 0.02
"""Step of the dual variable over the operator's largest eigenvalue; small, because the images are far larger than the
threshold that bounds the dual variable, and the primal step gains what the dual gives up."""


@dataclass(frozen=True)
class TemporalTV:
    """Options of the method.

    Parameters
    ----------
    noise_factor
        The part of lambda that follows the noise: this many standard deviations of the noise in the gridded image.
    signal_factor
        The part that follows the streaks of undersampling: this share of the image's level, divided by the square root
        of the spokes per frame. Both were chosen on the simulated phantom (docs/reconstruction.md), not on real hearts.
    max_iterations
        At most so many.
    tolerance
        Stop when an iteration changes the images by less than this, relative to their norm,
    noise_share
        or, where the noise is known, by less than this share of the noise in the gridded images.
    """

    noise_factor: float = 1.0
    signal_factor: float = 0.01
    max_iterations: int = 30
    tolerance: float = 3e-3
    noise_share: float = 0.02
    density: Density = "ramp"
    name: str = "cs"

    def __call__(
        self,
        equations: NormalEquations,
        maps: Tensor,
        *,
        noise_std: float | None = None,
        start: Reconstruction | None = None,
        on_iteration: OnIteration | None = None,
    ) -> Reconstruction:
        """Reconstruct; see :class:`kspace.recon.method.Method`."""
        scaled = Scaled(equations, maps, noise_std)
        if scaled.scale <= 0:
            return scaled.unmeasured(start)
        threshold = scaled.threshold(self.noise_factor, self.signal_factor)
        lipschitz = scaled.lipschitz()
        step, dual_step = _steps(lipschitz)
        x = scaled.first(start)
        y = start.state[0].clone() if start is not None and start.state else torch.zeros_like(x)
        state = _PrimalDual(scaled.operator(), scaled.b, x, y)
        goal = scaled.goal(self.tolerance, self.noise_share)
        iteration, change = 0, math.inf
        for iteration in range(1, self.max_iterations + 1):
            steepest = state.apply()
            if steepest > lipschitz:
                lipschitz = 1.05 * steepest
                step, dual_step = _steps(lipschitz)
            change = state.move(step)
            state.move_dual(dual_step, threshold)
            if on_iteration is not None and on_iteration(Status(iteration, self.max_iterations, change)):
                break
            if change < goal:
                break
        return Reconstruction(x, iteration, change, (y,))


def _steps(lipschitz: float) -> tuple[float, float]:
    """Return the steps of image and dual variable with which the iteration converges (Condat, theorem 3.1)."""
    dual_step = DUAL_STEP * lipschitz
    return 0.99 / (lipschitz / 2 + 4 * dual_step), dual_step


class _PrimalDual:
    """Images and dual variables, moved frame by frame by one thread each; x and y are changed in place.

    Parameters
    ----------
    operator
        The normal operator over its mean diagonal.
    b, x, y
        (frame, y, x) complex: the right-hand side over that, the images, the dual variables.
    """

    def __init__(self, operator: WatchedNormal, b: Tensor, x: Tensor, y: Tensor) -> None:
        self._operator, self._b, self._x, self._y = operator, b, x, y
        self._moved, self._ahead = torch.zeros_like(x), torch.empty_like(x)

    def apply(self) -> float:
        """Apply the normal operator; return how steep it was seen to be."""

        def run(part: slice) -> Tensor:
            return self._operator(self._x, self._moved, part)

        return max(float(value) for value in map_frames(run, self._operator.parts))

    def move(self, step: float) -> float:
        """Move the images by a step down the gradient; return the size of the move relative to theirs."""

        def run(part: slice) -> tuple[Tensor, Tensor]:
            moved, x = self._moved[part], self._x[part]
            torch.sub(self._operator.applied[part], self._b[part], out=moved)
            moved.add_(_shifted(self._y, part, -1)).sub_(self._y[part]).mul_(-step)
            # The dual variables follow 2 x_new - x, which is x + 2 moved.
            torch.add(x, moved, alpha=2, out=self._ahead[part])
            x.add_(moved)
            return inner(moved, moved).sum(), inner(x, x).sum()

        squares = torch.stack([torch.stack(pair) for pair in map_frames(run, self._operator.parts)]).sum(0)
        return math.sqrt(float(squares[0] / squares[1].clamp_min(1e-30)))

    def move_dual(self, step: float, threshold: float) -> None:
        """Move the dual variables up the differences in time, and back to where they are no larger than a threshold."""

        def run(part: slice) -> None:
            y = self._y[part]
            y.add_(_shifted(self._ahead, part, 1), alpha=step).sub_(self._ahead[part], alpha=step)
            y.div_((y.abs() / max(threshold, 1e-30)).clamp_min_(1.0))

        map_frames(run, self._operator.parts)


def _shifted(values: Tensor, part: slice, by: int) -> Tensor:
    """Return the frames that lie ``by`` after those of a part, on a circle."""
    n_frames = values.shape[0]
    if part.stop - part.start == 1:
        first = (part.start + by) % n_frames
        return values[first : first + 1]
    return torch.roll(values, -by, 0)[part]
