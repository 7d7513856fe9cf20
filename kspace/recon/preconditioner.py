"""The circulant matrix nearest to a SENSE normal operator, whose inverse two small FFTs apply.

Radial spokes measure the centre of k-space far more densely than its edge, so that conjugate gradients creep. Of all
matrices that a Fourier transform of the image's own size diagonalises, the one nearest to sum_c S_c^* T S_c in the
Frobenius norm has as its kernel the point spread times the correlation of the maps with themselves, wrapped around (T.
F. Chan, SIAM J. Sci. Stat. Comput. 9:766, 1988, for a Toeplitz matrix; the maps are a second factor of each entry).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.parallel import map_frames


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
        padded = torch.fft.fft2(maps, s=(2 * rows, 2 * columns))
        # By displacement d, the mean over pixels r of conj(S(r)) S(r - d), summed over coils.
        overlap = torch.fft.ifft2(padded.abs().square().sum(0)).conj() / (rows * columns)
        self._inverse = spectrum.new_empty((spectrum.shape[0], rows, columns))
        self._freedom = torch.zeros(spectrum.shape[0], dtype=torch.float64, device=spectrum.device)

        def invert(part: slice) -> None:
            kernel = torch.fft.ifft2(spectrum[part].to(maps.dtype)).mul_(overlap)
            # Displacements that are N apart fall together on a circle of N.
            folded = kernel.reshape(-1, 2, rows, 2, columns).sum((1, 3))
            data = torch.fft.fft2(folded).real.clamp_min_(0)
            damped = data + damping[part, None, None]
            # A frame without spokes has only zeros, and keeps them.
            kept = torch.where(damped > 0, data / damped.clamp_min(1e-30), 0.0)
            self._freedom[part] = kept.double().sum((-2, -1))
            eigenvalues = damped + floor[part, None, None]
            self._inverse[part] = torch.where(eigenvalues > 0, 1 / eigenvalues.clamp_min(1e-30), 0.0)

        map_frames(invert, parts)

    def degrees_of_freedom(self) -> Tensor:
        """Return (frame,) float64, the trace of T (T + damping)^-1: how many numbers the data determine, about."""
        return self._freedom

    def __call__(self, images: Tensor, frames: slice) -> Tensor:
        """Return the inverse's value for (n, y, x) images of the n frames in a slice: the same shape."""
        improved: Tensor = torch.fft.ifft2(torch.fft.fft2(images).mul_(self._inverse[frames]))
        return improved
