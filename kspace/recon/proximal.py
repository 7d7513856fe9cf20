"""What the methods of compressed sensing share: units, steps, thresholds, and an accelerated proximal gradient method.

All minimise 1/2 |W^(1/2) (E x - s)|^2 + a penalty in time. Divided by the mean diagonal of E^H W E, the operator is
about the identity and thresholds are in units of the image, so that they can follow the noise.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from kspace.equations import NormalEquations
from kspace.parallel import map_frames
from kspace.recon.method import OnIteration, Reconstruction, Status, require_same_shape
from kspace.toeplitz import SenseNormal, sense_normal


class Scaled:
    """The normal equations over the mean diagonal of their operator.

    Parameters
    ----------
    equations, maps
        The sums, and (coil, y, x) complex.
    noise_std
        Standard deviation of the complex noise of one whitened sample, or None.

    Attributes
    ----------
    scale
        The mean diagonal; 0 where nothing was measured.
    b
        (frame, y, x) complex, E^H W s over ``scale``.
    level
        Root mean square of ``b``.
    noise
        Standard deviation of the noise in a pixel of ``b``; 0 where it is not known.
    streaks
        About how large the streaks of undersampling are: the level times the root of pixels across over spokes.
    """

    def __init__(self, equations: NormalEquations, maps: Tensor, noise_std: float | None) -> None:
        self._equations, self._maps, self._noise_std = equations, maps, noise_std
        self.scale = equations.scale
        self.b = equations.right_hand_side(maps)
        if self.scale <= 0:
            return
        self.b /= self.scale
        self.level = float(torch.linalg.vector_norm(self.b)) / math.sqrt(self.b.numel())
        self.noise = 0.0 if noise_std is None else equations.noise_in_image(noise_std)
        spokes = max(float(equations.spokes.mean()), 1.0)
        self.streaks = self.level / math.sqrt(spokes) * math.sqrt(self.b.shape[-1])

    def unmeasured(self, start: Reconstruction | None) -> Reconstruction:
        """Return what follows from no data at all: nought, or what was there before."""
        return Reconstruction(self.b) if start is None else replace(start, iterations=0, change=0.0)

    def threshold(self, noise_factor: float, signal_factor: float) -> float:
        """Return a weight in units of the image: so much of the noise and so much of the streaks."""
        return noise_factor * self.noise + signal_factor * self.streaks

    def goal(self, tolerance: float, noise_share: float) -> float:
        """Return the relative change of the images at which to stop: the tolerance, or a share of the noise."""
        if self._noise_std is None:
            return tolerance
        return max(tolerance, noise_share * self.noise / max(self.level, 1e-30))

    def first(self, start: Reconstruction | None) -> Tensor:
        """Return (frame, y, x) to begin with, a copy: the earlier images, or the average over time in every frame.

        All spokes together are free of streaks, and of any temporal variation.
        """
        if start is not None:
            require_same_shape(start.image, self.b)
            return start.image.clone()
        total = max(float(self._equations.weight.sum()), 1e-30)
        average = self._equations.right_hand_side(self._maps).sum(0) / total
        return average.expand_as(self.b).clone()

    def peak(self) -> float:
        """Return the largest value of the scaled spectra; eigenvalues stay below it where maps are of size 1."""
        return float(self._equations.spectrum.amax()) / self.scale

    def lipschitz(self) -> float:
        """Return the largest eigenvalue of the scaled operator, see :func:`largest_eigenvalue`."""
        return largest_eigenvalue(self._equations, self._maps) / self.scale

    def operator(self) -> WatchedNormal:
        """Return the scaled operator."""
        return WatchedNormal(SenseNormal(self._maps, self._equations.spectrum), self.scale, self.b)


class WatchedNormal:
    """The normal operator over its mean diagonal, that tells how steep it was seen to be.

    Parameters
    ----------
    normal, scale
        The operator, and its mean diagonal.
    b
        (frame, y, x) complex, the right-hand side over ``scale``.

    Attributes
    ----------
    applied
        (frame, y, x) complex, its last value.
    parts
        How the frames are cut into pieces that are worked on side by side.
    """

    def __init__(self, normal: SenseNormal, scale: float, b: Tensor) -> None:
        self._normal, self._scale = normal, scale
        self.applied, self._before = torch.empty_like(b), b.clone()
        self.parts = normal.parts

    def __call__(self, x: Tensor, moved: Tensor, part: slice) -> Tensor:
        """Apply to some frames of x; return the largest <m, A m> / <m, m> over them, m being the last move of x.

        It is no more than the largest eigenvalue, in exact arithmetic, which was sought in a few frames only. Where
        another one is steeper, its error grows until the last move consists of it, and this shows it. Moves so small
        that A m is mostly rounding are passed over.
        """
        self.applied[part] = self._normal(x[part], part).div_(self._scale)
        m = moved[part]
        product = inner(m, self.applied[part] - self._before[part])
        self._before[part] = self.applied[part]
        squared = inner(m, m)
        used = squared > 1e-8 * inner(x[part], x[part])
        ratio = torch.where(used, product / squared.clamp_min(1e-30), 0.0)
        return ratio.max()


class Shrink(Protocol):
    """The proximal operator of a penalty."""

    def __call__(self, components: Tensor, step: float, iteration: int) -> None:
        """Change (component, frame, y, x) in place to argmin_v |v - u|^2 / (2 step) + penalty(v)."""
        ...


def descend(
    scaled: Scaled,
    components: Tensor,
    shrink: Shrink,
    *,
    max_iterations: int,
    goal: float,
    on_iteration: OnIteration | None,
    steepness: float = 0.0,
) -> Reconstruction:
    """Minimise 1/2 <x, A x> - <b, x> + penalty over the components of which the images x are the sum.

    The proximal optimised gradient method (Taylor, Hendrickx and Glineur, SIAM J. Optim. 27:1283, 2017), whose momentum
    starts anew where it points uphill (Kim and Fessler, J. Optim. Theory Appl. 178:240, 2018; for L+S Lin and Fessler,
    IEEE Trans. Comput. Imaging 5:17, 2019). Its bound is half that of FISTA, for the same work: one normal operator an
    iteration.

    Parameters
    ----------
    scaled
        A and b.
    components
        (component, frame, y, x) complex, where to start; changed in place.
    shrink
        The penalty.
    max_iterations, goal
        At most so many; ends when an iteration changes the images by less than this, relative to their norm.
    on_iteration
        Hears of every iteration and may stop it.
    steepness
        Of an earlier call with fewer spokes, whose search for the largest eigenvalue costs as much as an iteration or
        two and need not be repeated: with the scan's length it changes as the spectra's peak does. Should it be too
        small, that shows (:class:`WatchedNormal`).

    Returns
    -------
    The images, with the components as state.
    """
    peak = scaled.peak()
    lipschitz = steepness * peak if steepness > 0 else scaled.lipschitz()
    # A step of each of n components moves their sum by n steps.
    state = _Descent(scaled, components, 1 / (lipschitz * len(components)))
    iteration, change = 0, math.inf
    for iteration in range(1, max_iterations + 1):
        steepest = 1.05 * state.apply() * len(components)
        if steepest * state.step > 1.05:
            state.begin(1 / steepest)
        shrink(state.components, state.look_ahead(), iteration)
        change = state.settle()
        if on_iteration is not None and on_iteration(Status(iteration, max_iterations, change)):
            break
        if change < goal:
            break
    seen = 1 / (state.step * len(components) * peak)
    return Reconstruction(components.sum(0), iteration, change, tuple(components), steepness=seen)


class _Descent:
    """The iterates of :func:`descend`, moved frame by frame by one thread each; components are changed in place.

    In the letters of Kim and Fessler, ``components`` are first x, then z and, shrunk, the next x.
    """

    def __init__(self, scaled: Scaled, components: Tensor, step: float) -> None:
        self._operator, self._b, self.components = scaled.operator(), scaled.b, components
        # Where a step down from x ends, where the one before ended, and the same for the whole objective.
        self._stepped, self._composite = components.clone(), components.clone()
        self._x, self._z = components.clone(), components.clone()
        self._images, self._moved = components.sum(0), torch.zeros_like(scaled.b)
        self.begin(step)

    def begin(self, step: float) -> None:
        """Begin again without momentum, with steps of this length."""
        self.step, self._theta, self._reach = step, 1.0, step

    def apply(self) -> float:
        """Apply the normal operator; return how steep it was seen to be."""

        def run(part: slice) -> Tensor:
            images = self.components[:, part].sum(0)
            torch.sub(images, self._images[part], out=self._moved[part])
            self._images[part] = images
            return self._operator(self._images, self._moved, part)

        return max(float(value) for value in map_frames(run, self._operator.parts))

    def look_ahead(self) -> float:
        """Replace the components x by z, which lies ahead; return the step with which to shrink it."""
        theta = (1 + math.sqrt(1 + 4 * self._theta**2)) / 2
        momentum, overshoot = (self._theta - 1) / theta, self._theta / theta
        back = momentum * self.step / self._reach
        self._reach = self.step * (2 * self._theta + theta - 1) / theta
        self._theta = theta

        def run(part: slice) -> None:
            x, z, old = self.components[:, part], self._z[:, part], self._stepped[:, part]
            self._x[:, part] = x
            stepped = torch.sub(x, self._operator.applied[part] - self._b[part], alpha=self.step)
            ahead = stepped + momentum * (stepped - old) + overshoot * (stepped - x) + back * (z - x)
            old.copy_(stepped)
            z.copy_(ahead)
            x.copy_(ahead)

        map_frames(run, self._operator.parts)
        return self._reach

    def settle(self) -> float:
        """Take the shrunk components for x; return the change of the images relative to their norm."""

        def measure(part: slice) -> Tensor:
            x, before = self.components[:, part], self._x[:, part]
            # The penalty's gradient is what shrinking took off, over its step.
            taken = (self._z[:, part] - x).mul_(self.step / self._reach)
            composite = self._stepped[:, part] - taken
            uphill = before - composite
            moved = composite - self._composite[:, part]
            self._composite[:, part] = composite
            progress = torch.linalg.vecdot(uphill.flatten(), moved.flatten()).real
            images = x.sum(0)
            change = images - self._images[part]
            return torch.stack((progress, inner(change, change).sum(), inner(images, images).sum()))

        progress, change, size = torch.stack(map_frames(measure, self._operator.parts)).sum(0).tolist()
        # <G, move> > 0, where G = (x before - composite) / step is the gradient of all that is minimised.
        if progress > 0:
            self.begin(self.step)
        return math.sqrt(change / max(size, 1e-30))


def inner(a: Tensor, b: Tensor) -> Tensor:
    """Return the (frame,) real parts of the scalar products of two (frame, y, x) cines."""
    products: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1)).real
    return products


def soft(values: Tensor, threshold: float) -> Tensor:
    """Shrink complex values towards nought by a threshold, in place; return them."""
    return values.mul_(1 - threshold / values.abs().clamp_min_(max(threshold, 1e-30)))


def shrinkage(gram: Tensor, threshold: float) -> Tensor:
    """Return Q such that Q X has the singular values of X less a threshold, where positive (Cai et al., 2010).

    Q = V diag(max(1 - t / s, 0)) V^H from the eigenvectors of X X^H. Frames are few and pixels many, so that the
    product costs far less than the singular vectors of X. It is taken apart in double precision; what single precision
    left in it hides singular values below 3e-4 of the largest, which no useful threshold keeps.

    Parameters
    ----------
    gram
        (..., frame, frame), X X^H.
    threshold
        What is taken off.

    Returns
    -------
    (..., frame, frame), of the dtype of ``gram``.
    """
    values, vectors = torch.linalg.eigh(gram.to(torch.complex128))
    sizes = values.clamp_min(0).sqrt()
    kept = torch.where(sizes > threshold, 1 - threshold / sizes.clamp_min(1e-300), 0.0)
    product: Tensor = ((vectors * kept[..., None, :]) @ vectors.mH).to(gram.dtype)
    return product


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
