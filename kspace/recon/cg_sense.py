"""CG-SENSE: the regularised least-squares image, by conjugate gradients (Pruessmann et al., MRM 46:638, 2001)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.recon.conjugate_gradients import solve
from kspace.recon.method import OnIteration, Reconstruction, require_same_shape
from kspace.recon.preconditioner import Circulant
from kspace.toeplitz import SenseNormal

_AVERAGE_ITERATIONS = 6  # one frame's, so that all of them cost a quarter of an iteration of 25 frames

_FLOOR = 1.0  # of the preconditioner, over the mean diagonal


@dataclass(frozen=True)
class CgSense:
    """Minimise |W^(1/2) (E x - s)|^2 + l2 d |x|^2, where d is the mean diagonal of E^H W E of each frame.

    All frames start from the average over time, which costs next to nothing and is nearer than nought, or from an
    earlier reconstruction.

    Parameters
    ----------
    l2
        Weight of the Tikhonov term relative to the data.
    max_iterations
        At most so many.
    tolerance
        A frame ends when the residual of its normal equations has fallen to this share of their right-hand side, in
        the norm of :mod:`kspace.recon.conjugate_gradients`,
    noise_share
        or, where the noise is known, to this share of what noise alone would leave there.
    density
        Weights of the data, see :class:`~kspace.equations.NormalEquations`.
    """

    l2: float = 0.02
    max_iterations: int = 100
    tolerance: float = 1e-3
    noise_share: float = 0.05
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
        """Reconstruct; see :class:`kspace.recon.method.Method`."""
        b = equations.right_hand_side(maps)
        damping = (self.l2 * equations.weight).to(b.device, b.real.dtype)
        if start is not None:
            require_same_shape(start.image, b)
            x = start.image
        elif equations.n_frames > 1:
            quick = replace(self, tolerance=0.01, max_iterations=_AVERAGE_ITERATIONS)
            # What has no spokes stays nought.
            x = quick(equations.over_time(), maps).image * (equations.weight > 0).to(b)[:, None, None]
        else:
            x = torch.zeros_like(b)
        normal = SenseNormal(maps, equations.spectrum)
        floor = _FLOOR * equations.weight.to(damping)
        circulant = Circulant(maps, equations.spectrum, damping, floor, normal.parts)
        goal = torch.zeros(equations.n_frames, dtype=torch.float64)
        if noise_std is not None:
            # The noise of E^H W s has the covariance E^H W^2 E, about the mean weight times E^H W E.
            mean_weight = equations.squared_weight / equations.weight.clamp_min(1e-30)
            goal = self.noise_share * noise_std * torch.sqrt(mean_weight * circulant.degrees_of_freedom().cpu())

        shift = damping.to(b.dtype)[:, None, None]

        def damped(images: Tensor, frames: slice) -> Tensor:
            return normal(images, frames).addcmul_(images, shift[frames])

        found = solve(
            damped,
            b,
            x,
            normal.parts,
            tolerance=self.tolerance,
            goal=goal,
            preconditioner=circulant,
            max_iterations=self.max_iterations,
            on_iteration=on_iteration,
        )
        return Reconstruction(found.image, found.iterations, found.residual)
