"""The normal operator as a convolution: E^H W E without going to the spokes.

The sum over samples of w exp(2 pi i k.(r - r')) depends on r - r' alone, so that the normal operator of one coil is a
Toeplitz matrix: two zero-padded FFTs and a product with the real spectrum of the point spread (Fessler et al., IEEE
Trans. Signal Process. 53:3393, 2005). The spectrum is additive over samples.
"""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.nufft import Accuracy, AccuracyName, EngineName, Nufft
from kspace.parallel import map_frames


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
    if images.device.type == "cpu":
        return _sense_normal_cpu(images, maps, spectrum)
    coil_images = apply_spectrum(images[..., None, :, :] * maps, spectrum[:, None])
    return torch.einsum("...cyx,cyx->...yx", coil_images, maps.conj())


def _sense_normal_cpu(images: Tensor, maps: Tensor, spectrum: Tensor) -> Tensor:
    """Frames side by side, one thread each, coil by coil so that the padded transforms stay in a core's own cache.

    Here scipy's transforms beat torch's: theirs run in the calling thread, while torch's start a team of threads for
    every small transform and wait at a barrier for each.
    """
    batches = images.detach().resolve_conj().numpy().reshape(-1, *images.shape[-3:])
    result = np.empty_like(batches)
    sensitivities = maps.detach().resolve_conj().numpy()
    conjugates = sensitivities.conj()
    spectra = spectrum.numpy()

    def run(item: tuple[int, int]) -> None:
        batch, frame = item
        total = result[batch, frame]
        total[...] = 0
        for coil, conjugate in zip(sensitivities, conjugates, strict=True):
            convolved = _convolve_in_cache(batches[batch, frame], coil, spectra[frame])
            convolved *= conjugate
            total += convolved

    map_frames(run, [(b, f) for b in range(batches.shape[0]) for f in range(batches.shape[1])])
    return torch.from_numpy(result).reshape(images.shape)


_buffers = threading.local()


def _convolve_in_cache(image: np.ndarray, coil: np.ndarray, spectrum: np.ndarray) -> np.ndarray:
    """Return (y, x), a view of this thread's buffer that its next call overwrites."""
    rows, columns = image.shape
    key = (rows, columns, image.dtype)
    if getattr(_buffers, "key", None) != key:
        # Kept from call to call: fresh pages cost more than the arithmetic on them.
        _buffers.key = key
        _buffers.tall = np.empty((2 * rows, columns), image.dtype)
        _buffers.wide = np.empty((2 * rows, 2 * columns), image.dtype)
    tall, wide = _buffers.tall, _buffers.wide
    np.multiply(image, coil, out=tall[:rows])
    tall[rows:] = 0
    wide[:, :columns] = scipy.fft.fft(tall, axis=0, overwrite_x=True, workers=1)
    wide[:, columns:] = 0
    k = scipy.fft.fft(wide, axis=1, overwrite_x=True, workers=1)
    k *= spectrum
    back = scipy.fft.ifft(k, axis=1, overwrite_x=True, workers=1)
    tall[...] = back[:, :columns]
    columns_back: np.ndarray = scipy.fft.ifft(tall, axis=0, overwrite_x=True, workers=1)
    return columns_back[:rows]
