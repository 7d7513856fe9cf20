"""What a segmentation is: labels of a cine on its own grid, where its slices lie, and how sure the networks were."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.scan import Geometry


class Structure(IntEnum):
    """Labels of a short-axis image."""

    BACKGROUND = 0
    LV = 1
    MYOCARDIUM = 2
    RV = 3


FOREGROUND = (Structure.LV, Structure.MYOCARDIUM, Structure.RV)


class SlicePosition(IntEnum):
    """Where a short-axis slice lies; what it may hold follows from it."""

    NO_HEART = 0
    BASE = 1
    MIDDLE = 2
    APEX = 3

    @property
    def word(self) -> str:
        """For people: ``no heart``, ``base``, ``middle``, ``apex``."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True)
class Segmentation:
    """Labels of a stack of slices over the beat.

    Parameters
    ----------
    labels
        (slice, frame, y, x) uint8: see :class:`Structure`.
    geometry
        Of the slices: that of the cine.
    positions
        Of each slice.
    position_probabilities
        (slice, 4) float32, in the order of :class:`SlicePosition`.
    samples
        (sample, slice, frame, y, x) uint8: labels that each network, or each way of looking, would have drawn alone.
        Their spread is the uncertainty. May have no samples.
    entropy
        (slice, frame, y, x) float32, in nats: entropy of the mean probabilities.
    flip_risk
        (slice, frame) float32, in nats: mean over predicted foreground of the entropy among the foreground labels
        alone (Achara et al., arXiv 2604.13326). NaN where there is no foreground.

    Raises
    ------
    ShapeError
        When shapes do not fit.
    """

    labels: Tensor
    geometry: Geometry
    positions: tuple[SlicePosition, ...]
    position_probabilities: Tensor
    samples: Tensor
    entropy: Tensor
    flip_risk: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.labels.shape)
        n_slices, rows, columns = self.geometry.shape
        if len(shape) != 4 or (shape[0], *shape[2:]) != (n_slices, rows, columns):
            raise ShapeError("the labels", self.labels, f"({n_slices}, frame, {rows}, {columns})")
        if self.labels.dtype != torch.uint8:
            raise ShapeError("the labels", self.labels.dtype, "uint8")
        for name, value, expected in (
            ("the probabilities of positions", self.position_probabilities, (n_slices, len(SlicePosition))),
            ("the samples", self.samples, (len(self.samples), *shape)),
            ("the entropy", self.entropy, shape),
            ("the flip risk", self.flip_risk, shape[:2]),
        ):
            if tuple(value.shape) != expected:
                raise ShapeError(name, value, str(expected))
        if len(self.positions) != n_slices:
            raise ShapeError("the positions", (len(self.positions),), f"({n_slices},)")
