"""Small things that are done with maps of labels and of their probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.segment.segmentation import FOREGROUND


def likeliest(probabilities: Tensor) -> Tensor:
    """Return the label of the largest of (image, 4, y, x) probabilities, the first of equal ones: (image, y, x) uint8.

    Twenty times as quick as ``argmax`` over a dimension that is not the last (on a CPU).
    """
    best = probabilities[:, 0]
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for structure in FOREGROUND:
        labels.masked_fill_(probabilities[:, structure] > best, int(structure))
        best = torch.maximum(best, probabilities[:, structure])
    return labels


def bounding_box(mask: Tensor, margin: int) -> tuple[slice, slice]:
    """Return rows and columns of a (y, x) mask, and some pixels more; the whole image where there is nothing."""
    rows, columns = (mask.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
    if not rows:
        return slice(None), slice(None)
    return (
        slice(max(rows[0] - margin, 0), rows[-1] + 1 + margin),
        slice(max(columns[0] - margin, 0), columns[-1] + 1 + margin),
    )
