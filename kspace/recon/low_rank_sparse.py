"""Compressed sensing with a background of low rank and sparse changes (L+S).

Minimise  1/2 |W^(1/2) (E (L + S) - s)|^2 + lambda_L |L|_* + lambda_S |T S|_1  over cines L and S, where |L|_* is the
sum of the singular values of the space x time matrix and T the unitary Fourier transform in time (Otazo, Candes and
Sodickson, MRM 73:1125, 2015, equation 4). They iterate without acceleration; here both move by FISTA
(:func:`kspace.recon.proximal.descend`), one normal operator an iteration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.parallel import map_frames
from kspace.recon.method import OnIteration, Reconstruction
from kspace.recon.proximal import Scaled, descend, shrinkage, soft

_ROWS = 16  # of the images, that are worked on at once: what they hold of all frames stays in a core's cache


@dataclass(frozen=True)
class LowRankSparse:
    """Options of the method.

    The state of what it returns is (L, S), each (frame, y, x).

    Parameters
    ----------
    noise_factor, signal_factor
        Of lambda_S: this many standard deviations of the noise in the gridded image, and this share of the image's
        level, scaled by the undersampling (:attr:`~kspace.recon.proximal.Scaled.streaks`).
    rank_factor
        lambda_L over the largest singular value that noise as strong as lambda_S has, sqrt(pixels) + sqrt(frames).
    max_iterations, tolerance, noise_share
        When to stop, as for :class:`~kspace.recon.temporal_tv.TemporalTV`.
    """

    noise_factor: float = 0.4
    signal_factor: float = 0.005
    rank_factor: float = 0.5
    max_iterations: int = 60
    tolerance: float = 1e-3
    noise_share: float = 0.01
    density: Density = "ramp"
    name: str = "l+s"

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
        scaled = Scaled(equations, maps, noise_std)
        if scaled.scale <= 0:
            return scaled.unmeasured(start)
        first = scaled.first(start)
        if start is not None and len(start.state) == 2:
            components = torch.stack(start.state)
        else:
            # The average over time is of rank one; so L holds all there is, and S what comes.
            components = torch.stack((first, torch.zeros_like(first)))
        weight = scaled.threshold(self.noise_factor, self.signal_factor)
        # Where no coil sees anything there is no noise either.
        seen = int(torch.count_nonzero(maps.abs().amax(0)))
        rank_weight = self.rank_factor * weight * (math.sqrt(seen) + math.sqrt(first.shape[0]))

        def shrink(components: Tensor, step: float, iteration: int) -> None:
            shrink_rank(components[0], rank_weight * step)
            shrink_spectrum(components[1], weight * step)

        return descend(
            scaled,
            components,
            shrink,
            max_iterations=self.max_iterations,
            goal=scaled.goal(self.tolerance, self.noise_share),
            on_iteration=on_iteration,
        )


def shrink_rank(images: Tensor, threshold: float) -> None:
    """Take a threshold off the singular values of (frame, y, x) images as a frame x pixel matrix, in place."""

    def gram(rows: slice) -> Tensor:
        part = images[:, rows].flatten(1)
        return part @ part.mH

    parts = _row_parts(images)
    product = shrinkage(torch.stack(map_frames(gram, parts)).sum(0), threshold)

    def apply(rows: slice) -> None:
        part = images[:, rows]
        part.copy_((product @ part.flatten(1)).reshape(part.shape))

    map_frames(apply, parts)


def shrink_spectrum(images: Tensor, threshold: float) -> None:
    """Shrink the unitary Fourier coefficients in time of (frame, y, x) images by a threshold, in place."""

    def run(rows: slice) -> None:
        spectrum = soft(torch.fft.fft(images[:, rows], dim=0, norm="ortho"), threshold)
        images[:, rows] = torch.fft.ifft(spectrum, dim=0, norm="ortho")

    map_frames(run, _row_parts(images))


def _row_parts(images: Tensor) -> list[slice]:
    """Cut the rows into strips that are worked on side by side on a CPU; all at once on a GPU."""
    rows = images.shape[1]
    size = _ROWS if images.device.type == "cpu" else rows
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
