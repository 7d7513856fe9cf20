"""A classifier of images, and of images with their labels: good or poor, after Machado et al., IEEE TBME 2023.

A small residual network (He et al., CVPR 2016). The published ones are ResNets, too; their size is not known.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, one_hot

from kspace.errors import ShapeError
from kspace.segment.inputs import CHANNELS, network_inputs, normalised
from kspace.segment.segmentation import FOREGROUND, Structure

_POOLED = 2  # of the networks' pixels: a judge looks at 2.8 mm


class ImageJudge(nn.Module):
    """One logit for each frame: is it good?

    Parameters
    ----------
    labels
        Whether it sees labels beside images.
    features
        Channels of each level; every further level halves the resolution.
    """

    def __init__(self, *, labels: bool, features: tuple[int, ...] = (16, 32, 64, 64)) -> None:
        super().__init__()
        self.channels = CHANNELS + (len(FOREGROUND) if labels else 0)
        widths = (self.channels, *features)
        self.levels = nn.ModuleList(
            _Residual(into, out, stride=1 if level == 0 else 2)
            for level, (into, out) in enumerate(zip(widths, features, strict=False))
        )
        self.head = nn.Linear(2 * features[-1], 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (case,) logits of (case, channel, y, x), see :func:`judge_inputs`.

        Raises
        ------
        ShapeError
            When there are other channels.
        """
        if inputs.ndim != 4 or inputs.shape[1] != self.channels:
            raise ShapeError("what a judge sees", inputs, f"(case, {self.channels}, y, x)")
        features = inputs
        for level in self.levels:
            features = level(features)
        # The mean says how most of it looks, the largest whether something stands out.
        pooled = torch.cat((features.mean((-2, -1)), features.amax((-2, -1))), 1)
        logits: Tensor = self.head(pooled)[:, 0]
        return logits


class _Residual(nn.Module):
    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(min(8, out), out) for _ in range(2))
        self.short = nn.Conv2d(into, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(self.norms[1](self.second(y)) + self.short(x))


def judge_inputs(images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Return what judges see of one slice: (frame, 3 or 6, y / 2, x / 2) float32.

    Parameters
    ----------
    images
        (frame, y, x) magnitudes of any scale, in the window and the pixels of the segmentation networks.
    labels
        (frame, y, x), for a judge of labels.

    Raises
    ------
    ShapeError
        When labels are not as many and as large as images.
    """
    seen = network_inputs(normalised(images))
    if labels is not None:
        if labels.shape != images.shape:
            raise ShapeError("the labels", labels, str(tuple(images.shape)))
        shares = one_hot(labels.long(), len(Structure))[..., list(FOREGROUND)].movedim(-1, 1).float()
        seen = torch.cat((seen, shares), 1)
    return avg_pool2d(seen, _POOLED)
