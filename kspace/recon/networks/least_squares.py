"""What a network learns to solve: the normal equations of one slice, in units that make all scans alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.equations import NormalEquations
from kspace.errors import ShapeError
from kspace.toeplitz import sense_normal

_USUAL_NOISE = 0.2  # of the level of the image, where the noise is not known


@dataclass(frozen=True)
class LeastSquares:
    """Normal equations A x = b, divided by the mean diagonal of A, so that A is about the identity.

    Parameters
    ----------
    right
        (frame, y, x) complex, b = E^H W s over ``scale``.
    maps
        (coil, y, x) complex.
    spectrum
        (frame, 2 y, 2 x) real, of the point spread; not divided.
    scale
        Mean diagonal of E^H W E.
    sampling
        (frame,) real, spokes over those that radial sampling at the Nyquist rate takes, pi / 2 times the matrix.
    noise
        Standard deviation of the noise in a pixel of ``right``; None where it is not known.

    Raises
    ------
    ShapeError
        When the shapes do not fit together.
    """

    right: Tensor
    maps: Tensor
    spectrum: Tensor
    scale: float
    sampling: Tensor
    noise: float | None

    def __post_init__(self) -> None:
        frames, rows, columns = self.right.shape
        if self.maps.shape[-2:] != (rows, columns):
            raise ShapeError("maps", self.maps, f"(coil, {rows}, {columns})")
        if self.spectrum.shape != (frames, 2 * rows, 2 * columns):
            raise ShapeError("spectrum", self.spectrum, f"({frames}, {2 * rows}, {2 * columns})")

    @classmethod
    def of(cls, equations: NormalEquations, maps: Tensor, noise_std: float | None) -> LeastSquares:
        """Return the problem of equations that hold spokes, for maps and the noise of one whitened sample."""
        right = equations.right_hand_side(maps)
        return cls.from_sums(
            right, maps, equations.spectrum, equations.scale, equations.spokes,
            None if noise_std is None else equations.noise_in_image(noise_std),
        )  # fmt: skip

    @classmethod
    def from_sums(
        cls, right: Tensor, maps: Tensor, spectrum: Tensor, scale: float, spokes: Tensor, noise: float | None
    ) -> LeastSquares:
        """Return the problem of sums: ``right`` as summed, (frame,) ``spokes``, ``noise`` of the gridded image."""
        nyquist = math.pi / 2 * math.sqrt(math.prod(right.shape[-2:]))
        sampling = (spokes / nyquist).to(right.device, right.real.dtype)
        return cls(right / max(scale, 1e-30), maps, spectrum, max(scale, 1e-30), sampling, noise)

    @property
    def n_frames(self) -> int:
        """Number of cardiac phases."""
        return int(self.right.shape[0])

    def normal(self, images: Tensor) -> Tensor:
        """Return A x of (frame, y, x) images; differentiable with respect to them."""
        return sense_normal(images, self.maps, self.spectrum) / self.scale

    def gradient(self, images: Tensor) -> Tensor:
        """Return b - A x, the direction in which images come to fit the data better."""
        return self.right - self.normal(images)

    def conditions(self, level: Tensor) -> Tensor:
        """Return (frame, 2): the logarithms of the sampling and of the noise over a level of the image."""
        noise = level.new_tensor(_USUAL_NOISE) if self.noise is None else self.noise / level.clamp_min(1e-30)
        sampling = self.sampling.clamp_min(1e-3).log()
        return torch.stack((sampling, noise.clamp(1e-4, 1e2).log().expand_as(sampling)), dim=-1).to(level.dtype)
