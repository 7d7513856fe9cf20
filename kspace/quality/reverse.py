"""Reverse classification accuracy: how good would these labels be as an atlas for hearts whose labels are known?

Valindria et al., IEEE TMI 36:1597 (2017), with registration as the reverse classifier, as Robinson et al., JCMR 21:18
(2019), used it for cardiac images. An image with the labels in question is bent onto images with true labels; where
the labels are good, bent labels agree with the true ones at least once. The best Dice coefficient over the references
is the prediction. It needs no training.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from kspace.errors import ShapeError, UsageError
from kspace.segment.segmentation import FOREGROUND, Structure


@dataclass(frozen=True)
class ReverseOptions:
    """How images are bent.

    Parameters
    ----------
    affine_steps, bending_steps
        Of Adam, on the affine part alone and then on all.
    nodes
        Of the displacements, along each side.
    stiffness
        Weight of the squared differences of neighbouring displacements, in half fields of view.
    rate
        Of Adam.
    """

    affine_steps: int = 30
    bending_steps: int = 30
    nodes: int = 8
    stiffness: float = 20.0
    rate: float = 0.02

    def __post_init__(self) -> None:
        if self.affine_steps < 0 or self.bending_steps < 0 or self.nodes < 2:
            raise UsageError(
                f"{self.affine_steps} and {self.bending_steps} steps, {self.nodes} nodes",
                expected="steps of 0 or more and 2 nodes or more",
            )


def reverse_dice(
    image: Tensor,
    labels: Tensor,
    reference_images: Tensor,
    reference_labels: Tensor,
    options: ReverseOptions | None = None,
) -> Tensor:
    """Predict the Dice coefficients of labels without their truth.

    Parameters
    ----------
    image, labels
        (y, x) magnitude of any scale, and what was drawn on it.
    reference_images, reference_labels
        (reference, y, x), with true labels; the better they look alike, the fewer are needed.
    options
        Of the registration.

    Returns
    -------
    (structure,) float64 in the order of :data:`~kspace.segment.segmentation.FOREGROUND`: 0 where a structure was not
    drawn but the references have it, NaN where neither has it.

    Raises
    ------
    ShapeError
        When sizes do not match.
    """
    if image.ndim != 2 or labels.shape != image.shape:
        raise ShapeError("the labels", labels, f"those of one image, {tuple(image.shape)}")
    if reference_images.ndim != 3 or reference_images.shape[1:] != image.shape or not len(reference_images):
        raise ShapeError("the reference images", reference_images, f"(reference, {image.shape[0]}, {image.shape[1]})")
    if reference_labels.shape != reference_images.shape:
        raise ShapeError("the reference labels", reference_labels, str(tuple(reference_images.shape)))
    options = options or ReverseOptions()
    fixed = _standardised(reference_images.float())
    moving = _standardised(image.float()[None]).expand_as(fixed)[:, None]
    grid = _registered(moving, fixed, options)
    shares = torch.stack([(labels == label).float() for label in Structure])
    bent = grid_sample(shares.expand(len(fixed), -1, -1, -1), grid, padding_mode="border", align_corners=False)
    drawn = bent.argmax(1)
    found = []
    for structure in FOREGROUND:
        one, other = drawn == structure, reference_labels == structure
        both = (one & other).sum((-2, -1)).double()
        dice = 2 * both / (one.sum((-2, -1)) + other.sum((-2, -1)))  # 0 / 0 is NaN
        known = dice[torch.isfinite(dice)]
        found.append(known.max() if len(known) else dice.new_tensor(float("nan")))
    return torch.stack(found)


def _standardised(images: Tensor) -> Tensor:
    mean, spread = images.mean((-2, -1), keepdim=True), images.std((-2, -1), keepdim=True)
    return (images - mean) / spread.clamp_min(1e-6)


def _registered(moving: Tensor, fixed: Tensor, options: ReverseOptions) -> Tensor:
    """Return the sampling grid (reference, y, x, 2) that bends ``moving`` (reference, 1, y, x) onto ``fixed``."""
    count, size = len(fixed), list(moving.shape)
    start = torch.eye(2, 3).expand(count, -1, -1)
    affine = start.clone().requires_grad_()
    nodes = torch.zeros(count, 2, options.nodes, options.nodes, requires_grad=True)

    def grid() -> Tensor:
        bend = interpolate(nodes, size=size[-2:], mode="bicubic", align_corners=True)
        return affine_grid(affine, size, align_corners=False) + bend.movedim(1, -1)

    with torch.enable_grad():
        for steps, learnt in ((options.affine_steps, [affine]), (options.bending_steps, [affine, nodes])):
            optimiser = torch.optim.Adam(learnt, lr=options.rate)
            for _ in range(steps):
                seen = grid_sample(moving, grid(), padding_mode="border", align_corners=False)[:, 0]
                off = ((seen - fixed) ** 2).mean((-2, -1))
                rough = sum((nodes.diff(dim=axis) ** 2).mean((-3, -2, -1)) for axis in (-1, -2))
                loss = (off + options.stiffness * rough).sum()
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                optimiser.step()
    return grid().detach()
