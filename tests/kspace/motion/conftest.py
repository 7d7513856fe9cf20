"""A beating disc under a few coils, measured in radial spokes."""

import math
from dataclasses import dataclass

import pytest
import torch

from kspace.nufft import Nufft
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions

N, FRAMES, COILS, SPOKES, RR_S, TR_S = 32, 8, 3, 480, 0.48, 3e-3


@dataclass(frozen=True)
class Disc:
    """Spokes of a beating disc, whitened, the frame of each, and the (frame, y, x) truth."""

    spokes: RadialScan
    frame: torch.Tensor
    truth: torch.Tensor
    n_frames: int = FRAMES


def frames_of_disc(n=FRAMES, shift=0.0):
    """Return (frame, y, x) magnitudes: a body, and in it a heart that beats beside a bright spot."""
    y, x = torch.meshgrid(torch.arange(N) - N / 2, torch.arange(N) - N / 2 - shift, indexing="ij")
    images = []
    for phase in (torch.arange(n) + 0.5) / n:
        radius = 4.5 + 1.8 * math.cos(2 * math.pi * float(phase))
        body = 0.6 * torch.sigmoid(2 * (12 - torch.sqrt(y**2 + 1.2 * x**2)))
        heart = torch.sigmoid(2 * (radius - torch.sqrt((y - 2.0) ** 2 + (x + 1.5) ** 2)))
        spot = torch.exp(-((y + 6) ** 2 + (x - 5) ** 2) / 5)
        images.append(body + heart + spot)
    return torch.stack(images)


def coil_maps():
    """Return (coil, y, x) of unit root sum of squares."""
    y, x = torch.meshgrid((torch.arange(N) - N / 2) / N, (torch.arange(N) - N / 2) / N, indexing="ij")
    angles = torch.arange(COILS) * 2 * math.pi / COILS
    maps = torch.stack([torch.exp(-0.3 * ((y - torch.sin(a)) ** 2 + (x - torch.cos(a)) ** 2)) + 0j for a in angles])
    maps = maps * torch.polar(torch.ones(COILS), angles)[:, None, None]
    return (maps / maps.abs().square().sum(0).sqrt()).to(torch.complex64)


def measure(shown, images, *, noise=0.05, seed=0):
    """Return whitened spokes, each of the image (spoke,) that it shows."""
    n = len(shown)
    positions = radial_positions(golden_angles(n), 2 * N)
    maps, samples = coil_maps(), torch.zeros(n, COILS, 2 * N, dtype=torch.complex64)
    for number in torch.unique(shown).tolist():
        mine = torch.nonzero(shown == number)[:, 0]
        plan = Nufft(positions[mine].reshape(-1, 2), (N, N), n_transforms=COILS, accuracy="standard")
        samples[mine] = plan.forward(images[number] * maps).reshape(COILS, len(mine), -1).transpose(0, 1)
    generator = torch.Generator().manual_seed(seed)
    samples = samples + noise * torch.randn(samples.shape, dtype=torch.complex64, generator=generator)
    time = torch.arange(n, dtype=torch.float64) * TR_S
    geometry = Geometry.from_spacing((1, N, N), (8.0, 6.0, 6.0))
    ecg = torch.arange(0, n * TR_S + RR_S, RR_S, dtype=torch.float64)
    return RadialScan(
        samples / noise, positions, time, geometry, ecg_s=ecg, noise_covariance=torch.eye(COILS) + 0j, source="a disc"
    )


def frame_of_time(n=SPOKES):
    """Return (spoke,) int64, the frame of each spoke of a steady rhythm."""
    phase = torch.remainder(torch.arange(n, dtype=torch.float64) * TR_S / RR_S, 1.0)
    return (phase * FRAMES).long()


@pytest.fixture(scope="session")
def disc():
    frame = frame_of_time()
    return Disc(measure(frame, frames_of_disc()), frame, frames_of_disc())


@pytest.fixture(scope="session")
def swapped():
    """Every sixteenth spoke shows another phase; returns the disc and (spoke,) bool which."""
    frame = frame_of_time()
    wrong = torch.arange(SPOKES) % 16 == 3
    shown = torch.where(wrong, (frame + 4) % FRAMES, frame)
    return Disc(measure(shown, frames_of_disc()), frame, frames_of_disc()), wrong


@pytest.fixture(scope="session")
def shifted():
    """After two thirds the body lies 1.5 pixels beside; returns the disc and (spoke,) bool which spokes came after."""
    frame = frame_of_time()
    late = torch.arange(SPOKES) >= 2 * SPOKES // 3
    images = torch.cat((frames_of_disc(), frames_of_disc(shift=1.5)))
    return Disc(measure(frame + FRAMES * late.long(), images), frame, images[:FRAMES]), late
