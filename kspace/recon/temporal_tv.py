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
from kspace.parallel import map_frames
from kspace.recon.method import OnIteration, Reconstruction, Status, require_same_shape
from kspace.toeplitz import SenseNormal, sense_normal

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
            require_same_shape(start.image, b)
            x = start.image.clone()
            y = start.state[0].clone() if start.state else torch.zeros_like(b)
        state = _PrimalDual(SenseNormal(maps, equations.spectrum), scale, b, x, y)
        goal = self.tolerance
        if noise_std is not None:
            level = float(torch.linalg.vector_norm(b)) / math.sqrt(b.numel())
            goal = max(goal, self.noise_share * equations.noise_in_image(noise_std) / max(level, 1e-30))
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

    def _threshold(self, equations: NormalEquations, b: Tensor, noise_std: float | None) -> float:
        level = float(torch.linalg.vector_norm(b)) / math.sqrt(b.numel())
        spokes = max(float(equations.spokes.mean()), 1.0)
        noise = 0.0 if noise_std is None else equations.noise_in_image(noise_std)
        return self.noise_factor * noise + self.signal_factor * level / math.sqrt(spokes) * math.sqrt(b.shape[-1])


def _steps(lipschitz: float) -> tuple[float, float]:
    """Return the steps of image and dual variable with which the iteration converges (Condat, theorem 3.1)."""
    dual_step = DUAL_STEP * lipschitz
    return 0.99 / (lipschitz / 2 + 4 * dual_step), dual_step


class _PrimalDual:
    """Images and dual variables, moved frame by frame by one thread each; x and y are changed in place.

    Parameters
    ----------
    normal
        The normal operator, of which ``scale`` is the mean diagonal.
    b, x, y
        (frame, y, x) complex: the right-hand side over ``scale``, the images, the dual variables.
    """

    def __init__(self, normal: SenseNormal, scale: float, b: Tensor, x: Tensor, y: Tensor) -> None:
        self._normal, self._scale, self._b, self._x, self._y = normal, scale, b, x, y
        self._applied, self._before = torch.empty_like(x), b.clone()
        self._moved, self._ahead = torch.zeros_like(x), torch.empty_like(x)

    def apply(self) -> float:
        """Apply the normal operator; return the largest <m, A m> / <m, m> over frames, m being the last move.

        It is no more than the largest eigenvalue, in exact arithmetic, which was sought in a few frames only. Where
        another one is steeper, its error grows until the last move consists of it, and this shows it. Moves so small
        that A m is mostly rounding are passed over.
        """

        def run(part: slice) -> Tensor:
            self._applied[part] = self._normal(self._x[part], part).div_(self._scale)
            moved = self._moved[part]
            product = _inner(moved, self._applied[part] - self._before[part])
            self._before[part] = self._applied[part]
            squared = _inner(moved, moved)
            used = squared > 1e-8 * _inner(self._x[part], self._x[part])
            ratio = torch.where(used, product / squared.clamp_min(1e-30), 0.0)
            return ratio.max()

        return max(float(value) for value in map_frames(run, self._normal.parts))

    def move(self, step: float) -> float:
        """Move the images by a step down the gradient; return the size of the move relative to theirs."""

        def run(part: slice) -> tuple[Tensor, Tensor]:
            moved, x = self._moved[part], self._x[part]
            torch.sub(self._applied[part], self._b[part], out=moved)
            moved.add_(_shifted(self._y, part, -1)).sub_(self._y[part]).mul_(-step)
            # The dual variables follow 2 x_new - x, which is x + 2 moved.
            torch.add(x, moved, alpha=2, out=self._ahead[part])
            x.add_(moved)
            return _inner(moved, moved).sum(), _inner(x, x).sum()

        squares = torch.stack([torch.stack(pair) for pair in map_frames(run, self._normal.parts)]).sum(0)
        return math.sqrt(float(squares[0] / squares[1].clamp_min(1e-30)))

    def move_dual(self, step: float, threshold: float) -> None:
        """Move the dual variables up the differences in time, and back to where they are no larger than a threshold."""

        def run(part: slice) -> None:
            y = self._y[part]
            y.add_(_shifted(self._ahead, part, 1), alpha=step).sub_(self._ahead[part], alpha=step)
            y.div_((y.abs() / max(threshold, 1e-30)).clamp_min_(1.0))

        map_frames(run, self._normal.parts)


def _shifted(values: Tensor, part: slice, by: int) -> Tensor:
    """Return the frames that lie ``by`` after those of a part, on a circle."""
    n_frames = values.shape[0]
    if part.stop - part.start == 1:
        first = (part.start + by) % n_frames
        return values[first : first + 1]
    return torch.roll(values, -by, 0)[part]


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the (frame,) real parts of the scalar products of two (frame, y, x) cines."""
    products: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1)).real
    return products


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
