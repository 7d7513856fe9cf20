"""Comparison with independent libraries: sigpy, torchkbnufft and BART, each skipped where it is missing."""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kspace.coils import espirit_maps
from kspace.encoding import Encoding
from kspace.equations import Density, NormalEquations
from kspace.formats.cfl import bart_samples, bart_trajectory, read_cfl, samples_from_bart, write_cfl
from kspace.formats.source import open_source
from kspace.recon.cg_sense import CgSense
from kspace.recon.conjugate_gradients import Solution, solve
from kspace.scan import RadialScan
from kspace.toeplitz import SenseNormal
from kspace.trajectory import golden_angles, radial_positions, ramp_weights

PERFUSION = Path(__file__).parents[2].parent / "shared" / "data" / "radial" / "perfusion_golden_angle.h5"

# BART 0.8's gridding kernel is that much too large; on even grids all else is as ours.
BART_SCALE = 1.00129

with_bart = pytest.mark.skipif(shutil.which("bart") is None, reason="bart is not installed")
with_sigpy = pytest.mark.skipif(importlib.util.find_spec("sigpy") is None, reason="sigpy is not installed")
with_torchkbnufft = pytest.mark.skipif(
    importlib.util.find_spec("torchkbnufft") is None, reason="torchkbnufft is not installed"
)


@dataclass(frozen=True)
class Problem:
    """Three frames of golden-angle spokes on a grid that is not square, three coils."""

    positions: Tensor
    maps: Tensor
    images: Tensor
    samples: Tensor

    @property
    def matrix(self) -> tuple[int, int]:
        return int(self.maps.shape[1]), int(self.maps.shape[2])

    @property
    def coil_images(self) -> Tensor:
        return self.images[:, None] * self.maps

    def encoding(self) -> Encoding:
        return Encoding(self.positions, self.maps, accuracy="reference")


def make_problem(matrix: tuple[int, int], make_noise: Any, make_maps: Any, make_heart: Any) -> Problem:
    positions = radial_positions(golden_angles(27).reshape(3, 9), 2 * max(matrix))
    maps, images = make_maps(3, *matrix), make_heart(3, *matrix)
    return Problem(positions, maps, images, make_noise(3, 3, 9, 2 * max(matrix)))


@pytest.fixture(params=[(64, 56), (45, 38)], ids=["even", "odd"])
def problem(request: pytest.FixtureRequest, make_noise: Any, make_maps: Any, make_heart: Any) -> Problem:
    return make_problem(request.param, make_noise, make_maps, make_heart)


@with_sigpy
def test_forward_and_adjoint_are_those_of_sigpy(problem: Problem, check: Any) -> None:
    import sigpy

    coordinates = problem.positions.double().numpy() * np.array(problem.matrix)
    options: dict[str, Any] = {"oversamp": 2.0, "width": 6}
    forward = [sigpy.nufft(x.numpy(), k, **options) for x, k in zip(problem.coil_images, coordinates, strict=True)]
    check.close(problem.encoding().forward(problem.images), torch.from_numpy(np.stack(forward)), 2e-5)
    back = [
        sigpy.nufft_adjoint(s.numpy(), k, oshape=(3, *problem.matrix), **options)
        for s, k in zip(problem.samples, coordinates, strict=True)
    ]
    combined = (torch.from_numpy(np.stack(back)) * problem.maps.conj()).sum(1)
    check.close(problem.encoding().adjoint(problem.samples), combined, 2e-5)


# torchkbnufft's import uses what torch 2.11 deprecates.
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@with_torchkbnufft
def test_forward_and_adjoint_are_those_of_torchkbnufft(problem: Problem, check: Any) -> None:
    import torchkbnufft

    # torchkbnufft does not scale; its norm="ortho" divides by the oversampled grid's size.
    scale = 1 / math.sqrt(math.prod(problem.matrix))
    omega = 2 * math.pi * problem.positions.reshape(3, -1, 2).transpose(1, 2).contiguous()
    nufft = torchkbnufft.KbNufft(problem.matrix, table_oversamp=2**14)
    adjoint = torchkbnufft.KbNufftAdjoint(problem.matrix, table_oversamp=2**14)
    theirs = scale * nufft(problem.images[:, None], omega, smaps=problem.maps[None])
    check.close(problem.encoding().forward(problem.images).reshape(3, 3, -1), theirs, 1e-4)
    back = scale * adjoint(problem.samples.reshape(3, 3, -1), omega, smaps=problem.maps[None])
    check.close(problem.encoding().adjoint(problem.samples), back[:, 0], 1e-4)


