"""Random fields in the coordinates of the tissue: the same seed gives the same field wherever it is sampled."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from simulate.patient.left import Array


class Waves:
    """A smooth random field in space: a sum of plane waves with random directions, of unit variance.

    Parameters
    ----------
    key
        Seeds of the generator.
    scale_mm
        Wavelength at which most of the field lies; waves vary from 0.7 to 1.6 of it.
    n_waves
        More are closer to a Gaussian field and cost more.
    stretch
        Factors of the wavelength along the three axes.
    """

    def __init__(
        self, key: tuple[int, ...], scale_mm: float, n_waves: int = 12, stretch: tuple[float, float, float] = (1, 1, 1)
    ) -> None:
        rng = np.random.default_rng(key)
        direction = rng.normal(size=(n_waves, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        k = 2 * np.pi / (scale_mm * rng.uniform(0.7, 1.6, (n_waves, 1))) * direction / np.array(stretch)
        self._k = torch.from_numpy(k.T.astype(np.float32))
        self._phase = torch.from_numpy(rng.uniform(0, 2 * np.pi, n_waves).astype(np.float32))
        self._gain = (2.0 / n_waves) ** 0.5

    def __call__(self, points: Tensor) -> Tensor:
        """Return the field at ``points`` (..., 3) in mm: (...)."""
        angle = torch.matmul(points, self._k.to(points.device)) + self._phase.to(points.device)
        field: Tensor = angle.cos_().sum(-1) * self._gain
        return field

    def gradient_scale(self) -> float:
        """Return the root mean square of the field's gradient along any one direction, per mm."""
        return float((self._k.square().sum(0).mean() / 3).sqrt())


class Tubes:
    """Branching tubes: the lines on which two random fields vanish together.

    Distance to the nearest line follows from the fields over their mean gradient, so tubes vary in width as vessels do.
    """

    def __init__(self, key: tuple[int, ...], scale_mm: float, n_waves: int = 10) -> None:
        self._pair = (Waves((*key, 1), scale_mm, n_waves), Waves((*key, 2), scale_mm, n_waves))

    def distance_mm(self, points: Tensor) -> Tensor:
        """Return about the distance in mm of ``points`` (..., 3) from the middle of the nearest tube: (...)."""
        a, b = (field(points) / field.gradient_scale() for field in self._pair)
        return torch.hypot(a, b)


def lattice(
    rng: np.random.Generator, heights: int, rings: int, angles: int, scale: tuple[float, float, float]
) -> Array:
    """Return a smooth random field on (height, ring, angle), periodic in all three, of unit variance.

    Parameters
    ----------
    rng
        Where it comes from.
    heights, rings, angles
        Number of samples along each axis.
    scale
        Standard deviation of its Gaussian blur along each axis, in samples.
    """
    shape = (heights, rings, angles)
    spectrum = np.fft.rfftn(rng.normal(size=shape))
    frequencies = (np.fft.fftfreq(heights), np.fft.fftfreq(rings), np.fft.rfftfreq(angles))
    for axis, (f, s) in enumerate(zip(frequencies, scale, strict=True)):
        falloff = np.exp(-2 * (np.pi * f * s) ** 2)
        spectrum *= falloff.reshape([-1 if i == axis else 1 for i in range(3)])
    field = np.fft.irfftn(spectrum, s=shape, axes=(0, 1, 2))
    return np.asarray((field - field.mean()) / field.std())
