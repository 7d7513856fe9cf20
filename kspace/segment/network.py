"""The network that draws the contours: a U-Net of the nnU-Net family (blocks of MONAI's DynUNet), with a second head.

Isensee et al., Nature Methods 18:203 (2021); Ronneberger et al., MICCAI 2015. The second head tells where the slice
lies: from the deepest features, averaged where the first head sees a heart, and from how much of what it sees. An
average over the whole image would tell nothing, as instance normalisation has made it zero.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from kspace.errors import ShapeError, UsageError
from kspace.segment.inputs import CHANNELS
from kspace.segment.segmentation import FOREGROUND, SlicePosition, Structure

_USUAL_PX = 30.0  # the root of a structure's area, in pixels


@dataclass(frozen=True)
class NetworkOptions:
    """Size of the network.

    Parameters
    ----------
    features
        Channels at full resolution, at half of it, and so on.
    dropout
        Share of the channels at the two deepest levels that are left out while training, and by MC dropout.
    """

    features: tuple[int, ...] = (16, 32, 64, 128, 128)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if not 2 <= len(self.features) <= 8 or min(self.features) < 1:
            raise UsageError(f"features of {self.features}", expected="2 to 8 positive numbers")
        if not 0 <= self.dropout < 1:
            raise UsageError(f"a dropout of {self.dropout}", expected="0 to less than 1")


class SegmentationNetwork(nn.Module):
    """From the inputs of frames to logits of labels and of slice positions.

    Parameters
    ----------
    options
        How large it is.
    """

    def __init__(self, options: NetworkOptions | None = None) -> None:
        from monai.networks.blocks.dynunet_block import UnetBasicBlock, UnetOutBlock, UnetUpBlock

        super().__init__()
        self.options = options = options or NetworkOptions()
        n, norm = options.features, ("INSTANCE", {"affine": True})
        depth = len(n)
        drops = [options.dropout if level >= depth - 2 else 0.0 for level in range(depth)]
        self.down = nn.ModuleList(
            UnetBasicBlock(2, into, out, 3, 1 if level == 0 else 2, norm)
            for level, (into, out) in enumerate(zip((CHANNELS, *n), n, strict=False))
        )
        self.drop = nn.ModuleList(nn.Dropout2d(share) for share in drops)
        self.up = nn.ModuleList(
            UnetUpBlock(2, deep, out, 3, 2, 2, norm) for out, deep in zip(n[-2::-1], n[:0:-1], strict=True)
        )
        self.labels = UnetOutBlock(2, n[0], len(Structure))
        self.position = nn.Linear(n[-1] + len(FOREGROUND), len(SlicePosition))

    @property
    def multiple(self) -> int:
        """Rows and columns have to be multiples of this."""
        return int(2 ** (len(self.options.features) - 1))

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits.

        Parameters
        ----------
        inputs
            (frame, 3, y, x), see :func:`~kspace.segment.inputs.network_inputs`.

        Returns
        -------
        Logits of the labels (frame, 4, y, x) and of the slice's position (frame, 4).

        Raises
        ------
        ShapeError
            When there are other channels, or sizes that the network cannot halve.
        """
        m = self.multiple
        if inputs.ndim != 4 or inputs.shape[1] != CHANNELS or inputs.shape[2] % m or inputs.shape[3] % m:
            raise ShapeError("the network's input", inputs, f"(frame, {CHANNELS}, y, x), y and x multiples of {m}")
        features, seen = inputs, []
        for block, drop in zip(self.down, self.drop, strict=True):
            features = drop(block(features))
            seen.append(features)
        deepest = features
        for block, skipped in zip(self.up, seen[-2::-1], strict=True):
            features = block(features, skipped)
        labels: Tensor = self.labels(features)
        position: Tensor = self.position(_of_the_heart(labels.detach(), deepest))
        return labels, position


def _of_the_heart(labels: Tensor, features: Tensor) -> Tensor:
    """Return (frame, feature + 3): features averaged over the heart, and the roots of the structures' areas."""
    shares = labels.float().softmax(1)[:, list(FOREGROUND)]
    rows, columns = features.shape[-2:]
    there = adaptive_avg_pool2d(shares.sum(1, keepdim=True), (rows, columns))
    average = (features * there).sum((-2, -1)) / there.sum((-2, -1)).clamp_min(1e-3)
    return torch.cat((average.float(), shares.sum((-2, -1)).sqrt() / _USUAL_PX), dim=1)
