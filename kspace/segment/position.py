"""Where the slices of a stack lie: base, middle and apex come in this order, or the other way round."""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.segment.segmentation import SlicePosition

_ORDER = (
    SlicePosition.NO_HEART, SlicePosition.BASE, SlicePosition.MIDDLE, SlicePosition.APEX, SlicePosition.NO_HEART,
)  # fmt: skip


def ordered_positions(probabilities: Tensor) -> tuple[SlicePosition, ...]:
    """Return the most probable positions of slices that follow one another (Viterbi over the five parts of a stack).

    Parameters
    ----------
    probabilities
        (slice, 4), in the order of :class:`~kspace.segment.segmentation.SlicePosition`.

    Raises
    ------
    ShapeError
        When they are not (slice, 4).
    """
    if probabilities.ndim != 2 or probabilities.shape[1] != len(SlicePosition):
        raise ShapeError("the probabilities", probabilities, f"(slice, {len(SlicePosition)})")
    logs = probabilities.double().clamp_min(1e-6).log()
    forward, there = _best(logs)
    backward, back = _best(logs.flip(0))
    return tuple(forward) if there >= back else tuple(reversed(backward))


def _best(logs: Tensor) -> tuple[list[SlicePosition], float]:
    """Return the best path from base to apex, and its logarithm."""
    given = logs[:, list(_ORDER)]
    best, came_from = given[0], []
    for now in given[1:]:
        # From any part to itself or to any later one: thick slices can skip a part.
        reachable = torch.where(torch.ones(len(_ORDER), len(_ORDER)).triu().bool(), best[:, None], -torch.inf)
        best, origin = reachable.max(0)
        best = best + now
        came_from.append(origin)
    part = int(best.argmax())
    path = [part]
    for origin in reversed(came_from):
        part = int(origin[part])
        path.append(part)
    return [_ORDER[k] for k in reversed(path)], float(best.max())
