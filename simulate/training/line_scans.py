"""Cartesian cine scans of virtual patients for line detection: one coil, 128 x 128, corrupted by mis-triggered lines.

Images are drawn at twice the matrix and k-space of the finer image is cut to it, so that nothing is measured on the
grid on which it is reconstructed. A mis-triggered line has noise of its own: copied with its noise it would be found by
looking for two equal lines.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kspace.errors import UsageError
from kspace.formats.files import written_beside
from kspace.motion.cartesian import Mistriggering, corrupted, to_image, to_kspace
from simulate.training.dataset import HeartOptions, SimulatedHearts, Split
from simulate.training.degrade import smooth_field
from simulate.training.randomise import Randomisation

N, FRAMES, PIXEL_MM = 128, 25, 1.4
MIDDLE = (0.25, 0.65)
"""Heights of the slices, 0 at the mitral plane and 1 at the apex: mid-ventricular, as published."""


@dataclass(frozen=True)
class LineScan:
    """One cine, measured once cleanly and once mis-triggered.

    Parameters
    ----------
    truth
        (frame, y, x) complex, noiseless and band-limited, of peak 1.
    clean
        (frame, line, readout) complex k-space of every line at its own phase, with noise.
    measured
        The same, with mis-triggered lines.
    source
        (frame, line) int64, the phase at which a line was measured.
    noise_std
        Of a complex sample.
    labels
        (frame, y, x) uint8.
    """

    truth: Tensor
    clean: Tensor
    measured: Tensor
    source: Tensor
    noise_std: float
    labels: Tensor

    @property
    def wrong(self) -> Tensor:
        """(frame, line) bool, whether a line was measured at another phase than its own."""
        own = torch.arange(len(self.source), device=self.source.device)[:, None]
        return self.source != own


@dataclass(frozen=True)
class LineBank:
    """Noiseless cines of a split, drawn once and kept in a file.

    Parameters
    ----------
    images
        (patient, frame, y, x, 2) float16, real and imaginary, of peak 1.
    labels
        (patient, frame, y, x) uint8.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def scan(
        self, number: int, kind: Mistriggering, generator: torch.Generator, *, snr: float = 30.0, turned: bool = False
    ) -> LineScan:
        """Measure a patient.

        Parameters
        ----------
        number
            Of the patient.
        kind
            Which lines are mis-triggered.
        generator
            For the noise and the lines.
        snr
            Mean magnitude over the standard deviation of the complex noise of a pixel.
        turned
            Whether the cine is first brought into a random one of eight orientations.
        """
        image = torch.view_as_complex(self.images[number].float())
        labels = self.labels[number]
        if turned:
            turn = int(torch.randint(8, (), generator=generator))
            image, labels = _turned(image, turn), _turned(labels, turn)
        spectra = to_kspace(image)
        noise_std = float(image.abs().mean()) / snr
        noise = noise_std * torch.randn(spectra.shape, dtype=spectra.dtype, generator=generator)
        source = kind.draw(spectra.shape[0], spectra.shape[1], generator)
        return LineScan(image, spectra + noise, corrupted(spectra, source) + noise, source, noise_std, labels)


def line_bank(folder: Path, split: Split, patients: int, *, frames: int = FRAMES, size: int = N) -> LineBank:
    """Return the noiseless cines of a split's first patients, drawn once (0.9 s each) and kept in a folder.

    Raises
    ------
    UsageError
        When there are no patients.
    """
    if patients < 1:
        raise UsageError(f"{patients} patients", expected="1 or more")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"lines-{split.value}-{patients}x{frames}x{size}.safetensors"
    if not path.exists():
        drawn = [_draw(number, split, frames, size) for number in range(patients)]
        tensors = {"images": torch.stack([a for a, _ in drawn]), "labels": torch.stack([b for _, b in drawn])}
        with written_beside(path) as temporary:
            save_file(tensors, temporary)
    stored = load_file(path)
    return LineBank(stored["images"], stored["labels"])


def _draw(number: int, split: Split, frames: int, size: int) -> tuple[Tensor, Tensor]:
    options = HeartOptions(frames=frames, size=2 * size, pixel_mm=PIXEL_MM * N / size / 2, planes=1)
    look = replace(Randomisation(), height=MIDDLE)
    hearts = SimulatedHearts(number + 1, split, options, look, clean=True)
    magnitude, labels, record = hearts[number]
    generator = torch.Generator().manual_seed(record["seed"])
    phase = 0.8 * smooth_field(2 * size, 1.0, generator)
    fine = to_kspace(torch.polar(magnitude - magnitude.min(), phase.expand_as(magnitude)))
    inner = slice(size // 2, size // 2 + size)
    image = to_image(fine[:, inner, inner])
    # Row i of the matrix lies on row 2 i of the finer grid.
    return torch.view_as_real(image / image.abs().max()).half(), labels[:, ::2, ::2].contiguous()


def _turned(values: Tensor, turn: int) -> Tensor:
    return torch.rot90(values if turn < 4 else values.mT, turn % 4, (-2, -1)).contiguous()
