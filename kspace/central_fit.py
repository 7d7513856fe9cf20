"""The image that the centres of all spokes agree best with, one for each coil, and how well they agree.

What is left over, and how it changes with the gradient delays, is what :mod:`kspace.delay_estimate` makes small. An
object off the centre is a linear phase, which that image holds as well as any.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.delays import LARGEST, GradientDelays, displacement, displacements_by, spoke_steps
from kspace.errors import InputError
from kspace.nufft import Nufft
from kspace.scan import RadialScan

_SEARCHED = 6.0  # samples that the estimate looks
_FOLDS = 5
FEWEST_SPOKES = 8
"""With a signal, that a fit needs."""


@dataclass(frozen=True)
class Agreement:
    """How well spokes agree under given delays.

    Parameters
    ----------
    cost
        Share of the energy that no image explains, its damping included.
    scores, curvature
        (3, spoke) and (3, 3) float64: the negative half gradient of the cost by spoke, and the Gauss-Newton matrix.
    """

    cost: float
    scores: Tensor
    curvature: Tensor


class CentralFit:
    """The images that explain the centre of k-space best, one per frame (or slice) and coil.

    Parameters
    ----------
    scan
        Whitened spokes. Where the source fixes frames and each has 20 spokes, each gets its own images, so that
        contrast may change between them; otherwise a beating heart is averaged over.
    radius
        Cycles per field of view up to which samples count.
    damping
        Tikhonov weight of the images relative to the mean diagonal of the normal matrix.
    most_spokes
        At most so many, the first ones, of each group.
    most_groups
        At most so many groups, evenly spread; all of them by default.
    searched
        Largest displacement in samples that can be evaluated; more takes more pixels.
    """

    def __init__(
        self,
        scan: RadialScan,
        *,
        radius: float = 6.0,
        damping: float = 1e-2,
        most_spokes: int = 10_000,
        most_groups: int | None = None,
        searched: float = _SEARCHED,
    ) -> None:
        spoken = (scan.samples.abs() > 0).flatten(1).any(1)
        self.groups = _groups(scan, spoken, most_spokes, most_groups)
        self.n_spokes = sum(len(group) for group in self.groups)
        if self.n_spokes < FEWEST_SPOKES:
            raise InputError(f"{self.n_spokes} spokes with signal", expected=f"at least {FEWEST_SPOKES}")
        self.direction, self.step = spoke_steps(scan.positions)
        distance = torch.linalg.vector_norm(scan.positions.double(), dim=-1)
        central = torch.nonzero((distance <= radius / max(scan.matrix) + 1e-9).any(0))[:, 0]
        if len(central) < 3:
            raise InputError("the spokes do not sample the centre of k-space", expected="three samples there")
        self.window = slice(int(central[0]), int(central[-1]) + 1)
        self.positions = scan.positions[:, self.window].double()
        samples = scan.samples[:, :, self.window].to(torch.complex128)
        self.samples = samples / torch.linalg.vector_norm(samples[torch.cat(self.groups)])
        self._damping, self._searched = damping, searched
        # Few pixels, as many as the disc and the displacements searched need, over the whole field of view.
        reach = float(self.positions.abs().max()) + searched * float(self.step.max())
        self._grid = (2 * math.ceil(reach * scan.matrix[0] + 2), 2 * math.ceil(reach * scan.matrix[1] + 2))
        pixel = [size / few for size, few in zip(scan.matrix, self._grid, strict=True)]
        self._pixel = torch.tensor(pixel, dtype=torch.float64, device=scan.samples.device)
        r = [(torch.arange(n, device=self._pixel.device) - n // 2) * p for n, p in zip(self._grid, pixel, strict=True)]
        self._to_slopes = -2j * math.pi * torch.stack(torch.meshgrid(*r, indexing="ij"))
        rows, columns = (torch.arange(n)[:, None] - torch.arange(n) + n for n in self._grid)
        places = rows[:, None, :, None] * 2 * self._grid[1] + columns[:, None]
        self._places = places.reshape(math.prod(self._grid), -1).to(self._pixel.device)

    def evaluate(self, delays: Tensor, *, slopes: bool = True) -> Agreement:
        """Return how well the spokes agree under (3,) float64 delays (x, y, xy); infinitely badly far outside."""
        scores = torch.zeros((3, len(self.positions)), dtype=torch.float64, device=self.positions.device)
        curvature = torch.zeros((3, 3), dtype=torch.float64, device=self.positions.device)
        if float(GradientDelays(*bounded(delays)).largest) > self._searched:
            return Agreement(math.inf, scores, curvature)
        bases, cost = displacements_by(self.direction, self.step), 0.0
        for group in self.groups:
            solve = _Solver(self, group, delays)
            images = solve.image_of(self.samples[group])
            missing = self.samples[group] - solve.spokes_of(images)
            # At the best image, the damped cost is the part of the data that its normal equations leave over.
            cost += float((self.samples[group].conj() * missing).real.sum())
            if not slopes:
                continue
            along = [solve.spokes_of(images * slope) for slope in self._to_slopes]
            moved = [along[0] * b[group, :1, None] + along[1] * b[group, 1:, None] for b in bases]
            free = [change - solve.spokes_of(solve.image_of(change)) for change in moved]
            scores[:, group] = torch.stack([(change.conj() * missing).real.sum((1, 2)) for change in moved])
            curvature += torch.stack([torch.stack([(a.conj() * b).real.sum() for b in free]) for a in moved])
        return Agreement(cost, scores, 0.5 * (curvature + curvature.T))

    def predict(self, delays: Tensor) -> Tensor:
        """Return the (spoke, coil, window) samples of the best images; zeros for spokes that were not looked at."""
        predicted = torch.zeros_like(self.samples)
        for group in self.groups:
            solve = _Solver(self, group, delays)
            predicted[group] = solve.spokes_of(solve.image_of(self.samples[group]))
        return predicted

    def left_out(self, delays: Tensor) -> Tensor:
        """Return (spoke,) squared errors of foreseeing each spoke from four fifths of the others."""
        errors = []
        for group in self.groups:
            for fold in range(_FOLDS):
                chosen = torch.arange(len(group), device=group.device) % _FOLDS == fold
                if not bool(chosen.any()):
                    continue
                solve = _Solver(self, group[~chosen], delays)
                foreseen = solve.spokes_of(solve.image_of(self.samples[group[~chosen]]), group[chosen])
                errors.append(((foreseen - self.samples[group[chosen]]).abs() ** 2).sum((1, 2)))
        return torch.cat(errors)


class _Solver:
    """Damped least-squares images of a group of spokes at given delays."""

    def __init__(self, fit: CentralFit, spokes: Tensor, delays: Tensor) -> None:
        self._fit, self._spokes, self._delays = fit, spokes, delays
        self._plan = self._planned(spokes)
        rows, columns = fit._grid
        points = self._points(spokes)
        wide = Nufft(points, (2 * rows, 2 * columns), dtype=torch.complex128, accuracy="reference")
        ones = torch.ones((1, len(points)), dtype=torch.complex128, device=points.device)
        normal = wide.adjoint(ones).flatten()[fit._places] * (2 / math.sqrt(rows * columns))
        normal.diagonal().add_(fit._damping * len(points) / (rows * columns))
        self._factor = torch.linalg.cholesky(normal)

    def _points(self, spokes: Tensor) -> Tensor:
        fit = self._fit
        moved = displacement(self._delays, fit.direction[spokes], fit.step[spokes])
        return ((fit.positions[spokes] + moved[:, None]) * fit._pixel).reshape(-1, 2)

    def _planned(self, spokes: Tensor) -> Nufft:
        n_coils = self._fit.samples.shape[1]
        return Nufft(
            self._points(spokes), self._fit._grid, n_transforms=n_coils, dtype=torch.complex128, accuracy="reference"
        )

    def image_of(self, samples: Tensor) -> Tensor:
        """Return (coil, y, x) for (spoke, coil, window)."""
        seen = self._plan.adjoint(samples.transpose(0, 1).flatten(1))
        return torch.cholesky_solve(seen.flatten(1).T, self._factor).T.reshape(seen.shape)

    def spokes_of(self, images: Tensor, spokes: Tensor | None = None) -> Tensor:
        """Return (spoke, coil, window) for (coil, y, x), at the spokes given or those of the fit."""
        plan = self._plan if spokes is None else self._planned(spokes)
        return plan.forward(images).reshape(len(images), -1, self._fit.positions.shape[1]).transpose(0, 1)


def bounded(delays: Tensor) -> list[float]:
    """Return delays as numbers within what :class:`~kspace.delays.GradientDelays` takes."""
    return [max(-LARGEST, min(LARGEST, float(value))) for value in delays]


def _groups(scan: RadialScan, spoken: Tensor, most: int, most_groups: int | None) -> list[Tensor]:
    """Return the spokes with signal of each slice and, where there are enough of them, of each frame."""
    key = scan.slices
    if scan.frame is not None:
        fine = key * (int(scan.frame.max()) + 1 if scan.n_spokes else 1) + scan.frame
        _, counts = torch.unique(fine[spoken], return_counts=True)
        if bool((counts >= 20).all()):
            key = fine
    keys = torch.unique(key[spoken])
    if most_groups is not None and len(keys) > most_groups:
        keys = keys[torch.linspace(0, len(keys) - 1, most_groups).round().long()]
    return [torch.nonzero(spoken & (key == k))[:, 0][:most] for k in keys]
