from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from kspace.equations import Density, NormalEquations
from kspace.nufft import exact_transform
from kspace.trajectory import golden_angles, radial_positions, ramp_weights


@dataclass(frozen=True)
class Case:
    """A small acquisition of known images: golden-angle spokes, dealt to the frames in turn; exact in float64."""

    images: Tensor
    maps: Tensor
    samples: Tensor
    positions: Tensor
    frame: Tensor

    @property
    def matrix(self) -> tuple[int, int]:
        return int(self.images.shape[-2]), int(self.images.shape[-1])

    @property
    def n_frames(self) -> int:
        return len(self.images)

    def equations(
        self,
        *,
        density: Density = "ramp",
        dtype: torch.dtype = torch.complex64,
        scale: complex = 1.0,
        shift: int = 0,
        n_spokes: int | None = None,
    ) -> NormalEquations:
        """The sums over the first spokes, the samples scaled and the frames turned round."""
        some = slice(0, n_spokes)
        equations = NormalEquations(
            self.matrix,
            self.n_frames,
            len(self.maps),
            density=density,
            dtype=dtype,
            accuracy="standard" if dtype == torch.complex64 else "reference",
        )
        frame = (self.frame[some] + shift) % self.n_frames
        equations.add((scale * self.samples[some]).to(dtype), self.positions[some], frame)
        return equations

    def dense(self, frame: int, density: Density = "ramp") -> tuple[Tensor, Tensor]:
        """Return (row, pixel) W^(1/2) E of a frame and (row,) W^(1/2) s, complex128."""
        mine, pixels = self.frame == frame, math.prod(self.matrix)
        positions = self.positions[mine]
        basis = torch.eye(pixels, dtype=torch.complex128).reshape(pixels, 1, *self.matrix)
        values = exact_transform(basis * self.maps.to(torch.complex128), positions.reshape(-1, 2))
        weights = torch.ones(positions.shape[:-1], dtype=torch.float64)
        if density == "ramp":
            weights = ramp_weights(positions, n_spokes=1).double() * pixels
        root = weights.reshape(-1).sqrt()
        samples = self.samples[mine].transpose(0, 1).reshape(len(self.maps), -1)
        return (values * root).reshape(pixels, -1).T, (samples * root).flatten()


@pytest.fixture(scope="session")
def make_case(make_noise: Any, make_maps: Any, make_heart: Any) -> Callable[..., Case]:
    def make(
        n_frames: int = 3,
        matrix: tuple[int, int] = (16, 14),
        n_coils: int = 3,
        spokes_per_frame: int = 6,
        noise_std: float = 0.0,
    ) -> Case:
        n_spokes, n_readout = n_frames * spokes_per_frame, 2 * max(matrix)
        images = make_heart(n_frames, *matrix, dtype=torch.complex128)
        maps = make_maps(n_coils, *matrix)
        positions = radial_positions(golden_angles(n_spokes), n_readout)
        frame = torch.arange(n_spokes) % n_frames
        samples = torch.stack(
            [exact_transform(images[f] * maps, p) for p, f in zip(positions, frame.tolist(), strict=True)]
        )
        samples = samples + noise_std * make_noise(*samples.shape, dtype=torch.complex128)
        return Case(images, maps, samples, positions, frame)

    return make
