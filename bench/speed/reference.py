"""What the results are compared with, in float64: made once, checked against a direct sum, and cached."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kspace.nufft import Accuracy, Nufft, exact_transform
from kspace.toeplitz import psf_spectrum, sense_normal

if TYPE_CHECKING:
    from bench.speed.problem import Problem

EXACT = Accuracy(1e-12, 2.0, double=True)
CG_TOLERANCE = 1e-7
"""Relative residual at which the float64 solution counts as converged: its own error is then below 1e-4."""
CG_ITERATIONS = 1000


def make_references(problem: Problem, *, noise: float, ridge: float) -> dict[str, Any]:
    """Return noisy samples of all frames, and forward, adjoint, normal and CG-SENSE of the checked frames."""
    size = problem.size
    grid, coils = (size.matrix, size.matrix), size.coils
    maps = torch.from_numpy(problem.maps).to(torch.complex128)
    rng = np.random.default_rng(0)
    clean = []
    plans = {}
    for frame, image in enumerate(torch.from_numpy(problem.images).to(torch.complex128)):
        points = torch.from_numpy(problem.positions[frame].reshape(-1, 2))
        plan = Nufft(points, grid, n_transforms=coils, accuracy=EXACT, dtype=torch.complex128)
        clean.append(plan.forward(image * maps).numpy())
        if frame in problem.check_frames:
            plans[frame] = plan
    exact = np.stack(clean)
    std = noise * float(np.sqrt((np.abs(exact) ** 2).mean()))
    samples = exact + std / np.sqrt(2) * (rng.standard_normal(exact.shape) + 1j * rng.standard_normal(exact.shape))
    samples = samples.astype(np.complex64)
    points = torch.from_numpy(problem.positions[0, :1].reshape(-1, 2))
    first = torch.from_numpy(problem.images[0]).to(torch.complex128) * maps[0]
    direct = exact_transform(first, points).numpy()
    shape = (coils, size.spokes, size.readout)
    made: dict[str, Any] = {
        "samples": samples.reshape(size.frames, *shape),
        "noise_std": np.array(std),
        "forward": exact[problem.check_frames].reshape(-1, *shape),
        "selfcheck": np.linalg.norm(exact[0, 0, : size.readout] - direct) / np.linalg.norm(direct),
    }
    adjoint, normal = [], []
    for frame, plan in plans.items():
        spokes = torch.from_numpy(samples[frame]).to(torch.complex128)
        adjoint.append((plan.adjoint(spokes) * maps.conj()).sum(0))
        normal.append((plan.adjoint(torch.from_numpy(exact[frame])) * maps.conj()).sum(0))
    made["adjoint"], made["normal"] = torch.stack(adjoint).numpy(), torch.stack(normal).numpy()
    spectra = torch.stack([_spectrum(problem, frame, grid) for frame in problem.check_frames])
    made["cg-sense"] = _solve(torch.stack(adjoint), maps, spectra, ridge * size.diagonal).numpy()
    return made


def _spectrum(problem: Problem, frame: int, grid: tuple[int, int]) -> Tensor:
    points = torch.from_numpy(problem.positions[frame].reshape(-1, 2))
    return psf_spectrum(points, torch.ones(len(points), dtype=torch.float64), grid, accuracy=EXACT)


def _solve(b: Tensor, maps: Tensor, spectra: Tensor, damping: float) -> Tensor:
    """Plain conjugate gradients on (frame, y, x), each frame with its own steps, until all have converged."""
    x, r, p = torch.zeros_like(b), b.clone(), b.clone()
    rr = _dot(r, r)
    goal = CG_TOLERANCE**2 * rr
    for _ in range(CG_ITERATIONS):
        q = sense_normal(p, maps, spectra) + damping * p
        step = rr / _dot(p, q)
        x += step * p
        r -= step * q
        new = _dot(r, r)
        if bool((new <= goal).all()):
            break
        p = r + (new / rr) * p
        rr = new
    return x


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a.conj() * b).real.sum((-2, -1), keepdim=True)
