"""How firmly a probability map holds each piece and each hole, as a loss that a gradient can follow.

Lower a threshold from 1 to 0 over a map of probabilities, and pieces and holes of what lies above it come and go. A
bar is as long as the range of thresholds at which one of them is there: near 1 for what the network is sure of, near 0
for noise. Each end of a bar is the value of one pixel, and so its length has a gradient (Clough et al., arXiv
1910.01877).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kspace.errors import InputError, ShapeError
from kspace.segment.maps import bounding_box
from kspace.segment.segmentation import Structure
from kspace.segment.topology import PARTS, Part

SURE = 1 / len(Structure)
"""A pixel that carries a label has at least this probability of it: that of the likeliest of four."""


def bars(probability: Tensor) -> tuple[Tensor, Tensor]:
    """Measure the persistence of pieces and of holes, by gudhi's cubical complex over pixels.

    Parameters
    ----------
    probability
        (y, x), in [0, 1]; beyond the image it is 0. Neighbours as in :mod:`kspace.segment.topology`.

    Returns
    -------
    tuple[Tensor, Tensor]
        (piece,) and (hole,) lengths in (0, 1], longest first, of the map's type, on its device, and differentiable. The
        first piece lasts to threshold 0. Found on the CPU.

    Raises
    ------
    ShapeError
        When it is no image.
    """
    from gudhi import CubicalComplex

    if probability.ndim != 2 or probability.numel() == 0:
        raise ShapeError("the probability", probability, "(y, x), not empty")
    padded = functional.pad(probability, (1, 1, 1, 1))
    # gudhi counts pixels down the columns: of the transpose, that is our order. It grows from low values to high ones.
    cells = CubicalComplex(top_dimensional_cells=1 - padded.detach().cpu().double().numpy().T)
    cells.compute_persistence()
    finite, lasting = cells.cofaces_of_persistence_pairs()
    values = padded.flatten()
    lengths = []
    for dimension in (0, 1):
        none = np.empty((0, 2), dtype=np.int64)
        ends = torch.from_numpy(np.array(finite[dimension] if dimension < len(finite) else none).astype(np.int64))
        birth, death = ends.reshape(-1, 2).to(values.device).unbind(1)
        length = values[birth] - values[death]
        if dimension == 0:
            length = torch.cat([length, values[torch.from_numpy(lasting[0].astype(np.int64)).to(values.device)]])
        lengths.append(length.sort(descending=True).values)
    return lengths[0], lengths[1]


def topological_loss(probabilities: Tensor, parts: Sequence[Part] = PARTS, *, power: int = 1) -> Tensor:
    """Add up what bars of an expected number lack, and all other bars: 0 for a sure heart in a middle slice.

    Of each part, A = sum of 1 - length over the longest bars, as many as expected, and Z = sum of length ** power over
    the rest; the loss is the sum of A + Z. Without an expected bar, its 1 has no gradient.

    Parameters
    ----------
    probabilities
        (4, y, x), of sum 1: the softmax.
    parts
        What counts.
    power
        1 is the loss of Byrne et al. (arXiv 2107.12689). With 2, as in Clough et al., short bars, which are noise and
        change no label, get a short gradient.

    Returns
    -------
    Tensor
        Zero-dimensional. A part is looked at within the bounding box of pixels that may carry its label, at
        probabilities of :data:`SURE` and more: fainter bars elsewhere change no label.

    Raises
    ------
    ShapeError, InputError
        When there are not four maps, or the power is none.
    """
    if probabilities.ndim != 3 or len(probabilities) != len(Structure):
        raise ShapeError("the probabilities", probabilities, f"({len(Structure)}, y, x)")
    if power < 1:
        raise InputError(f"the power is {power}", expected="1 or more")
    loss = probabilities.new_zeros(())
    for part in parts:
        probability = probabilities[list(part.structures)].sum(0)
        box = bounding_box(probability.detach() >= SURE, margin=1)
        for lengths, expected in zip(bars(probability[box]), (part.pieces, part.holes), strict=True):
            kept = lengths[:expected]
            loss = loss + (expected - kept.sum()) + (lengths[expected:] ** power).sum()
    return loss
