"""AUTOMAP: from k-space to image by dense layers, the yardstick of dAUTOMAP.

Zhu et al., "Image reconstruction by domain-transform manifold learning", Nature 555:487, 2018: two dense layers with
tanh, two convolutions of 5 x 5 with ReLU, an output convolution of 7 x 7, of n x n images. The dense layers hold
2 n^2 x n^2 and n^2 x n^2 weights: 805 M at n = 128, the figure that dAUTOMAP's authors give, and 50 M at n = 64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kspace.errors import ShapeError


class Automap(nn.Module):
    """The layers of the paper; a magnitude comes out, as real and imaginary parts would each take a network.

    At 64 x 64 it has 50,447,105 parameters: dense 33,558,528 and 16,781,312, convolutions 1,664, 102,464 and 3,137.

    Parameters
    ----------
    n
        Rows and columns.
    features
        Channels of the convolutions.
    """

    def __init__(self, n: int, features: int = 64) -> None:
        super().__init__()
        self.n = n
        self.dense = nn.Sequential(nn.Linear(2 * n * n, n * n), nn.Tanh(), nn.Linear(n * n, n * n), nn.Tanh())
        self.refine = nn.Sequential(
            nn.Conv2d(1, features, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(features, features, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(features, 1, 7, padding=3),
        )

    def transform(self, kspace: Tensor) -> Tensor:
        """Return what the dense layers make of (batch, y, x) complex k-space: (batch, y, x) in (-1, 1)."""
        if kspace.ndim != 3 or kspace.shape[1:] != (self.n, self.n) or not kspace.is_complex():
            raise ShapeError("k-space", kspace, f"(batch, {self.n}, {self.n}) and complex")
        result: Tensor = self.dense(torch.view_as_real(kspace).flatten(1))
        return result.reshape(-1, self.n, self.n)

    def forward(self, kspace: Tensor) -> Tensor:
        """Return magnitudes (batch, y, x), real, for centred k-space (batch, y, x) complex of one coil.

        Raises
        ------
        ShapeError
            When k-space does not have the learnt matrix or is not complex.
        """
        result: Tensor = self.refine(self.transform(kspace)[:, None])
        return result[:, 0]
