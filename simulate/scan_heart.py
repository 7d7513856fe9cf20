"""The heart of a finished scan: its labels and what they measure, or why there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from kspace.biomarkers import BIOMARKERS, Biomarkers, biomarkers
from kspace.errors import SpokewiseError
from kspace.scan import Cine
from kspace.segment.segmentation import Segmentation


class CineSegmenter(Protocol):
    """What segments; :class:`kspace.segment.segmenter.Segmenter` is one."""

    def __call__(self, cine: Cine, *, on_slice: Any = None) -> Segmentation:
        """Return the labels of a cine on its own grid; ``on_slice`` hears of slices done and of all."""
        ...


@dataclass(frozen=True)
class ScanHeart:
    """What was found in the finished slices.

    Parameters
    ----------
    slices
        Of the stack, those that were segmented.
    cine
        Their images.
    segmentation, biomarkers
        Of them.
    """

    slices: tuple[int, ...]
    cine: Cine
    segmentation: Segmentation
    biomarkers: Biomarkers

    def labels(self, n_slices: int) -> Tensor:
        """Return the labels of the whole stack (slice, frame, y, x) uint8, 0 in slices that were not segmented."""
        whole = torch.zeros((n_slices, *self.segmentation.labels.shape[1:]), dtype=torch.uint8)
        whole[list(self.slices)] = self.segmentation.labels.cpu()
        return whole


def find_scan_heart(stack: Cine, slices: Sequence[int], segment: CineSegmenter) -> ScanHeart | str:
    """Segment the finished slices of a scan.

    Parameters
    ----------
    stack
        Images of the whole stack.
    slices
        Those that are finished.
    segment
        Draws the labels.

    Returns
    -------
    The heart, or a reason in words: a scan is kept whether its heart can be measured or not.
    """
    chosen = tuple(sorted(slices))
    try:
        cine = stack.select_slices(chosen)
        segmentation = segment(cine)
    except SpokewiseError as error:
        return error.what
    return ScanHeart(chosen, cine, segmentation, biomarkers(segmentation, cine.slice_rr_s(0)))


def biomarker_record(heart: ScanHeart | str) -> Mapping[str, Any]:
    """Return what goes into ``scan.json``: the measures, or null with the reason for each."""
    if isinstance(heart, str):
        return {"biomarkers": dict.fromkeys(BIOMARKERS), "biomarkers_missing": dict.fromkeys(BIOMARKERS, heart)}
    places = zip(heart.slices, heart.segmentation.positions, strict=True)
    return {**heart.biomarkers.record(), "slice_positions": {str(index): place.word for index, place in places}}
