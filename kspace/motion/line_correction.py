"""Cines from Cartesian k-space whose lines are trusted by degrees: probabilities as data-consistency weights.

A line that is wrong with probability p enters the fit with weight 1 - p, and the corrected line is its posterior mean,
(1 - p) measured + p foretold. Where nothing is distrusted the data pass through unchanged.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.motion.cartesian import to_image, to_kspace
from kspace.motion.line_model import fit_lines, without
from kspace.recon.locally_low_rank import shrink_patches

_PATCH = 8
_TURN = 3  # rows and columns by which the patches move from one iteration to the next


def blended(measured: Tensor, foretold: Tensor, wrong: Tensor) -> Tensor:
    """Return (frame, line, readout) k-space, each line measured as far as it is trusted and foretold for the rest.

    Parameters
    ----------
    measured, foretold
        (frame, line, readout) complex.
    wrong
        (frame, line) probabilities.
    """
    if measured.shape != foretold.shape or wrong.shape != measured.shape[:2]:
        raise ShapeError("the probabilities", wrong, f"(frame, line) = {tuple(measured.shape[:2])}")
    weight = wrong[..., None]
    return torch.where(weight > 0, (1 - weight) * measured + weight * foretold, measured)


def corrected(kspace: Tensor, noise_std: float, wrong: Tensor, *, iterations: int = 4) -> Tensor:
    """Return (frame, line, readout) k-space with distrusted lines foretold from the others by the Gaussian model.

    Parameters
    ----------
    kspace
        (frame, line, readout) complex.
    noise_std
        Of a complex sample.
    wrong
        (frame, line) probabilities of being measured at another phase.
    iterations
        Of the fit.

    Raises
    ------
    ShapeError, UsageError
        As :func:`~kspace.motion.line_model.fit_lines`.
    """
    if not bool((wrong > 0).any()):
        return kspace
    foretold = fit_lines(kspace, noise_std, iterations=iterations, wrong=wrong).foretold
    # A line that is wrong in all frames was still measured at some phases of the beat: their average is what is known.
    nowhere = ((1 - wrong).sum(0) < 1)[:, None]
    return blended(kspace, torch.where(nowhere, without(kspace, wrong), foretold), wrong)


def low_rank(kspace: Tensor, noise_std: float, wrong: Tensor, *, iterations: int = 20, factor: float = 1.0) -> Tensor:
    """Return the same by locally low-rank images (Zhang, Pauly and Levesque, MRM 73:655, 2015), for comparison.

    Proximal gradient steps of 1/2 |W^(1/2) (F x - s)|^2 + lambda sum |P x|_*, W = 1 - p, from k-space whose distrusted
    lines are averages over time.

    Parameters
    ----------
    factor
        Lambda over the largest singular value of a patch of noise.
    """
    frames = len(kspace)
    threshold = factor * noise_std * (_PATCH + frames**0.5)
    trust = 1 - wrong[..., None]
    image = to_image(without(kspace, wrong))
    for iteration in range(iterations):
        shift = _TURN * iteration % _PATCH
        shrink_patches(image, threshold, _PATCH, (shift, shift))
        spectra = to_kspace(image)
        image = to_image(spectra + trust * (kspace - spectra))
    shrink_patches(image, threshold, _PATCH)
    return blended(kspace, to_kspace(image), wrong)


def robust(kspace: Tensor, noise_std: float, *, iterations: int = 20) -> Tensor:
    """Return k-space fitted robustly, without probabilities: the baseline of a Huber data term on lines.

    Iteratively reweighted: a line whose residual is r, in units of its noise, counts min(1, 1.35 / r).
    """
    threshold = noise_std * (_PATCH + len(kspace) ** 0.5)
    image = to_image(kspace)
    usual = noise_std * kspace.shape[-1] ** 0.5
    for iteration in range(iterations):
        shift = _TURN * iteration % _PATCH
        shrink_patches(image, threshold, _PATCH, (shift, shift))
        spectra = to_kspace(image)
        residual = torch.linalg.vector_norm(kspace - spectra, dim=-1) / usual
        image = to_image(spectra + (1.35 / residual).clamp(max=1.0)[..., None] * (kspace - spectra))
    return to_kspace(image)
