"""Spokes as straight lines of k-space: where they lie, how motion of the body moves them, how few samples they need.

Along a straight line, the spectrum of an image of radius R is band-limited to R (its values are the Fourier transform
of a projection), so that samples 1 / (2 R) apart determine all of it. A small window is therefore transformed at few
points of each spoke, and :func:`line_weights` fills in the readout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError
from kspace.trajectory import readout_radii


@dataclass(frozen=True)
class Lines:
    """Spokes: sample at radius u in [-0.5, 0.5) lies at ``offset + u direction``.

    Parameters
    ----------
    direction, offset
        (spoke, 2) float64, order (ky, kx), in cycles per mm for u = 1, and in cycles per mm.
    """

    direction: Tensor
    offset: Tensor

    def __post_init__(self) -> None:
        for name in ("direction", "offset"):
            if getattr(self, name).ndim != 2 or getattr(self, name).shape != (len(self.direction), 2):
                raise ShapeError(name, getattr(self, name), "(spoke, 2)")

    def __len__(self) -> int:
        return len(self.direction)

    def select(self, spokes: Tensor) -> Lines:
        """Return some of the spokes."""
        return replace(self, direction=self.direction[spokes], offset=self.offset[spokes])

    def positions(self, radii: Tensor) -> Tensor:
        """Return (spoke, radius, 2) positions in cycles per mm."""
        return self.offset[:, None] + radii[:, None] * self.direction[:, None]

    def turned(self, rotation_rad: Tensor) -> Lines:
        """Return where a body that has turned by these (spoke,) angles, from +x to +y, is sampled in its own frame."""
        c, s = torch.cos(rotation_rad)[:, None], torch.sin(rotation_rad)[:, None]

        def back(k: Tensor) -> Tensor:
            ky, kx = k[:, :1], k[:, 1:]
            return torch.cat((c * ky - s * kx, c * kx + s * ky), dim=1)

        return Lines(back(self.direction), back(self.offset))

    def ramp(self, radii: Tensor, to_mm: Tensor) -> Tensor:
        """Return (spoke, radius) complex64 by which a shift multiplies the spectrum.

        Parameters
        ----------
        radii
            (radius,) u.
        to_mm
            (spoke, 2) or (1, 2), order (y, x).
        """
        along = (self.direction * to_mm).sum(-1, keepdim=True) * radii + (self.offset * to_mm).sum(-1, keepdim=True)
        turns = (along - along.round()).float() * (-2 * math.pi)
        return torch.complex(torch.cos(turns), torch.sin(turns))


def spoke_lines(
    angles: Tensor, spacing_mm: tuple[float, float], n_readout: int, delays: tuple[float, float, float] = (0.0,) * 3
) -> Lines:
    """Return where golden-angle spokes truly lie on a scanner whose gradients lag.

    The shift of a spoke of direction n = (nx, ny) is ``(dx nx + dxy ny, dxy nx + dy ny)`` samples (Rosenzweig et al.,
    MRM 81:1898, 2019); without delays these are the positions of :func:`kspace.trajectory.radial_positions`.

    Parameters
    ----------
    angles
        (spoke,) radians.
    spacing_mm
        Pixel of the reconstruction grid along (y, x), in mm.
    n_readout
        Samples on a spoke.
    delays
        (dx, dy, dxy) in samples of the readout.
    """
    sine, cosine = torch.sin(angles.double()), torch.cos(angles.double())
    dx, dy, dxy = delays
    per_mm = 1 / torch.tensor(spacing_mm, dtype=torch.float64, device=angles.device)
    direction = torch.stack((sine, cosine), dim=-1)
    shift = torch.stack((dxy * cosine + dy * sine, dx * cosine + dxy * sine), dim=-1) / n_readout
    return Lines(direction * per_mm, shift * per_mm)


def line_weights(n_readout: int, reach: float, *, taps: int = 24, oversampling: float = 1.4) -> tuple[Tensor, Tensor]:
    """Return few radii at which to sample an image of limited radius, and the matrix that fills in the readout.

    Each readout sample is the combination of its ``taps`` nearest neighbours with the least mean squared error over all
    exponentials of the band. With 24 taps and 1.4-fold oversampling its relative error is 2e-6.

    Parameters
    ----------
    n_readout
        Samples on a spoke.
    reach
        Largest distance of the image's pixels from its middle, in mm, times the spoke's length in cycles per mm: the
        band limit over u.
    taps
        Neighbours that each sample is made of.
    oversampling
        Density of the few samples over 2 ``reach``.

    Returns
    -------
    (few,) float64 radii u, and (few, n_readout) float32. All the readout's own radii and the identity where that is no
    more work.
    """
    if not (n_readout >= 1 and reach > 0 and taps >= 2 and oversampling > 1):
        raise InputError(f"a reach of {reach} with {taps} taps", expected="positive numbers")
    radii = readout_radii(n_readout)
    step = 1 / (2 * reach * oversampling)
    half = math.ceil(0.5 / step) + taps // 2
    few = torch.arange(-half, half + 1, dtype=torch.float64) * step
    if len(few) > 0.7 * n_readout:
        return radii, torch.eye(n_readout)
    first = torch.floor(radii / step).long() + half - taps // 2 + 1
    nearest = first[:, None] + torch.arange(taps)
    ratio = 2 * reach * few[nearest]  # sinc's argument: the band holds exp(2 pi i u r), |r| <= reach
    gram = torch.sinc(ratio[:, :, None] - ratio[:, None, :]) + 1e-12 * torch.eye(taps, dtype=torch.float64)
    wanted = torch.sinc(2 * reach * radii[:, None] - ratio)
    weights = torch.linalg.solve(gram, wanted[..., None])[..., 0]
    matrix = torch.zeros((n_readout, len(few)), dtype=torch.float64).scatter_(1, nearest, weights)
    return few, matrix.T.contiguous().float()
