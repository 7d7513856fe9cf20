"""What the tests of operators share: the measures, one real-size problem, and small trajectories of unequal sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pytest
import torch
from torch import Tensor

from kspace.nufft import exact_adjoint, exact_transform
from kspace.trajectory import cartesian_positions, golden_angles, radial_positions, uniform_angles

Operator = Callable[[Tensor], Tensor]


class Check:
    """Asserts on operators, with the denominators argued for once."""

    @staticmethod
    def relative_error(got: Tensor, expected: Tensor) -> float:
        wide = torch.complex128 if expected.is_complex() else torch.float64
        difference = torch.linalg.vector_norm(got.detach().to(wide) - expected.detach().to(wide))
        return float(difference / torch.linalg.vector_norm(expected.detach().to(wide)).clamp_min(1e-300))

    @classmethod
    def close(cls, got: Tensor, expected: Tensor, bound: float) -> None:
        assert got.shape == expected.shape
        error = cls.relative_error(got, expected)
        assert error <= bound, f"relative error {error:.2e} > {bound:.0e}"

    @staticmethod
    def adjoint(forward: Operator, adjoint: Operator, x: Tensor, s: Tensor, bound: float = 1e-6) -> None:
        """Dot test over ||Fx|| ||s||: the inner product of independent vectors is far below it, and so cannot
        serve; it is the size that the products have before they cancel, hence that of rounding."""
        image, samples = forward(x), adjoint(s)
        left = torch.vdot(s.to(torch.complex128).flatten(), image.to(torch.complex128).flatten())
        right = torch.vdot(samples.to(torch.complex128).flatten(), x.to(torch.complex128).flatten())
        size = float(torch.linalg.vector_norm(image.abs().double()) * torch.linalg.vector_norm(s.abs().double()))
        error = float((left - right).abs()) / max(size, 1e-300)
        assert error <= bound, f"dot test {error:.2e} > {bound:.0e}"

    @classmethod
    def gradient(cls, forward: Operator, adjoint: Operator, x: Tensor, target: Tensor, bound: float = 1e-5) -> None:
        """The gradient of 1/2 |F x - t|^2 is F^H (F x - t)."""
        leaf = x.detach().clone().requires_grad_()
        residual = forward(leaf) - target
        (0.5 * residual.abs().square().sum()).backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        cls.close(leaf.grad, adjoint(residual.detach()), bound)


@pytest.fixture(scope="session")
def check() -> type[Check]:
    return Check


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smooth_maps(n_coils: int, rows: int, columns: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    """(coil, y, x): broad bumps around the field of view, each with a slow phase."""
    y = torch.linspace(-1, 1, rows, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, columns, dtype=torch.float64)
    maps = []
    for coil in range(n_coils):
        angle = torch.tensor(2 * torch.pi * coil / n_coils, dtype=torch.float64)
        distance = (y - angle.sin()) ** 2 + (x - angle.cos()) ** 2
        maps.append(torch.exp(-distance / 2) * torch.exp(1j * (coil + angle.cos() * y - angle.sin() * x)))
    stacked = torch.stack(maps)
    return (stacked / (stacked.abs() ** 2).sum(0).sqrt()).to(dtype)


def heart_like(n_frames: int, rows: int, columns: int, dtype: torch.dtype = torch.complex64) -> Tensor:
    """(frame, y, x): sharp edges, texture and a disc that beats."""
    y = torch.linspace(-1, 1, rows, dtype=torch.float64)[:, None]
    x = torch.linspace(-1, 1, columns, dtype=torch.float64)
    body = (y**2 + 1.4 * x**2 < 0.8) * (1 + 0.3 * torch.sin(20 * x) * torch.cos(13 * y))
    frames = []
    for frame in range(n_frames):
        radius = 0.3 + 0.08 * torch.cos(torch.tensor(2 * torch.pi * frame / max(n_frames, 1)))
        disc = (y - 0.1) ** 2 + (x + 0.2) ** 2 < radius**2
        frames.append(torch.where(disc, 3.0, body) * torch.exp(0.7j * x))
    return torch.stack(frames).to(dtype)


@dataclass(frozen=True)
class RealSize:
    """192 x 192, 8 coils, 2 frames of 13 golden-angle spokes with 384 samples; exact values in float64."""

    positions: Tensor
    maps: Tensor
    images: Tensor
    samples: Tensor

    @cached_property
    def coil_images(self) -> Tensor:
        return self.images[:, None] * self.maps

    @cached_property
    def exact_forward(self) -> Tensor:
        flat = [
            exact_transform(c.to(torch.complex128), p.reshape(-1, 2))
            for c, p in zip(self.coil_images, self.positions, strict=True)
        ]
        return torch.stack(flat).reshape(self.samples.shape)

    @cached_property
    def exact_coil_adjoint(self) -> Tensor:
        return torch.stack(
            [
                exact_adjoint(s.reshape(s.shape[0], -1), p.reshape(-1, 2), (192, 192))
                for s, p in zip(self.samples, self.positions, strict=True)
            ]
        )


@pytest.fixture(scope="session", params=["random", "heart"])
def real_size(request: pytest.FixtureRequest) -> RealSize:
    positions = radial_positions(golden_angles(26), 384).reshape(2, 13, 384, 2)
    maps = smooth_maps(8, 192, 192)
    if request.param == "random":
        return RealSize(positions, maps, noise(2, 192, 192), noise(2, 8, 13, 384, seed=1))
    heart = RealSize(positions, maps, heart_like(2, 192, 192), torch.zeros(2, 8, 13, 384, dtype=torch.complex64))
    return RealSize(positions, maps, heart.images, heart.exact_forward.to(torch.complex64))


@dataclass(frozen=True)
class Small:
    """(frame, spoke, readout, 2) positions and a (rows, columns) grid, no two sizes the same."""

    name: str
    positions: Tensor
    matrix: tuple[int, int]


SMALL = [
    Small("golden", radial_positions(golden_angles(15).reshape(3, 5), 32), (16, 18)),
    Small("tiny golden, odd grid", radial_positions(golden_angles(14, order=7).reshape(2, 7), 26), (13, 11)),
    Small("one spoke, one frame", radial_positions(golden_angles(1).reshape(1, 1), 24), (12, 10)),
    Small("cartesian", cartesian_positions(torch.tensor([[0, 4, 9], [5, 3, 7]]), 10, 14), (10, 14)),
    Small("any points", torch.rand(2, 3, 17, 2, generator=torch.Generator().manual_seed(3)) - 0.5, (9, 14)),
    Small("uniform", radial_positions(uniform_angles(6)[None], 20), (20, 15)),
]


@pytest.fixture(scope="session", params=SMALL, ids=lambda small: small.name)
def small(request: pytest.FixtureRequest) -> Small:
    case: Small = request.param
    return case


@pytest.fixture(scope="session")
def make_noise() -> Callable[..., Tensor]:
    return noise


@pytest.fixture(scope="session")
def make_maps() -> Callable[..., Tensor]:
    return smooth_maps


@pytest.fixture(scope="session")
def make_heart() -> Callable[..., Tensor]:
    return heart_like
