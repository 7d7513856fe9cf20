"""CG-SENSE: the regularised least-squares image, by conjugate gradients (Pruessmann et al., MRM 46:638, 2001)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.recon.conjugate_gradients import solve
from kspace.recon.method import OnIteration, Reconstruction, require_same_shape
from kspace.recon.preconditioner import FLOOR, Circulant
from kspace.recon.start import average_over_time, by_few_coils, damped
from kspace.toeplitz import SenseNormal


@dataclass(frozen=True)
class CgSense:
    """Minimise |W^(1/2) (E x - s)|^2 + l2 d |x|^2, where d is the mean diagonal of E^H W E of each frame.

    All frames start from an earlier reconstruction, or from what is cheap and near: the average over time, improved
    with few virtual coils (:mod:`kspace.recon.start`).

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
        weight = equations.weight.to(b.device, b.real.dtype)
        damping = self.l2 * weight
        normal = SenseNormal(maps, equations.spectrum)
        circulant = Circulant(maps, equations.spectrum, damping, FLOOR * weight, normal.parts)
        goal = torch.zeros(equations.n_frames, dtype=torch.float64)
        if noise_std is not None:
            # The noise of E^H W s has the covariance E^H W^2 E, about the mean weight times E^H W E.
            mean_weight = equations.squared_weight / equations.weight.clamp_min(1e-30)
            goal = self.noise_share * noise_std * torch.sqrt(mean_weight * circulant.degrees_of_freedom().cpu())
        if start is not None:
            require_same_shape(start.image, b)
            x: Tensor | None = start.image
        elif equations.n_frames > 1:
            x = average_over_time(equations, maps, b, self.l2)
            x = by_few_coils(equations, maps, x, normal, circulant, damping, self.tolerance)
        else:
            x = None
        found = solve(
            damped(normal, damping),
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
