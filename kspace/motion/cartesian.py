"""Cartesian cine k-space with mis-triggered lines: which line came from which phase, and the published corruption.

Oksuz et al. (MICCAI 2019, arXiv 1906.05695; IEEE TMI 2020, arXiv 1910.05370): every third line of a 2D+t cine is
replaced by the same line of another cardiac phase, a random number of frames away.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.errors import ShapeError, UsageError


def to_kspace(images: Tensor) -> Tensor:
    """Return the centred, unitary 2D DFT over the last two axes."""
    spectra = torch.fft.fft2(torch.fft.ifftshift(images, dim=(-2, -1)), norm="ortho")
    centred: Tensor = torch.fft.fftshift(spectra, dim=(-2, -1))
    return centred


def to_image(kspace: Tensor) -> Tensor:
    """Return the inverse of :func:`to_kspace`."""
    images = torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=(-2, -1)), norm="ortho")
    centred: Tensor = torch.fft.fftshift(images, dim=(-2, -1))
    return centred


@dataclass(frozen=True)
class Mistriggering:
    """Which lines are measured at a wrong phase.

    Parameters
    ----------
    share
        Of the lines of every frame that are wrong, chosen at random; with ``every``, not used.
    every
        Every so many-th line is wrong instead, 3 as published; 0 for random lines.
    same_lines
        With ``every``: whether the pattern begins at the same line in all frames, so that no phase has those lines
        right, or at a random one in each.
    """

    share: float = 0.0
    every: int = 0
    same_lines: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise UsageError(f"a share of {self.share}", expected="0 to 1")
        if self.every < 0:
            raise UsageError(f"every {self.every} lines", expected="0 or more")

    def draw(self, frames: int, lines: int, generator: torch.Generator) -> Tensor:
        """Return the phase at which each line was measured, (frame, line) int64: its own frame, or any other one."""
        if frames < 2:
            raise UsageError(f"{frames} frame", expected="2 or more: a wrong phase has to be another one")
        if self.every:
            first = torch.randint(self.every, (1 if self.same_lines else frames, 1), generator=generator)
            wrong = (torch.arange(lines)[None] % self.every == first).expand(frames, lines)
        else:
            order = torch.rand(frames, lines, generator=generator).argsort(1).argsort(1)
            wrong = order < round(self.share * lines)
        offset = torch.randint(1, frames, (frames, lines), generator=generator)
        return (torch.arange(frames)[:, None] + offset * wrong) % frames


def corrupted(kspace: Tensor, source: Tensor) -> Tensor:
    """Return k-space whose lines were measured at other phases.

    Parameters
    ----------
    kspace
        (frame, line, readout) complex.
    source
        (frame, line) int64, the phase of each line.

    Raises
    ------
    ShapeError
        When the sources are not those of the lines.
    """
    if kspace.ndim != 3 or source.shape != kspace.shape[:2]:
        raise ShapeError("the sources", source, "(frame, line) of k-space (frame, line, readout)")
    return torch.gather(kspace, 0, source[..., None].expand(kspace.shape))
