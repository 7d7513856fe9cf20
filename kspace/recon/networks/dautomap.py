"""dAUTOMAP: a learnt two-dimensional transform, decomposed into one-dimensional ones, and a few convolutions.

Schlemper et al., "dAUTOMAP: decomposing AUTOMAP to achieve scalability and enhance performance", arXiv 1909.10995,
2019. AUTOMAP learns the transform from k-space to image as a dense matrix; the Fourier transform is separable, and so
is what stands for it here, at 2 N^2 numbers per axis instead of 2 N^4. It takes one coil on a Cartesian grid.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from kspace.errors import ShapeError, UsageError

Start = Literal["random", "fourier"]


def centred_dft(n: int, *, inverse: bool = False, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the centred, unitary DFT matrix (n, n), complex, of the project's convention (r from -n // 2).

    It is symmetric, and its inverse is its conjugate.
    """
    place = torch.arange(n, dtype=torch.float64) - n // 2
    angle = 2 * torch.pi / n * torch.outer(place, place)
    matrix = torch.polar(torch.full_like(angle, n**-0.5), angle if inverse else -angle)
    return matrix.to(torch.complex128 if dtype == torch.float64 else torch.complex64)


class DecomposedStep(nn.Module):
    """One decomposed transform: X -> (F X + b)^H with a learnt complex matrix F, as real numbers.

    The paper's convolution with a kernel (2 N out, 2 in, N, 1), without padding, sees all rows of a column at once and
    is a product of matrices. F is not tied to be complex-linear: real and imaginary parts have 4 N^2 weights.

    Parameters
    ----------
    n
        Rows of X.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        self.weight = nn.Parameter(torch.empty(2 * n, 2, n, 1))
        self.bias = nn.Parameter(torch.zeros(2 * n))
        nn.init.normal_(self.weight, std=(2 * n) ** -0.5)

    def set_matrix(self, matrix: Tensor, offset: float = 0.0) -> None:
        """Set F, an (n, n) complex matrix, and a bias on real and imaginary parts."""
        if matrix.shape != (self.n, self.n):
            raise ShapeError("the matrix", matrix, f"({self.n}, {self.n})")
        real = torch.cat((torch.cat((matrix.real, -matrix.imag), 1), torch.cat((matrix.imag, matrix.real), 1)))
        with torch.no_grad():
            self.weight.copy_(real.reshape(self.weight.shape))
            self.bias.fill_(offset)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 2, M, N) for (batch, 2, N, M), real and imaginary parts as channels."""
        batch, _, n, m = x.shape
        product = self.weight.reshape(2 * n, 2 * n) @ x.reshape(batch, 2 * n, m) + self.bias[:, None]
        real, imaginary = product.reshape(batch, 2, n, m).transpose(2, 3).unbind(1)
        return torch.stack((real, -imaginary), 1)


class DecomposedTransform(nn.Module):
    """A DT block: two steps, F_N X F_M^H; with F_N the inverse and F_M the forward DFT it is the inverse 2D DFT.

    Parameters
    ----------
    matrix
        (N, M) rows and columns.
    """

    def __init__(self, matrix: tuple[int, int]) -> None:
        super().__init__()
        self.rows, self.columns = DecomposedStep(matrix[0]), DecomposedStep(matrix[1])

    def set_fourier(self, offset: float = 0.0) -> None:
        """Make it the centred, unitary inverse 2D DFT plus an offset on real and imaginary parts."""
        self.rows.set_matrix(centred_dft(self.rows.n, inverse=True))
        self._set_columns(centred_dft(self.columns.n), offset)

    def set_identity(self, offset: float = 0.0) -> None:
        """Make it the identity plus an offset on real and imaginary parts."""
        self.rows.set_matrix(torch.eye(self.rows.n, dtype=torch.complex128))
        self._set_columns(torch.eye(self.columns.n, dtype=torch.complex128), offset)

    def _set_columns(self, matrix: Tensor, offset: float) -> None:
        self.columns.set_matrix(matrix, offset)
        with torch.no_grad():
            self.columns.bias[self.columns.n :] *= -1  # the step ends with a conjugate

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, 2, N, M) for (batch, 2, N, M)."""
        result: Tensor = self.columns(self.rows(x))
        return result


class DAutomap(nn.Module):
    """Two DT blocks with ReLU, two convolutions of 5 x 5 with ReLU, an output convolution of 7 x 7.

    At 128 x 128 it has 375,170 parameters (the paper: 0.37 M): four steps of 2 N x 2 N weights and 2 N biases,
    263,168; 5 x 5 x 2 x 64 + 64 = 3,264; 5 x 5 x 64 x 64 + 64 = 102,464; 7 x 7 x 64 x 2 + 2 = 6,274.

    Parameters
    ----------
    matrix
        (rows, columns) of k-space and image: fixed, as the learnt matrices are.
    features
        Channels of the convolutions.
    start
        ``random``, or ``fourier``: the first block is the inverse DFT, the second the identity, and of the convolutions
        two channels pass on what they get while the others wait, with random weights, for a part in the output. An
        offset of one carries negative parts past the ReLUs. Untrained it is the inverse transform, for k-space whose
        image stays above -1.

    Raises
    ------
    UsageError
        When the start is unknown.
    """

    def __init__(self, matrix: tuple[int, int], features: int = 64, start: Start = "random") -> None:
        super().__init__()
        if start not in ("random", "fourier"):
            raise UsageError(f"unknown start {start!r}", expected="random or fourier")
        self.matrix = matrix
        self.first, self.second = DecomposedTransform(matrix), DecomposedTransform(matrix)
        self.refine = nn.Sequential(
            nn.Conv2d(2, features, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(features, features, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(features, 2, 7, padding=3),
        )
        if start == "fourier":
            self.first.set_fourier(1.0)
            self.second.set_identity(0.0)
            self._pass_on()

    def _pass_on(self) -> None:
        """Make the convolutions return their first two channels less the offset."""
        first, middle, last = (layer for layer in self.refine if isinstance(layer, nn.Conv2d))
        with torch.no_grad():
            for layer in (first, middle, last):
                layer.weight[:2] = 0
                for channel in range(2):
                    layer.weight[channel, channel, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
                assert layer.bias is not None
                layer.bias[:2] = -1.0 if layer is last else 0.0

    def transform(self, kspace: Tensor) -> Tensor:
        """Return what the DT blocks make of (batch, y, x) complex k-space: (batch, 2, y, x) before the last ReLU."""
        if kspace.ndim != 3 or tuple(kspace.shape[1:]) != tuple(self.matrix) or not kspace.is_complex():
            rows, columns = self.matrix
            raise ShapeError("k-space", kspace, f"(batch, {rows}, {columns}) and complex")
        result: Tensor = self.second(torch.relu(self.first(torch.stack((kspace.real, kspace.imag), 1))))
        return result

    def forward(self, kspace: Tensor) -> Tensor:
        """Return images (batch, y, x) complex for centred k-space (batch, y, x) complex of one coil.

        Raises
        ------
        ShapeError
            When k-space does not have the learnt matrix or is not complex.
        """
        channels: Tensor = self.refine(torch.relu(self.transform(kspace)))
        return torch.complex(channels[:, 0], channels[:, 1])
