"""Coil maps of a slice from its own spokes, and the way from one estimate of them to the next."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kspace.coils import espirit_maps
from kspace.equations import NormalEquations
from kspace.errors import InputError
from kspace.recon.method import Reconstruction

MIN_MATRIX = 12
"""ESPIRiT's kernels of 6 x 6 need a region at least twice as wide."""


@dataclass(frozen=True)
class Calibration:
    """Coil maps of a slice, and how to get from their unit of intensity back to that of the received signal.

    Parameters
    ----------
    maps
        (coil, y, x) complex, of unit root sum of squares over the whitened channels: images are in units of noise.
    shading
        (y, x) real; times it, an image is in the unit of the root sum of squares of the channels as received.
    """

    maps: Tensor
    shading: Tensor


def calibrate(equations: NormalEquations, whitening: Tensor | None) -> Calibration:
    """Estimate coil maps from the time-averaged centre of k-space of whitened samples.

    Raises
    ------
    InputError
        When the grid is too small to estimate maps on.
    """
    if min(equations.matrix) < MIN_MATRIX:
        rows, columns = equations.matrix
        raise InputError(
            f"a grid of {rows} x {columns} is too small to find coil maps on",
            expected=f"at least {MIN_MATRIX} x {MIN_MATRIX}",
        )
    maps = espirit_maps(equations.time_average())
    if whitening is None:
        return Calibration(maps, torch.ones(maps.shape[1:], device=maps.device))
    received = torch.linalg.solve(whitening.to(maps), maps.reshape(maps.shape[0], -1)).reshape(maps.shape)
    return Calibration(maps, torch.linalg.vector_norm(received, dim=0))


def turned(previous: Reconstruction, old_maps: Tensor, new_maps: Tensor) -> Reconstruction:
    """Return a reconstruction in the phase reference of new maps, so that it can be gone on from."""
    turn = (new_maps.conj() * old_maps).sum(0)
    turn = turn / turn.abs().clamp_min(1e-12)
    return replace(previous, image=previous.image * turn, state=tuple(dual * turn for dual in previous.state))
