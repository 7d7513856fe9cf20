"""The normal operator as a convolution: E^H W E without going to the spokes.

The sum over samples of w exp(2 pi i k.(r - r')) depends on r - r' alone, so that the normal operator of one coil is a
Toeplitz matrix: two zero-padded FFTs and a product with the real spectrum of the point spread (Fessler et al., IEEE
Trans. Signal Process. 53:3393, 2005). The spectrum is additive over samples.
"""

from __future__ import annotations

import math
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from kspace.errors import ShapeError
from kspace.fft import PAD, workspace
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
    return SenseNormal(maps, spectrum).of_batches(images)


class SenseNormal:
    """The normal operator with all that does not change from one application to the next made ready.

    Not recorded by autograd; :func:`sense_normal` is.

    Parameters
    ----------
    maps
        (coil, y, x) complex.
    spectrum
        (frame, 2 y, 2 x) real.

    Attributes
    ----------
    parts
        The frames in pieces that are best worked on side by side: one by one on a CPU, all at once on a GPU.
    """

    def __init__(self, maps: Tensor, spectrum: Tensor) -> None:
        self.on_cpu = maps.device.type == "cpu"
        self._take(maps)
        self.spectrum = spectrum
        n_frames = int(spectrum.shape[0])
        self.parts = [slice(f, f + 1) for f in range(n_frames)] if self.on_cpu else [slice(0, n_frames)]
        if self.on_cpu:
            self._quarters = _quarters(spectrum)

    def by(self, maps: Tensor) -> SenseNormal:
        """Return the operator of the same spectrum with other coils."""
        other = copy(self)
        other._take(maps)
        return other

    def _take(self, maps: Tensor) -> None:
        self.maps = maps.detach()
        if self.on_cpu:
            self._inwards, self._outwards = _modulated(self.maps)

    def __call__(self, images: Tensor, frames: slice) -> Tensor:
        """Return the operator's value for (n, y, x) images of the n frames in a slice: the same shape."""
        if self.on_cpu:
            result = torch.empty_like(images)
            spectra = self._quarters[frames]
            for image, spectrum, target in zip(images.resolve_conj().numpy(), spectra, result.numpy(), strict=True):
                self._one_frame(image, spectrum, target)
            return result
        coil_images = apply_spectrum(images[:, None] * self.maps, self.spectrum[frames, None])
        return torch.einsum("fcyx,cyx->fyx", coil_images, self.maps.conj())

    def of_batches(self, images: Tensor) -> Tensor:
        """Return the operator's value for (..., frame, y, x) images of all frames: the same shape."""
        batches = images.detach().reshape(-1, *images.shape[-3:])
        result = torch.empty_like(batches)
        for source, target in zip(batches, result, strict=True):

            def run(frames: slice, source: Tensor = source, target: Tensor = target) -> None:
                target[frames] = self(source[frames], frames)

            map_frames(run, self.parts)
        return result.reshape(images.shape)

    def _one_frame(self, image: np.ndarray, quarters: Tensor, target: np.ndarray) -> None:
        """Coil by coil, half of the spectrum's rows by half, so that all stays in a core's own cache."""
        columns = image.shape[1]
        work = workspace((image.shape[0], columns), image.dtype)
        work.source[:, :columns] = image
        work.total[...] = 0
        for half in (0, 1):
            even, odd = quarters[half]
            for inward, outward in zip(self._inwards[half], self._outwards[half], strict=True):
                np.multiply(work.source, inward, out=work.image)
                work.convolve(even, odd)
                np.multiply(work.image, outward, out=work.scratch)
                np.add(work.total, work.scratch, out=work.total)
        target[...] = work.total[:, :columns]


def _quarters(spectrum: Tensor) -> Tensor:
    """Return (frame, 2, 2, y, x) of a (frame, 2 y, 2 x) spectrum: by parity of the row, then of the column."""
    n_frames, rows, columns = spectrum.shape
    cut = spectrum.detach().reshape(n_frames, rows // 2, 2, columns // 2, 2).permute(0, 2, 4, 1, 3)
    quarters = torch.empty(cut.shape, dtype=spectrum.dtype)

    def copy_frame(frame: int) -> None:
        quarters[frame] = cut[frame]

    map_frames(copy_frame, range(n_frames))
    return quarters


def _modulated(maps: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return what an image is multiplied by before and after: (half, coil, y, x + PAD) each.

    The maps, with the modulation that moves the odd rows of the padded spectrum onto the even ones; and their
    conjugates over the number of points of the padded transform, which is not normalised.
    """
    rows, columns = maps.shape[-2:]
    turn = torch.exp(-1j * math.pi / rows * torch.arange(rows, dtype=torch.float64))
    turns = torch.stack((torch.ones_like(turn), turn)).to(maps.dtype)
    inwards = pad(turns[:, None, :, None] * maps, (0, PAD))
    outwards = inwards.conj().resolve_conj() / (4 * rows * columns)
    return inwards.numpy(), outwards.numpy()
