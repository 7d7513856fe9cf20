"""Which spokes of a simulated scan are corrupted, by what, and how strongly.

A spoke is corrupted when it does not show what its frame should: the heart as full as at that phase of a regular beat,
the body where the scan began, the signal of tissue and nothing else. How far it may be from that is a convention, and
stands here. A spoke in the wrong phase whose ventricle is as full as it should be harms no image and counts as sound.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.formats.files import written_beside
from simulate.spoke_truth import Truth

FILLING, BREATH_MM, SHIFT_MM, TURN_RAD = 0.2, 1.5, 1.0, 0.0175
"""Beyond these a spoke is corrupted: share of the stroke volume, diaphragm, shift and turn (1 degree) of the body."""
CAUSES = ("wrong phase", "breathing", "shift", "rotation", "spike", "dropped")


@dataclass(frozen=True)
class SpokeCorruption:
    """What is wrong with each spoke; each array (spoke,).

    Parameters
    ----------
    filling
        How much fuller or emptier the ventricle is than the spoke's frame shows it, as a share of the stroke volume.
    breath_mm, shift_mm, turn_rad
        How far diaphragm and body have gone from where they were at the first spoke.
    spiked, dropped
        bool: a sample that is far too large; noise alone.
    """

    filling: Tensor
    breath_mm: Tensor
    shift_mm: Tensor
    turn_rad: Tensor
    spiked: Tensor
    dropped: Tensor

    def __post_init__(self) -> None:
        n = len(self.filling)
        for entry in fields(self):
            if getattr(self, entry.name).shape != (n,):
                raise ShapeError(entry.name, getattr(self, entry.name), f"(spoke,) = ({n},)")

    def __len__(self) -> int:
        return len(self.filling)

    @property
    def causes(self) -> Tensor:
        """(spoke, cause) bool in the order of :data:`CAUSES`."""
        return torch.stack(
            (
                self.filling > FILLING, self.breath_mm > BREATH_MM, self.shift_mm > SHIFT_MM,
                self.turn_rad > TURN_RAD, self.spiked, self.dropped,
            ),
            dim=1,
        )  # fmt: skip

    @property
    def corrupted(self) -> Tensor:
        """(spoke,) bool."""
        return self.causes.any(1)

    @property
    def strength(self) -> Tensor:
        """(spoke,) float64: the largest of all errors, each in units of what is allowed; 1 and more is corrupted."""
        limits = (FILLING, BREATH_MM, SHIFT_MM, TURN_RAD)
        values = (self.filling, self.breath_mm, self.shift_mm, self.turn_rad)
        parts = [value / limit for value, limit in zip(values, limits, strict=True)]
        parts += [4.0 * self.spiked.double(), 4.0 * self.dropped.double()]
        return torch.stack(parts, dim=1).amax(1)

    def write_npz(self, path: str | os.PathLike[str]) -> None:
        """Write all arrays under their names, and ``corrupted``; the file appears whole or not at all."""
        arrays = {entry.name: getattr(self, entry.name).numpy() for entry in fields(self)}
        with written_beside(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, corrupted=self.corrupted.numpy(), **arrays)


def corruption_of(
    truth: Truth, filling: Callable[[float], float], *, frame_phase: Tensor | None = None
) -> SpokeCorruption:
    """Return what is wrong with the spokes of one slice.

    Parameters
    ----------
    truth
        What they suffered.
    filling
        The share of the stroke volume that is in the ventricle at a phase of a regular beat.
    frame_phase
        (spoke,) phase of the frame that each was sorted into, where it is not what gating says (spokes that were
        swapped on purpose).
    """
    phases = torch.linspace(0, 1, 401, dtype=torch.float64)
    curve = np.array([filling(float(phase) % 1.0) for phase in phases])
    curve[-1] = curve[0]

    def full(at: Tensor) -> Tensor:
        return torch.from_numpy(np.interp(at.numpy(), phases.numpy(), curve))

    sorted_into = truth.gated_phase if frame_phase is None else frame_phase
    shift = truth.shift_mm - truth.shift_mm[:1]
    return SpokeCorruption(
        filling=(truth.stroke * full(truth.phase) - full(sorted_into)).abs(),
        breath_mm=(truth.breath_mm - truth.breath_mm[:1]).abs(),
        shift_mm=torch.linalg.vector_norm(shift, dim=1),
        turn_rad=(truth.rotation_rad - truth.rotation_rad[:1]).abs(),
        spiked=truth.spiked,
        dropped=truth.dropped,
    )
