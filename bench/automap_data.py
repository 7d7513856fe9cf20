"""Frames of virtual patients, their k-space, and what a Cartesian and a radial scan make of it: for bench/automap.py.

All of it is synthetic. Frames are drawn at twice the resolution of the matrix, and k-space of the finer image is cut to
the matrix, so that what is measured was never computed on the grid on which it is reconstructed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import avg_pool2d

from kspace.formats.files import written_beside
from kspace.nufft import Nufft
from kspace.trajectory import golden_angles, radial_positions, ramp_weights
from simulate.training.dataset import HeartOptions, SimulatedHearts, Split
from simulate.training.degrade import smooth_field

DRAWN, PIXEL_MM = 256, 0.7


def frames_of(folder: Path, split: Split, patients: int, frames: int) -> Tensor:
    """Return magnitudes (patient x frame, 256, 256) float16 in [0, 1], drawn once and kept in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split.value}-{patients}x{frames}.safetensors"
    if not path.exists():
        options = HeartOptions(frames=frames, size=DRAWN, pixel_mm=PIXEL_MM, planes=1)
        hearts = SimulatedHearts(patients, split, options, clean=True)
        images = []
        for index in track(range(patients), f"drawing patients for {split.value}"):
            image = hearts[index][0]
            images.append(((image - image.min()) / (image.max() - image.min())).half())
        with written_beside(path) as temporary:
            save_file({"images": torch.cat(images)}, temporary)
    return load_file(path)["images"]


@dataclass(frozen=True)
class Batch:
    """Input and truth, (batch, y, x) complex, scaled so that the zero-filled image has a peak of 1.

    Parameters
    ----------
    kspace
        What was measured, times :attr:`Scan.gain`.
    zero_filled
        The transform of what was measured.
    truth
        The band-limited image.
    """

    kspace: Tensor
    zero_filled: Tensor
    truth: Tensor


def to_kspace(images: Tensor) -> Tensor:
    """Return the centred, unitary 2D DFT over the last two axes."""
    shifted = torch.fft.fft2(torch.fft.ifftshift(images, dim=(-2, -1)), norm="ortho")
    return torch.fft.fftshift(shifted, dim=(-2, -1))


def to_image(kspace: Tensor) -> Tensor:
    """Return the inverse of :func:`to_kspace`."""
    shifted = torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=(-2, -1)), norm="ortho")
    return torch.fft.fftshift(shifted, dim=(-2, -1))


@dataclass
class Scan:
    """One coil on one fixed trajectory, as networks with a learnt transform need it.

    Parameters
    ----------
    n
        Rows and columns.
    spokes
        Golden-angle spokes of 2 n samples; 0 is Cartesian at R = 2: the middle 8 % of the lines and random others.
    snr
        Smallest and largest mean signal over the standard deviation of the noise of a fully sampled image.
    """

    n: int
    spokes: int = 0
    snr: tuple[float, float] = (15.0, 40.0)
    _plans: dict[int, tuple[Nufft, Nufft]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        near = (torch.arange(self.n) - self.n // 2).abs() < 0.04 * self.n
        order = torch.rand(self.n, generator=generator) - 10 * near.float()
        self.mask = torch.zeros(self.n, 1)
        self.mask[order.argsort()[: self.n // 2]] = 1
        self.positions = radial_positions(golden_angles(max(self.spokes, 1)), 2 * self.n)
        self.weights = ramp_weights(self.positions).flatten() * self.n**2
        # The middle of k-space is a thousand times its edge, and gradients see nothing else. Gains per row and per
        # column halve the span, and a decomposed transform, learnt or exact, can take them back.
        axis = (1 + (torch.arange(self.n) - self.n // 2).abs()) ** 0.3
        self.axis_gain = axis * (3**0.5 / axis.square().mean().sqrt())
        self.gain = self.axis_gain[:, None] * self.axis_gain

    def fine(self, frames: Tensor) -> Tensor:
        """Return frames at twice the matrix, float32."""
        return avg_pool2d(frames.float()[:, None], DRAWN // (2 * self.n))[:, 0]

    def batch(self, magnitudes: Tensor, generator: torch.Generator) -> Batch:
        """Measure (batch, 2 n, 2 n) magnitudes under a smooth random phase each, with noise."""
        wide, n = magnitudes.shape[-1], self.n
        count = len(magnitudes)

        def uniform(low: float, high: float) -> Tensor:
            return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

        fields = torch.stack([smooth_field(wide, 1.0, generator) for _ in range(count)])
        image = torch.polar(magnitudes, uniform(0.3, 1.0) * fields + uniform(-0.5, 0.5))
        # The transform of the finer image is unitary on its own grid; half of it is right for the matrix.
        inner = slice(wide // 2 - n // 2, wide // 2 - n // 2 + n)
        whole = to_kspace(image)[:, inner, inner] * (n / wide)
        level = magnitudes.mean((1, 2), keepdim=True) / torch.exp(
            uniform(float(torch.tensor(self.snr[0]).log()), float(torch.tensor(self.snr[1]).log()))
        )

        def noise(*shape: int) -> Tensor:
            return torch.randn(count, *shape, dtype=torch.complex64, generator=generator)

        if self.spokes:
            forward, adjoint = self._planned(count, wide)
            samples = forward.forward(image) * (n / wide)
            # Twice the samples on the same readout: each has twice the variance.
            samples = samples + noise(samples.shape[-1]) * level[..., 0] * 2**0.5
            measured = to_kspace(adjoint.adjoint(samples * self.weights))
        else:
            measured = (whole + noise(n, n) * level) * self.mask
        zero_filled = to_image(measured)
        scale = zero_filled.abs().amax((1, 2), keepdim=True)
        return Batch(measured * self.gain / scale, zero_filled / scale, to_image(whole) / scale)

    def _planned(self, count: int, wide: int) -> tuple[Nufft, Nufft]:
        if count not in self._plans:
            points = self.positions.reshape(-1, 2)
            self._plans[count] = (
                Nufft(points * (self.n / wide), (wide, wide), n_transforms=count, n_threads=1),
                Nufft(points, (self.n, self.n), n_transforms=count, n_threads=1),
            )
        return self._plans[count]


def turned(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return each of (batch, y, x) square images in one of its eight orientations."""
    turns = torch.randint(8, (len(images),), generator=generator).tolist()
    return torch.stack(
        [torch.rot90(image if turn < 4 else image.T, turn % 4) for image, turn in zip(images, turns, strict=True)]
    )
