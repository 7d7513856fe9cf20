"""Where a cold start begins: images that cost little and are nearer than nought."""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.equations import NormalEquations
from kspace.recon.conjugate_gradients import FrameOperator, solve
from kspace.recon.preconditioner import FLOOR, Circulant
from kspace.toeplitz import SenseNormal

_AVERAGE_TOLERANCE = 0.01
_AVERAGE_ITERATIONS = 6  # one frame's, so that all of them cost a quarter of an iteration of 25 frames

_FEW_COILS_ENERGY = 0.97
_FEW_COILS_ITERATIONS = 6  # more of them bring the image nearer to that of few coils, but not to that of all


def damped(normal: SenseNormal, damping: Tensor) -> FrameOperator:
    """Return the normal operator with (frame,) damping added to its diagonal."""
    shift = damping.to(normal.maps.dtype)[:, None, None]

    def apply(images: Tensor, frames: slice) -> Tensor:
        return normal(images, frames).addcmul_(images, shift[frames])

    return apply


def average_over_time(equations: NormalEquations, maps: Tensor, right: Tensor, l2: float) -> Tensor:
    """Return the image of the spokes of all frames, by a few conjugate gradients, in every frame that has spokes.

    Parameters
    ----------
    equations, maps
        The sums, and (coil, y, x) complex.
    right
        (frame, y, x) complex, E^H W s.
    l2
        Damping over the mean diagonal of the normal operator.

    Returns
    -------
    (frame, y, x) complex. What has no spokes is nought.
    """
    weight = equations.weight.to(right.device, right.real.dtype)
    spectrum, mean = equations.spectrum.sum(0, keepdim=True), weight.sum(0, keepdim=True)
    normal = SenseNormal(maps, spectrum)
    found = solve(
        damped(normal, l2 * mean),
        right.sum(0, keepdim=True),
        None,
        normal.parts,
        tolerance=_AVERAGE_TOLERANCE,
        goal=torch.zeros(1, dtype=torch.float64),
        preconditioner=Circulant(maps, spectrum, l2 * mean, FLOOR * mean, normal.parts),
        max_iterations=_AVERAGE_ITERATIONS,
    )
    return found.image * (weight > 0).to(right)[:, None, None]


def by_few_coils(
    equations: NormalEquations,
    maps: Tensor,
    images: Tensor,
    normal: SenseNormal,
    circulant: Circulant,
    damping: Tensor,
    tolerance: float,
) -> Tensor:
    """Return what a few iterations with virtual coils make of images; what they were where many coils are needed.

    Half the coils are half the price, and what they miss is left to all coils.

    Parameters
    ----------
    equations, maps
        The sums, and (coil, y, x) complex.
    images
        (frame, y, x) complex.
    normal, circulant, damping
        The operator of all coils, its preconditioner, and the (frame,) damping.
    tolerance
        Ends it before its few iterations.
    """
    few, rest = leading_coils(maps, images.abs().square().sum(0), _FEW_COILS_ENERGY)
    if 2 * len(few) > len(maps):
        return images
    return solve(
        damped(normal.by(few), damping),
        equations.right_hand_side(rest),
        images,
        normal.parts,
        tolerance=tolerance,
        goal=torch.zeros(equations.n_frames, dtype=torch.float64),
        preconditioner=circulant,
        max_iterations=_FEW_COILS_ITERATIONS,
    ).image


def leading_coils(maps: Tensor, weight: Tensor, energy: float) -> tuple[Tensor, Tensor]:
    """Return the fewest virtual coils that hold a share of the energy, and the maps of all coils with only that left.

    The virtual coils are the leading singular vectors of the coil images (Huang et al., Magn Reson Imaging 26:133,
    2008), here of maps times an image instead of samples.

    Parameters
    ----------
    maps
        (coil, y, x) complex.
    weight
        (y, x) real, the squared magnitude of what is imaged.
    energy
        The share.

    Returns
    -------
    few
        (virtual coil, y, x) complex.
    rest
        (coil, y, x) complex: with these the adjoint of all coils is that of the virtual ones.
    """
    flat = maps.flatten(1)
    gram = (flat * weight.flatten()) @ flat.mH
    values, vectors = torch.linalg.eigh(gram.to(torch.complex128))
    shares = values.flip(0).cumsum(0) / values.sum().clamp_min(1e-300)
    count = min(int((shares < energy).sum()) + 1, len(maps))
    chosen = vectors[:, -count:].to(maps.dtype)
    few = chosen.mH @ flat
    return few.reshape(-1, *maps.shape[1:]), (chosen @ few).reshape(maps.shape)