# BART


def bart(folder: Path, *arguments: str | float, timeout: float = 240) -> None:
    # Threads that wait without spinning, so that the tests beside this one go on.
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    command = ["bart", *map(str, arguments)]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=timeout)


def write_images(stem: Path, images: Tensor) -> None:
    """(coil, y, x) to BART's (x, y, 1, coil)."""
    write_cfl(stem, images.permute(2, 1, 0)[:, :, None])


def read_images(stem: Path) -> Tensor:
    """BART's (x, y, 1, coil, 1, ...) to (coil, y, x)."""
    values = read_cfl(stem)
    return torch.from_numpy(values.reshape(*values.shape[:2], -1).transpose(2, 1, 0).copy())


@with_bart
def test_forward_and_adjoint_are_those_of_bart(
    tmp_path: Path, make_noise: Any, make_maps: Any, make_heart: Any, check: Any
) -> None:
    problem = make_problem((64, 56), make_noise, make_maps, make_heart)
    encoding = problem.encoding()
    ours, ours_back = encoding.forward(problem.images), encoding.adjoint(problem.samples)
    for frame in range(3):
        write_cfl(tmp_path / "t", bart_trajectory(problem.positions[frame], problem.matrix))
        write_images(tmp_path / "x", problem.coil_images[frame])
        write_cfl(tmp_path / "s", bart_samples(problem.samples[frame].transpose(0, 1)))
        # -P wraps the kernel around the edge of the band, where BART otherwise cuts it off.
        bart(tmp_path, "nufft", "-P", "t", "x", "k")
        bart(tmp_path, "nufft", "-P", "-a", "-d", "56:64:1", "t", "s", "b")
        theirs = samples_from_bart(read_cfl(tmp_path / "k")).transpose(0, 1)
        check.close(BART_SCALE * ours[frame], theirs, 2e-4)
        combined = (read_images(tmp_path / "b") * problem.maps.conj()).sum(0)
        check.close(BART_SCALE * ours_back[frame], combined, 2e-4)


@with_bart
def test_forward_and_adjoint_are_the_discrete_transform_of_bart(
    tmp_path: Path, make_noise: Any, make_maps: Any, make_heart: Any, check: Any
) -> None:
    problem = make_problem((32, 28), make_noise, make_maps, make_heart)
    write_cfl(tmp_path / "t", bart_trajectory(problem.positions[0], problem.matrix))
    write_images(tmp_path / "x", problem.coil_images[0])
    write_cfl(tmp_path / "s", bart_samples(problem.samples[0].transpose(0, 1)))
    bart(tmp_path, "nufft", "-s", "t", "x", "k")
    bart(tmp_path, "nufft", "-s", "-a", "-d", "28:32:1", "t", "s", "b")
    # The direct sum of BART is not scaled.
    scale = 1 / math.sqrt(32 * 28)
    theirs = scale * samples_from_bart(read_cfl(tmp_path / "k")).transpose(0, 1)
    check.close(problem.encoding().forward(problem.images)[0], theirs, 1e-5)
    combined = scale * (read_images(tmp_path / "b") * problem.maps.conj()).sum(0)
    check.close(problem.encoding().adjoint(problem.samples)[0], combined, 1e-5)


def pics(
    folder: Path, samples: Tensor, positions: Tensor, maps: Tensor, weights: Tensor, ridge: float, iterations: int
) -> Tensor:
    """(y, x): what BART finds to minimise |W^(1/2) (E x - s)|^2 + ridge |x|^2, one frame.

    ``-l2 -r`` is the ridge itself, ``-w 1`` keeps the data's own scale, and ``-p`` takes W^(1/2) and applies it to the
    samples as well.
    """
    write_cfl(folder / "t", bart_trajectory(positions, (int(maps.shape[1]), int(maps.shape[2]))))
    write_cfl(folder / "s", bart_samples(samples))
    write_cfl(folder / "w", weights.sqrt().T[None].to(torch.complex64))
    write_images(folder / "m", maps)
    bart(folder, "pics", "-l2", "-r", ridge, "-w", 1, "-i", iterations, "-t", "t", "-p", "w", "s", "m", "x")
    return read_images(folder / "x")[0]


