"""The circulant matrix nearest to a SENSE normal operator, whose inverse two small FFTs apply.

Radial spokes measure the centre of k-space far more densely than its edge, so that conjugate gradients creep. Of all
matrices that a Fourier transform of the image's own size diagonalises, the one nearest to sum_c S_c^* T S_c in the
Frobenius norm has as its kernel the point spread times the correlation of the maps with themselves, wrapped around (T.
F. Chan, SIAM J. Sci. Stat. Comput. 9:766, 1988, for a Toeplitz matrix; the maps are a second factor of each entry).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kspace.fft import workspace
from kspace.parallel import map_frames

FLOOR = 1.0
"""What is added to the eigenvalues where conjugate gradients use the inverse, over the mean diagonal."""


class Circulant:
    """Nearest circulant matrices of the frames of a SENSE normal operator.

    Parameters
    ----------
    maps
        (coil, y, x) complex.
    spectrum
        (frame, 2 y, 2 x) real, see :mod:`kspace.toeplitz`.
    damping
        (frame,) real, at least 0: what the Tikhonov term adds to the diagonal.
    floor
        (frame,) real, at least 0, added too where the inverse is applied. Between spokes the coils tell more
        than the nearest circulant knows; a floor of the mean diagonal saves a fifth of the iterations.
    parts
        How the frames are cut into pieces, see :class:`kspace.toeplitz.SenseNormal`.
    """

    def __init__(self, maps: Tensor, spectrum: Tensor, damping: Tensor, floor: Tensor, parts: list[slice]) -> None:
        rows, columns = maps.shape[-2:]
        padded = torch.fft.fft2(maps.detach(), s=(2 * rows, 2 * columns))
        # By displacement d, the mean over pixels r of conj(S(r)) S(r - d), summed over coils: conjugated, and only half
        # of the columns, as all kernels here are Hermitian.
        power = padded.real.square().add_(padded.imag.square()).sum(0)
        overlap = torch.fft.rfft2(power).conj().resolve_conj() / (rows * columns) / power.numel() ** 2
        half = columns // 2 + 1
        self._inverse = spectrum.new_empty((spectrum.shape[0], rows, columns))
        self._freedom = torch.zeros(spectrum.shape[0], dtype=torch.float64, device=spectrum.device)

        def invert(part: slice) -> None:
            kernel = torch.fft.rfft2(spectrum[part]).mul_(overlap)
            # Displacements that are N apart fall together on a circle of N; what lies beyond the last column is what
            # lies opposite, conjugated.
            folded = kernel[:, :rows] + kernel[:, rows:]
            opposite = folded[..., columns - half + 1 :].flip((1, 2)).roll(1, 1).conj()
            folded = folded[..., :half] + opposite
            data = torch.fft.irfft2(folded, s=(rows, columns), norm="forward").clamp_min_(0)
            damped = data + damping[part, None, None]
            # A frame without spokes has only zeros, and keeps them.
            kept = torch.where(damped > 0, data / damped.clamp_min(1e-30), 0.0)
            self._freedom[part] = kept.double().sum((-2, -1))
            eigenvalues = damped + floor[part, None, None]
            self._inverse[part] = torch.where(eigenvalues > 0, 1 / eigenvalues.clamp_min(1e-30), 0.0)

        map_frames(invert, parts, teams=spectrum.device.type != "cpu")

    def degrees_of_freedom(self) -> Tensor:
        """Return (frame,) float64, the trace of T (T + damping)^-1: how many numbers the data determine, about."""
        return self._freedom

    def __call__(self, images: Tensor, frames: slice) -> Tensor:
        """Return the inverse's value for (n, y, x) images of the n frames in a slice: the same shape."""
        factors = self._inverse[frames]
        if images.device.type != "cpu":
            improved: Tensor = torch.fft.ifft2(torch.fft.fft2(images).mul_(factors))
            return improved
        result = torch.empty_like(images)
        rows, columns = images.shape[-2:]
        for image, factor, target in zip(images.resolve_conj().numpy(), factors, result.numpy(), strict=True):
            work = workspace((rows, columns), image.dtype)
            work.image[:, :columns] = image
            work.filter(factor)
            np.multiply(work.image[:, :columns], 1 / (rows * columns), out=target)
        return result
