"""The nearest segmentation with a heart's topology: a network's own output, bent where pieces and holes are wrong.

Byrne et al. (arXiv 2107.12689) train the network's weights for 100 steps on each image, towards a lower
:func:`~kspace.segment.persistence.topological_loss` and not far from the first softmax. Here the image's own logits
move, and weights and images are not needed: a step costs a few persistence diagrams instead of two passes of a network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from kspace.errors import InputError, ShapeError, UsageError
from kspace.segment.maps import bounding_box, likeliest
from kspace.segment.persistence import SURE, topological_loss
from kspace.segment.segmentation import Structure
from kspace.segment.topology import PARTS, betti_errors

MENDABLE = 12
"""Betti errors of an image, at most, that are worth mending."""
_MARGIN = 4  # pixels around the heart that may change


@dataclass(frozen=True)
class RefineOptions:
    """How far logits may go.

    Parameters
    ----------
    steps
        At most; the first topology without errors ends it.
    step
        Change of a logit, in nats, for a gradient of one.
    smooth_px
        Standard deviation of the Gaussian that a step is spread by, in pixels. A gradient is one pixel wide; a wall
        that is mended by it should not be.
    anchor
        Weight of the sum of squared changes of probability. The paper's weight of the mean, 1000, is this for an image
        of 128 x 128.

    Raises
    ------
    UsageError
        When a number makes no sense.
    """

    steps: int = 40
    step: float = 2.0
    smooth_px: float = 1.2
    anchor: float = 0.015

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("step", 1e-6), ("smooth_px", 0.1), ("anchor", 0.0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= low):
                raise UsageError(f"{name} is {value}", expected=f"{low:g} or more")


def refine(logits: Tensor, options: RefineOptions | None = None) -> Tensor:
    """Bend the logits of one image until the labels have the topology of a middle slice.

    Mirror descent: logits move along the smoothed gradient with respect to probabilities, -S dL/dp, which is descent in
    the geometry of the simplex (Kivinen and Warmuth, Inform Comput 1997;132:1-63). Unlike the gradient with respect to
    logits it does not vanish where the network is sure of a mistake. L is the topological loss, power 2, of those parts
    that are wrong in the labels at the time, plus the anchor.

    Parameters
    ----------
    logits
        (4, y, x), finite: any whose softmax are the probabilities, such as their logarithm.
    options
        How far to go.

    Returns
    -------
    Tensor
        (4, y, x), detached. Of all steps the one with the fewest :func:`~kspace.segment.topology.betti_errors`, the
        earliest of these; the input itself where it has none, or where no pixel could be of a heart. A structure that
        is missing in a heart is drawn where it is likeliest.

    Raises
    ------
    ShapeError, InputError
        When there are not four maps, or a value is not finite.
    """
    options = options or RefineOptions()
    if logits.ndim != 3 or len(logits) != len(Structure):
        raise ShapeError("the logits", logits, f"({len(Structure)}, y, x)")
    logits = logits.detach()
    if not bool(torch.isfinite(logits).all()):
        raise InputError("the logits hold NaN or infinite values", expected="finite numbers", hint="Clamp them")
    maybe = 1 - logits.softmax(0)[Structure.BACKGROUND] >= SURE
    if not bool(maybe.any()):
        return logits
    box = bounding_box(maybe, _MARGIN)
    now = logits[:, box[0], box[1]]
    first = now.softmax(0)
    best, fewest = now, math.inf
    for count in range(options.steps + 1):
        errors = betti_errors(now.argmax(0), each=True).tolist()
        if sum(errors) < fewest:
            best, fewest = now, sum(errors)
        if fewest == 0 or count == options.steps:
            break
        wrong = [part for part, n_errors in zip(PARTS, errors, strict=True) if n_errors]
        with torch.enable_grad():
            p = now.softmax(0).requires_grad_()
            loss = topological_loss(p, wrong, power=2) + options.anchor * (p - first).square().sum()
            (slope,) = torch.autograd.grad(loss, p)
        now = now - options.step * _spread(slope, options.smooth_px)
    refined = logits.clone()
    refined[:, box[0], box[1]] = best
    return refined


def refined(probabilities: Tensor, options: RefineOptions | None = None) -> Tensor:
    """Return the labels of images of middle slices, refined where their topology is wrong by a little.

    Where it is wrong by more than :data:`MENDABLE` there is no heart to be mended, and each step would take long.

    Parameters
    ----------
    probabilities
        (frame, 4, y, x).
    options
        How far.

    Returns
    -------
    Tensor
        (frame, y, x) uint8.
    """
    labels = likeliest(probabilities)
    errors = betti_errors(labels)
    for frame in torch.nonzero((errors > 0) & (errors <= MENDABLE)).flatten().tolist():
        labels[frame] = refine(probabilities[frame].clamp_min(1e-6).log(), options).argmax(0).to(torch.uint8)
    return labels


def _spread(maps: Tensor, sigma: float) -> Tensor:
    """Convolve (map, y, x) with a Gaussian of height 1."""
    reach = math.ceil(3 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, device=maps.device, dtype=maps.dtype) / sigma) ** 2)
    along = functional.conv2d(maps[:, None], taps.view(1, 1, -1, 1), padding=(reach, 0))
    return functional.conv2d(along, taps.view(1, 1, 1, -1), padding=(0, reach))[:, 0]
