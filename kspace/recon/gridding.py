"""Gridding: the density-compensated adjoint, coils combined by their maps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.errors import ShapeError
from kspace.recon.method import OnIteration, Reconstruction


@dataclass(frozen=True)
class Gridding:
    """The density-compensated adjoint. Direct, linear, and full of streaks where frames have few spokes."""

    name: str = "gridding"
    density: Density = "ramp"

    def __call__(
        self,
        equations: NormalEquations,
        maps: Tensor,
        *,
        noise_std: float | None = None,
        start: Reconstruction | None = None,
        on_iteration: OnIteration | None = None,
    ) -> Reconstruction:
        """Reconstruct; see :class:`kspace.recon.method.Method`. Everything but the equations and maps is ignored."""
        if maps.shape != equations.adjoint.shape[1:]:
            raise ShapeError("maps", maps, f"(coil, y, x) = {tuple(equations.adjoint.shape[1:])}")
        combined = torch.einsum("cyx,fcyx->fyx", maps.conj(), equations.gridded())
        norm = (maps.abs() ** 2).sum(0)
        return Reconstruction(torch.where(norm > 0, combined / norm.clamp_min(1e-30), 0))
