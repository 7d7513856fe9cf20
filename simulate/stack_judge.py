"""What the heart of a stack looks like at a step of its scan: areas, and how sure the networks are of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from kspace.quality.judge import Evidence
from kspace.quality.trajectory import Array
from kspace.scan import Cine
from kspace.segment.segmentation import FOREGROUND, Segmentation, SlicePosition
from kspace.segment.segmenter import Segmenter
from kspace.segment.topology import betti_errors
from simulate.scan_heart import CineSegmenter
from simulate.study.look import dice

_NAMES = ("lv", "myocardium", "rv")  # of FOREGROUND, in scores


@dataclass(frozen=True)
class Drawn:
    """One slice as it was drawn at a step.

    Parameters
    ----------
    labels
        (frame, y, x) uint8, on a grid that stays the same from step to step.
    areas_mm2
        (structure, frame).
    sample_areas_mm2
        (sample, structure, frame).
    scores
        Of the labels; names as in :data:`~kspace.quality.trajectory.SCORES`.
    """

    labels: Tensor
    areas_mm2: Array
    sample_areas_mm2: Array
    scores: Mapping[str, float]


class StackDrawer(Protocol):
    """Draws all slices of a stack; what is drawn at a step may look at the whole stack as it is then."""

    def __call__(self, cine: Cine) -> tuple[Drawn, ...]:
        """Return one for each slice."""
        ...


@dataclass(frozen=True)
class SegmenterDrawer:
    """Draws with what segments a cine; by default contours are tidied and not bent, to save time.

    Parameters
    ----------
    segmenter
        Its samples are the spread.
    """

    segmenter: CineSegmenter = field(default_factory=lambda: Segmenter(topology="tidy"))

    def __call__(self, cine: Cine) -> tuple[Drawn, ...]:
        """Return one for each slice."""
        found = self.segmenter(cine)
        return tuple(_drawn(found, index) for index in range(len(found.labels)))


def _drawn(found: Segmentation, index: int) -> Drawn:
    _, dy, dx = found.geometry.spacing_mm
    labels, samples = found.labels[index], found.samples[:, index]
    heart = labels > 0
    place = found.position_probabilities[index]
    middle = found.positions[index] is SlicePosition.MIDDLE
    apart = torch.stack([dice(labels, sample) for sample in samples])  # (sample, structure)
    return Drawn(
        labels,
        areas(labels, dy * dx),
        areas(samples, dy * dx),
        {
            "entropy": float(found.entropy[index][heart].mean()) if bool(heart.any()) else math.nan,
            "flip_risk": float(found.flip_risk[index].nanmean()),
            "betti_errors": float(betti_errors(labels).double().mean()) if middle else math.nan,
            "disagreement": 1 - float(apart.nanmean()),
            **{f"disagreement_{name}": 1 - float(apart[:, k].nanmean()) for k, name in enumerate(_NAMES)},
            **{
                f"position_{p.name.lower()}": float(place[p])
                for p in (SlicePosition.BASE, SlicePosition.MIDDLE, SlicePosition.APEX)
            },
        },
    )


def areas(labels: Tensor, pixel_mm2: float) -> Array:
    """Return (..., structure, frame) of labels (..., frame, y, x)."""
    counts = torch.stack([(labels == structure).sum((-2, -1)) for structure in FOREGROUND], dim=-2)
    found: Array = counts.cpu().numpy().astype(np.float64) * pixel_mm2
    return found


def evidence_scores(evidence: Evidence) -> dict[str, float]:
    """Return what spokes and images alone say, by the names of :data:`~kspace.quality.trajectory.SCORES`."""
    over_noise = math.nan
    if evidence.predicted is not None and evidence.noise_std:
        residual = (evidence.predicted - evidence.newest.samples).abs().double().square().mean()
        over_noise = math.sqrt(float(residual)) / evidence.noise_std
    return {"spokes_per_frame": float(evidence.spokes_per_frame.double().mean()), "held_out_over_noise": over_noise}
