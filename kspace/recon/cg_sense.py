"""CG-SENSE: the regularised least-squares image, by conjugate gradients (Pruessmann et al., MRM 46:638, 2001)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.recon.method import OnIteration, Reconstruction, Status


@dataclass(frozen=True)
class CgSense:
    """Minimise |W^(1/2) (E x - s)|^2 + l2 d |x|^2, where d is the mean diagonal of E^H W E of each frame.

    Parameters
    ----------
    l2
        Weight of the Tikhonov term relative to the data.
    max_iterations
        At most so many; a warm start usually needs a third.
    tolerance
        Stop when the residual of the normal equations has fallen to this share of their right-hand side.
    density
        Weights of the data, see :class:`~kspace.equations.NormalEquations`.
    """

    l2: float = 0.02
    max_iterations: int = 30
    tolerance: float = 3e-3
    density: Density = "ramp"
    name: str = "cg-sense"

    def __call__(
        self,
        equations: NormalEquations,
        maps: Tensor,
        *,
        noise_std: float | None = None,
        start: Reconstruction | None = None,
        on_iteration: OnIteration | None = None,
    ) -> Reconstruction:
        """Reconstruct; see :class:`kspace.recon.method.Method`. The frames are independent problems solved together."""
        b = equations.right_hand_side(maps)
        damping = (self.l2 * equations.weight).to(b.device, b.real.dtype)[:, None, None]
        size = _norms(b)
        goal = self.tolerance * size
        x = torch.zeros_like(b) if start is None else start.image.clone()
        residual = b.clone() if start is None else b - equations.normal(x, maps) - damping * x
        direction = residual.clone()
        squared = _norms(residual) ** 2
        iteration, change = 0, _largest_ratio(squared.sqrt(), size)
        while iteration < self.max_iterations and bool((squared.sqrt() > goal).any()):
            iteration += 1
            image = equations.normal(direction, maps) + damping * direction
            curvature = (direction.conj() * image).real.double().sum((-2, -1))
            # A frame that has converged, or has no spokes, stands still.
            step = torch.where(curvature > 0, squared / curvature.clamp_min(1e-300), 0.0).to(b.real.dtype)
            x += step[:, None, None] * direction
            residual -= step[:, None, None] * image
            renewed = _norms(residual) ** 2
            ratio = torch.where(squared > 0, renewed / squared.clamp_min(1e-300), 0.0).to(b.real.dtype)
            direction = residual + ratio[:, None, None] * direction
            squared = renewed
            change = _largest_ratio(squared.sqrt(), size)
            if on_iteration is not None and on_iteration(Status(iteration, self.max_iterations, change)):
                break
        return Reconstruction(x, iteration, change)


def _norms(images: Tensor) -> Tensor:
    """Return (frame,) float64 l2 norms."""
    norms: Tensor = torch.linalg.vector_norm(images, dim=(-2, -1)).double()
    return norms


def _largest_ratio(values: Tensor, sizes: Tensor) -> float:
    used = sizes > 0
    return float((values[used] / sizes[used]).max()) if bool(used.any()) else 0.0