@with_bart
@pytest.mark.parametrize("density", ["none", "ramp"])
def test_cg_sense_is_that_of_bart(
    density: Density, tmp_path: Path, make_noise: Any, make_maps: Any, make_heart: Any, check: Any
) -> None:
    problem = make_problem((64, 56), make_noise, make_maps, make_heart)
    # BART's pics cannot wrap its kernel around the edge of the band.
    positions = problem.positions[:1, :, 2:-2]
    samples = Encoding(positions, problem.maps).forward(problem.images[:1])[0].transpose(0, 1)
    samples = samples + 0.05 * make_noise(*samples.shape)
    equations = NormalEquations(problem.matrix, 1, 3, density=density)
    equations.add(samples, positions[0], torch.zeros(9, dtype=torch.int64))
    ours = CgSense(l2=0.1, max_iterations=100, tolerance=1e-5, density=density)(equations, problem.maps).image[0]
    weights = _weights(positions[0], problem.matrix, density)
    ridge = 0.1 * float(equations.weight[0])
    check.close(ours, pics(tmp_path, samples, positions[0], problem.maps, weights, ridge, 100), 5e-3)


def _weights(positions: Tensor, matrix: tuple[int, int], density: Density) -> Tensor:
    if density == "none":
        return torch.ones(positions.shape[:-1])
    return ramp_weights(positions, n_spokes=1) * math.prod(matrix)


@dataclass(frozen=True)
class PlainCg:
    """Conjugate gradients from nought without a preconditioner, unweighted, so many iterations: what `pics` does."""

    l2: float
    max_iterations: int
    density: Density = "none"

    def __call__(self, equations: NormalEquations, maps: Tensor) -> Solution:
        b = equations.right_hand_side(maps)
        normal = SenseNormal(maps, equations.spectrum)
        damping = (self.l2 * equations.weight).to(b)[:, None, None]
        return solve(
            lambda images, frames: normal(images, frames) + damping[frames] * images,
            b,
            torch.zeros_like(b),
            normal.parts,
            tolerance=1e-6,
            goal=torch.zeros(len(b), dtype=torch.float64),
            preconditioner=lambda images, frames: images.clone(),
            max_iterations=self.max_iterations,
        )


@pytest.mark.real
@with_bart
@pytest.mark.parametrize(
    ("method", "cut", "frames"),
    [
        (PlainCg(l2=0.1, max_iterations=60), 2, [4]),
        (PlainCg(l2=0.1, max_iterations=30), 0, [0]),
        (CgSense(l2=0.1, max_iterations=100, tolerance=1e-5, density="none"), 2, [4]),
        (CgSense(), 2, range(7)),
    ],
    ids=["same iterations", "all samples", "to convergence", "as by default"],
)
def test_cg_sense_of_a_real_heart_is_that_of_bart(
    method: CgSense | PlainCg, cut: int, frames: Iterable[int], tmp_path: Path
) -> None:
    """Within 2 % NRMSE in every frame; ``cut`` leaves out samples at the edge of the band, where BART has an error."""
    if not PERFUSION.exists():
        pytest.skip(f"there is no {PERFUSION}")
    scan = open_source(PERFUSION)
    assert isinstance(scan, RadialScan)
    assert scan.frame is not None
    gridded = NormalEquations(scan.matrix, 7, scan.n_coils)
    gridded.add(scan.samples, scan.positions, scan.frame)
    maps = espirit_maps(gridded.time_average())
    inside = slice(cut, scan.n_readout - cut)
    samples, positions = scan.samples[..., inside], scan.positions[:, inside]
    equations = NormalEquations(scan.matrix, 7, scan.n_coils, density=method.density)
    equations.add(samples, positions, scan.frame)
    ours = method(equations, maps).image
    for frame in frames:
        mine = scan.frame == frame
        weights = _weights(positions[mine], scan.matrix, method.density)
        ridge = method.l2 * float(equations.weight[frame])
        theirs = pics(tmp_path, samples[mine], positions[mine], maps, weights, ridge, method.max_iterations)
        error = float(torch.linalg.vector_norm(ours[frame] - theirs) / torch.linalg.vector_norm(theirs))
        assert error < 0.02, f"frame {frame}"
