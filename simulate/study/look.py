"""One slice as the networks see it in a small window: areas, samples, and how sure they are. Built to be cheap.

As :mod:`kspace.segment.segmenter`, but for what a study knows beforehand: the stack was planned on the heart, so that
nobody has to search for it, and each slice's third of the ventricle is the plan's. Labels are tidied, not refined, and
stay in the window, where pixels are the networks' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.segment.inputs import network_inputs, normalised
from kspace.segment.maps import likeliest
from kspace.segment.network import SegmentationNetwork
from kspace.segment.networks import members, stored_network
from kspace.segment.papillary import with_papillary_muscles
from kspace.segment.segmentation import FOREGROUND, SlicePosition
from kspace.segment.segmenter import flip_risk
from kspace.segment.tidy import tidy
from kspace.segment.topology import betti_errors
from kspace.segment.window import Window


@dataclass(frozen=True)
class Look:
    """What was drawn on one slice.

    Parameters
    ----------
    labels
        (frame, y, x) uint8 in the window.
    samples
        (sample, frame, y, x) uint8, what each network would have drawn alone.
    position
        (4,) probabilities, in the order of :class:`~kspace.segment.segmentation.SlicePosition`.
    entropy, flip_risk
        Means over what was labelled, in nats; NaN where nothing was.
    betti_errors
        Per frame, of a middle slice; NaN elsewhere.
    """

    labels: Tensor
    samples: Tensor
    position: Tensor
    entropy: float
    flip_risk: float
    betti_errors: float


@dataclass(frozen=True)
class Looker:
    """Looks at slices of one size.

    Parameters
    ----------
    networks
        Two or more.
    pixel_mm
        Of the window.
    size
        Its pixels along the side.
    at_once
        Frames that a network sees at once.
    """

    networks: tuple[SegmentationNetwork, ...]
    pixel_mm: float
    size: int
    at_once: int

    @classmethod
    def shipped(cls, n_members: int, size: int, at_once: int) -> Looker:
        """Return one with the first of the shipped networks."""
        loaded = [stored_network(name) for name in members()[:n_members]]
        return cls(tuple(network for network, _ in loaded), loaded[0][1].pixel_mm, size, at_once)

    def window(self, matrix: int, field_of_view_mm: float) -> Window:
        """Return the window about the pixel ``N // 2`` of a square grid."""
        spacing = field_of_view_mm / matrix
        return Window((matrix // 2, matrix // 2), self.size, self.pixel_mm, (spacing, spacing))

    def areas(self, labels: Tensor) -> Tensor:
        """Return (..., structure, frame) float64 in mm2 of labels (..., frame, y, x)."""
        counts = torch.stack([(labels == structure).sum((-2, -1)) for structure in FOREGROUND], dim=-2)
        return counts.double() * self.pixel_mm**2

    def __call__(self, images: Tensor, field_of_view_mm: float, place: SlicePosition) -> Look:
        """Look at (frame, y, x) magnitudes of a slice that was planned for a place."""
        seen = network_inputs(normalised(self.window(images.shape[-1], field_of_view_mm).cut(images)))
        total: Tensor | None = None
        alone, position = [], []
        with torch.inference_mode():
            for network in self.networks:
                parts = [network(some) for some in torch.split(seen, self.at_once)]
                chances = torch.cat([labels for labels, _ in parts]).softmax(1)
                position.append(torch.cat([where for _, where in parts]).softmax(1).mean(0))
                alone.append(likeliest(chances))
                total = chances if total is None else total + chances
        assert total is not None
        mean = total / len(self.networks)
        drawn = tidy(torch.stack([likeliest(mean), *alone]))
        if place in (SlicePosition.MIDDLE, SlicePosition.APEX):
            drawn = with_papillary_muscles(drawn)
        labels, heart = drawn[0], drawn[0] > 0
        entropy = torch.special.entr(mean).sum(1)
        middle = place is SlicePosition.MIDDLE
        return Look(
            labels, drawn[1:], torch.stack(position).mean(0),
            float(entropy[heart].mean()),
            float(flip_risk(mean, labels).nanmean()),
            float(betti_errors(labels).double().mean()) if middle else float("nan"),
        )  # fmt: skip


def dice(labels: Tensor, others: Tensor) -> Tensor:
    """Return (structure,) float64, the mean over frames of the Dice coefficients of two (frame, y, x) segmentations.

    Frames in which neither has the structure do not count; NaN where that leaves none.
    """
    found = []
    for structure in FOREGROUND:
        one, other = labels == structure, others == structure
        both = (one & other).sum((-2, -1)).double()
        found.append((2 * both / (one.sum((-2, -1)) + other.sum((-2, -1)))).nanmean())  # 0 / 0 is NaN
    return torch.stack(found)


def disagreement(labels: Tensor, samples: Sequence[Tensor] | Tensor) -> float:
    """Return 1 - mean Dice of the samples with the labels, over structures and frames."""
    return 1 - float(torch.stack([dice(labels, sample) for sample in samples]).nanmean())
