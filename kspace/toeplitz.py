"""The normal operator as a convolution: E^H W E without going to the spokes.

The sum over samples of w exp(2 pi i k.(r - r')) depends on r - r' alone, so that the normal operator of one coil is a
Toeplitz matrix: two zero-padded FFTs and a product with the real spectrum of the point spread (Fessler et al., IEEE
Trans. Signal Process. 53:3393, 2005). The spectrum is additive over samples.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.nufft import Accuracy, AccuracyName, EngineName, Nufft

COILS_AT_A_TIME = 1
"""Coils that go through the padded FFTs together on a CPU; few, so that the buffers stay in cache."""


def psf_spectrum(
    positions: Tensor,
    weights: Tensor,
    matrix: tuple[int, int],
    *,
    accuracy: AccuracyName | Accuracy = "standard",
    engine: EngineName = "auto",
    n_threads: int | None = None,
) -> Tensor:
    """Return the spectrum of the point spread of weighted samples.

    Parameters
    ----------
    positions
        (sample, 2), cycles per pixel.
    weights
        (sample,) real, at least 0.
    matrix
        (rows, columns) of the image.

    Returns
    -------
    (2 rows, 2 columns) float32 (float64 for float64 weights), zero frequency first.
    """
    rows, columns = matrix
    dtype = torch.complex128 if weights.dtype == torch.float64 else torch.complex64
    wide = Nufft(positions, (2 * rows, 2 * columns), accuracy=accuracy, engine=engine, dtype=dtype, n_threads=n_threads)
    point_spread = wide.adjoint(weights.to(dtype)[None])[0]
    point_spread *= 2 / math.sqrt(rows * columns)
    # Differences of N pixels do not occur; without them the point spread is Hermitian and its spectrum real.
    point_spread[0] = 0
    point_spread[:, 0] = 0
    spectrum: Tensor = torch.fft.fft2(torch.fft.ifftshift(point_spread)).real.contiguous()
    return spectrum


def apply_spectrum(images: Tensor, spectrum: Tensor) -> Tensor:
    """Convolve images with the point spread.

    Parameters
    ----------
    images
        (..., y, x) complex.
    spectrum
        (2 y, 2 x), or with leading axes that broadcast to those of the images.

    Returns
    -------
    (..., y, x) complex.
    """
    rows, columns = images.shape[-2:]
    if spectrum.shape[-2:] != (2 * rows, 2 * columns):
        raise ShapeError("spectrum", spectrum, f"(..., {2 * rows}, {2 * columns}) for images of {rows} x {columns}")
    # Columns that hold nothing but padding are never transformed.
    k = torch.fft.fft(torch.fft.fft(images, n=2 * rows, dim=-2), n=2 * columns, dim=-1)
    k = k * spectrum if k.requires_grad else k.mul_(spectrum)
    partial = torch.fft.ifft(k, dim=-1)[..., :columns]
    cropped: Tensor = torch.fft.ifft(partial, dim=-2)[..., :rows, :]
    return cropped


class _Convolve(torch.autograd.Function):
    """Self-adjoint convolution, so that its gradient is itself."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, spectrum: Tensor) -> Tensor:
        ctx.save_for_backward(spectrum)
        return apply_spectrum(images.detach(), spectrum)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (spectrum,) = ctx.saved_tensors
        return _convolve(grads[0], spectrum), None


def _convolve(images: Tensor, spectrum: Tensor) -> Tensor:
    result: Tensor = _Convolve.apply(images, spectrum)  # type: ignore[no-untyped-call]
    return result


def sense_normal(images: Tensor, maps: Tensor, spectrum: Tensor) -> Tensor:
    """Apply the normal operator of a multi-coil acquisition: sum over coils of c^* T (c x), frame by frame.

    Differentiable with respect to images and maps.

    Parameters
    ----------
    images
        (..., frame, y, x) complex.
    maps
        (coil, y, x) complex.
    spectrum
        (frame, 2 y, 2 x) real.

    Returns
    -------
    (..., frame, y, x) complex.
    """
    if images.shape[-3] != spectrum.shape[0]:
        raise ShapeError("images", images, f"(..., frame, y, x) with {spectrum.shape[0]} frames")
    if maps.ndim != 3 or maps.shape[-2:] != images.shape[-2:]:
        raise ShapeError("maps", maps, f"(coil, y, x) on the images' grid {tuple(images.shape[-2:])}")
    if torch.is_grad_enabled() and (images.requires_grad or maps.requires_grad):
        coil_images = images[..., None, :, :] * maps
        return (_convolve(coil_images, spectrum[:, None]) * maps.conj()).sum(-3)
    result = torch.empty_like(images)
    flat_in, flat_out = images.reshape(-1, *images.shape[-3:]), result.view(-1, *images.shape[-3:])
    step = min(COILS_AT_A_TIME if images.device.type == "cpu" else maps.shape[0], maps.shape[0])
    workspace = _Workspace(step, images)
    conjugate = maps.conj().resolve_conj()
    for batch in range(flat_in.shape[0]):
        for frame in range(flat_in.shape[1]):
            total = flat_out[batch, frame].zero_()
            for first in range(0, maps.shape[0], step):
                group = slice(first, first + step)
                convolved = workspace.convolve(flat_in[batch, frame], maps[group], spectrum[frame])
                total += torch.einsum("cyx,cyx->yx", convolved, conjugate[group])
    return result


class _Workspace:
    """Buffers of the padded transforms, allocated once: fresh pages cost more than the arithmetic on them."""

    def __init__(self, n_coils: int, like: Tensor) -> None:
        rows, columns = like.shape[-2:]
        self.tall = like.new_zeros((n_coils, 2 * rows, columns))
        self.tall_k = torch.empty_like(self.tall)
        self.wide = like.new_zeros((n_coils, 2 * rows, 2 * columns))
        self.wide_k = torch.empty_like(self.wide)

    def convolve(self, image: Tensor, maps: Tensor, spectrum: Tensor) -> Tensor:
        """Return (coil, y, x), a view that the next call overwrites."""
        rows, columns = image.shape
        n = maps.shape[0]
        tall, tall_k, wide, wide_k = self.tall[:n], self.tall_k[:n], self.wide[:n], self.wide_k[:n]
        torch.mul(image, maps, out=tall[:, :rows])
        tall[:, rows:].zero_()
        torch.fft.fft(tall, dim=-2, out=tall_k)
        wide[..., :columns].copy_(tall_k)
        wide[..., columns:].zero_()
        torch.fft.fft(wide, dim=-1, out=wide_k)
        wide_k.mul_(spectrum)
        torch.fft.ifft(wide_k, dim=-1, out=wide)
        tall_k.copy_(wide[..., :columns])
        torch.fft.ifft(tall_k, dim=-2, out=tall)
        return tall[:, :rows]
