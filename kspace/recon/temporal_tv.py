"""Compressed sensing with temporal total variation, by a primal-dual method.

Minimise  1/2 |W^(1/2) (E x - s)|^2 + lambda sum |x_(f+1) - x_f|  over cine images x, circular in time (the model of
GRASP, Feng et al., MRM 72:707, 2014; the algorithm of Condat, J. Optim. Theory Appl. 158:460, 2013). One normal
operator an iteration; the dual variable is kept, so that a warm start goes on where the last decision ended.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.recon.method import OnIteration, Reconstruction, Status
from kspace.toeplitz import sense_normal

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
        Stop when an iteration changes the image by less than this, relative to its norm.
    """

    noise_factor: float = 1.0
    signal_factor: float = 0.01
    max_iterations: int = 30
    tolerance: float = 3e-3
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
        # In units of the mean diagonal, the operator is about the identity and lambda is in units of the image.
        scale = equations.scale
        b = equations.right_hand_side(maps)
        if scale <= 0:
            return Reconstruction(b) if start is None else replace(start, iterations=0, change=0.0)
        b /= scale
        threshold = self._threshold(equations, b, noise_std)
        lipschitz = largest_eigenvalue(equations, maps) / scale
        step, dual_step = _steps(lipschitz)
        if start is None:
            # All spokes together, the same in every frame: free of streaks, and of any temporal variation.
            average = equations.right_hand_side(maps).sum(0) / max(float(equations.weight.sum()), 1e-30)
            x, y = average.expand_as(b).clone(), torch.zeros_like(b)
        else:
            x = start.image.clone()
            y = start.state[0].clone() if start.state else torch.zeros_like(b)
        iteration, change = 0, math.inf
        before, moved = b, torch.zeros_like(b)
        for iteration in range(1, self.max_iterations + 1):
            applied = equations.normal(x, maps).div_(scale)
            steepest = _curvature(moved, applied - before, x)
            if steepest > lipschitz:
                lipschitz = 1.05 * steepest
                step, dual_step = _steps(lipschitz)
            before = applied
            moved = (applied - b).add_(_difference_adjoint(y)).mul_(-step)
            # y + sigma D (2 x_new - x), with 2 x_new - x = x + 2 moved
            x_ahead = torch.add(x, moved, alpha=2)
            x.add_(moved)
            y.add_(_difference(x_ahead), alpha=dual_step)
            y.div_((y.abs() / max(threshold, 1e-30)).clamp_min_(1.0))
            change = float(torch.linalg.vector_norm(moved) / torch.linalg.vector_norm(x).clamp_min(1e-30))
            if on_iteration is not None and on_iteration(Status(iteration, self.max_iterations, change)):
                break
            if change < self.tolerance:
                break
        return Reconstruction(x, iteration, change, (y,))

    def _threshold(self, equations: NormalEquations, b: Tensor, noise_std: float | None) -> float:
        level = float(torch.linalg.vector_norm(b)) / math.sqrt(b.numel())
        spokes = max(float(equations.spokes.mean()), 1.0)
        noise = 0.0 if noise_std is None else equations.noise_in_image(noise_std)
        return self.noise_factor * noise + self.signal_factor * level / math.sqrt(spokes) * math.sqrt(b.shape[-1])


def _steps(lipschitz: float) -> tuple[float, float]:
    """Return the steps of image and dual variable with which the iteration converges (Condat, theorem 3.1)."""
    dual_step = DUAL_STEP * lipschitz
    return 0.99 / (lipschitz / 2 + 4 * dual_step), dual_step


def _curvature(moved: Tensor, applied: Tensor, x: Tensor) -> float:
    """Return the largest <m, A m> / <m, m> over frames: no more than the largest eigenvalue, in exact arithmetic.

    The eigenvalue was sought in a few frames only. Where another one is steeper, its error grows until the last move
    consists of it, and this shows it. Moves so small that A m is mostly rounding are passed over.
    """
    squared = moved.abs().square().sum((-2, -1))
    used = squared > 1e-8 * x.abs().square().sum((-2, -1))
    ratio = (moved.conj() * applied).real.sum((-2, -1))[used] / squared[used]
    return float(ratio.max()) if len(ratio) else 0.0


def _difference(images: Tensor) -> Tensor:
    """Return x_(f+1) - x_f, circular."""
    return torch.roll(images, -1, dims=-3).sub_(images)


def _difference_adjoint(values: Tensor) -> Tensor:
    return torch.roll(values, 1, dims=-3).sub_(values)


def largest_eigenvalue(equations: NormalEquations, maps: Tensor, *, n_steps: int = 12, n_candidates: int = 3) -> float:
    """Return the largest eigenvalue of E^H W E over all frames, a few per cent above it.

    The Lanczos process (Golub and Van Loan, Matrix Computations, 10.1), on the frames whose spectra peak highest: the
    peak bounds the eigenvalue from above, and neighbouring frames of a radial scan are alike. Twelve steps come within
    2 % from below, which a margin of 5 % covers; the power method is still 20 % off after six.
    """
    peaks = equations.spectrum.amax((-2, -1))
    chosen = torch.topk(peaks, min(n_candidates, equations.n_frames)).indices
    spectrum = equations.spectrum[chosen]
    q = equations.right_hand_side(maps)[chosen]
    norm = torch.linalg.vector_norm(q, dim=(-2, -1), keepdim=True)
    # Without signal, as good as any: a flat image.
    q = torch.where(norm > 0, q / norm.clamp_min(1e-30), 1 / math.sqrt(math.prod(equations.matrix)))
    before = torch.zeros_like(q)
    beta = torch.zeros_like(norm)
    diagonal, off = [], []
    for _ in range(n_steps):
        v = sense_normal(q, maps, spectrum) - beta * before
        alpha = (q.conj() * v).real.sum((-2, -1), keepdim=True)
        v -= alpha * q
        beta = torch.linalg.vector_norm(v, dim=(-2, -1), keepdim=True)
        diagonal.append(alpha.flatten().double().cpu())
        off.append(beta.flatten().double().cpu())
        q, before = v / beta.clamp_min(1e-30), q
    tridiagonal = torch.diag_embed(torch.stack(diagonal, -1))
    side = torch.diag_embed(torch.stack(off[:-1], -1), offset=1)
    largest = torch.linalg.eigvalsh(tridiagonal + side + side.mT).max()
    return 1.05 * float(largest)
