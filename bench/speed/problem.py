"""The data that all tools are timed on: a synthetic moving phantom seen by smooth coils on golden-angle spokes.

Spoke s of frame f is number ``s T + f`` of one golden-angle stream, so that any run of the stream is spread over the
frames. A readout has 2 N samples; the noise is 2 % of the samples' root mean square.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.speed.reference import make_references
from kspace.formats.files import written_beside
from kspace.trajectory import golden_angles, radial_positions

TR_S = 2.94e-3
UPDATE_S = 0.5
FIRST_S = 1.0  # scan time at the first decision
NOISE = 0.02
RIDGE = 0.3
"""Weight of |x|^2 in CG-SENSE, relative to the mean diagonal of E^H E.

With the noise above the solution is then about as near to the truth as it gets: 0.1, 0.3 and 1 leave 12.6, 11.4
and 12.1 % of error at 13 spokes, and 9.1, 7.3 and 7.7 % at 34.
"""
VERSION = 1
"""Of the cached files; to be raised when the data or the references change."""

Array = np.ndarray[Any, Any]


def spokes_in(seconds: float, frames: int) -> int:
    """Return the spokes per frame that a scan of so many seconds gives, at least one."""
    return max(1, round(seconds / TR_S / frames))


@dataclass(frozen=True)
class Size:
    """How large a problem is: matrix N x N, frames, coils and spokes per frame."""

    matrix: int
    frames: int
    coils: int
    spokes: int

    @property
    def readout(self) -> int:
        return 2 * self.matrix

    @property
    def name(self) -> str:
        return f"N{self.matrix}-T{self.frames}-C{self.coils}-S{self.spokes}"

    @property
    def diagonal(self) -> float:
        """The mean diagonal of E^H E in the unitary scaling."""
        return self.spokes * self.readout / self.matrix**2


class Problem:
    """Trajectory, maps, images, noisy samples and float64 references.

    Parameters
    ----------
    size
        How large.
    folder
        Where samples and references are cached.
    """

    def __init__(self, size: Size, folder: Path) -> None:
        self.size, self.path = size, folder / f"{size.name}-v{VERSION}.npz"
        angles = golden_angles(size.spokes * size.frames).reshape(size.spokes, size.frames).T
        self.positions: Array = radial_positions(angles, size.readout).numpy()
        """(frame, spoke, readout, 2) float32."""
        axis = (np.arange(size.matrix) - size.matrix // 2) / (size.matrix / 2)
        y, x = np.meshgrid(axis, axis, indexing="ij")
        around = np.arange(size.coils)[:, None, None] * (2 * math.pi / size.coils)
        distance = (x - 1.1 * np.cos(around)) ** 2 + (y - 1.1 * np.sin(around)) ** 2
        maps = np.exp(-distance / 1.2 + 1j * (around + 1.5 * (x * np.sin(around) + y * np.cos(around))))
        self.maps: Array = (maps / np.sqrt((np.abs(maps) ** 2).sum(0))).astype(np.complex64)
        self.images: Array = np.stack([_phantom(x, y, frame / size.frames) for frame in range(size.frames)]).astype(
            np.complex64
        )
        self.check_frames = sorted({0, size.frames // 2, size.frames - 1})
        """The frames whose results are compared with float64."""

    @cached_property
    def cached(self) -> dict[str, Array]:
        """Samples and references, from the cache or made now."""
        if not self.path.exists():
            made = make_references(self, noise=NOISE, ridge=RIDGE)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with written_beside(self.path) as beside, beside.open("wb") as file:
                np.savez(file, **made)  # type: ignore[arg-type]
        with np.load(self.path) as kept:
            return {name: kept[name] for name in kept.files}

    @property
    def samples(self) -> Array:
        """(frame, coil, spoke, readout) complex64."""
        return self.cached["samples"]

    @property
    def noise_std(self) -> float:
        return float(self.cached["noise_std"])

    def stream(self, first: int = 0, stop: int | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return samples (spoke, coil, readout), positions and frames of some of each frame's spokes, in time order."""
        samples = self.samples[:, :, first:stop].transpose(2, 0, 1, 3).reshape(-1, self.size.coils, self.size.readout)
        positions = self.positions[:, first:stop].swapaxes(0, 1).reshape(-1, self.size.readout, 2)
        frame = torch.arange(self.size.frames).repeat(len(samples) // self.size.frames)
        return torch.from_numpy(samples.copy()), torch.from_numpy(positions.copy()), frame

    def error(self, reference: str, got: Array, frames: int) -> float:
        """Return the relative l2 error over the checked frames among the first so many."""
        if reference == "truth":
            expected: Array = self.images[:frames]
        else:
            chosen = [i for i, f in enumerate(self.check_frames) if f < frames]
            expected = self.cached[reference][chosen]
            got = got[[self.check_frames[i] for i in chosen]]
        got = got.reshape(expected.shape)
        return float(np.linalg.norm(got.astype(np.complex128) - expected) / np.linalg.norm(expected))


def _phantom(x: Array, y: Array, phase: float) -> Array:
    beat = 0.12 * math.sin(2 * math.pi * phase)
    ellipses = [
        (0, 0, 0.8, 0.9, 0.3),
        (0.1, -0.1, 0.35 + beat, 0.3 + beat, 0.5),
        (0.1, -0.1, 0.22 + beat, 0.18 + beat, 0.6),
        (-0.4, 0.3, 0.15, 0.2, -0.2),
        (0.45, 0.4, 0.08, 0.1, 0.7),
        (-0.3, -0.45, 0.05, 0.05, 0.9),
    ]
    image = np.zeros_like(x)
    for u, v, a, b, level in ellipses:
        image += level / (1 + np.exp(np.minimum(40 * (((x - u) / a) ** 2 + ((y - v) / b) ** 2 - 1), 80)))
    shaded: Array = image * np.exp(1j * (0.8 * x - 0.5 * y * y + 0.3 * phase))
    return shaded
