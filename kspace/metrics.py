"""How far an image is from the truth: NRMSE, PSNR and SSIM inside a mask, and the mask of the body.

All take images ``(..., y, x)``, usually ``(frame, y, x)``, real or complex; of complex images the magnitude counts.
The three metrics are differentiable and return a zero-dimensional real tensor on the images' device. None of them
rescales an image unless asked to with ``rescale=True``: a wrong scale is an error like any other, unless the scale of
a reconstruction has no meaning, and then :func:`best_scale` is the factor that mends it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kspace.errors import InputError, ShapeError

# Wang et al. (2004), with the window of skimage's ``gaussian_weights=True``: sigma 1.5 cut at 3.5 sigma, 11 taps.
_SSIM_SIGMA, _SSIM_RADIUS, _SSIM_K1, _SSIM_K2 = 1.5, 5, 0.01, 0.03


def _magnitudes(
    image: Tensor, truth: Tensor, mask: Tensor | None, rescale: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Both magnitudes and the mask, checked, of one shape, the image scaled to the truth where asked."""
    if truth.ndim < 2 or truth.numel() == 0:
        raise ShapeError("the truth", truth, "(..., y, x), not empty")
    if image.shape != truth.shape:
        raise ShapeError("the image", image, f"the truth's {tuple(truth.shape)}")
    if mask is None:
        mask = torch.ones(truth.shape[-2:], dtype=torch.bool, device=truth.device)
    if mask.dtype != torch.bool:
        raise InputError(f"the mask is {mask.dtype}", expected="torch.bool")
    if mask.shape not in (truth.shape, truth.shape[-2:]):
        raise ShapeError("the mask", mask, f"(y, x) = {tuple(truth.shape[-2:])} or the truth's {tuple(truth.shape)}")
    if not bool(mask.any()):
        raise InputError("the mask is empty", expected="at least one pixel to compare")
    image, truth = (x.abs() if x.is_complex() else x for x in (image, truth))
    if not (image.is_floating_point() and truth.is_floating_point()):
        raise InputError(f"the images are {image.dtype} and {truth.dtype}", expected="floating point or complex")
    mask = mask.expand(truth.shape)
    return image * _scale(image, truth, mask) if rescale else image, truth, mask


def _scale(image: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    energy = image[mask].square().sum()
    if not bool(energy > 0):
        raise InputError("the image is zero inside the mask", expected="an image that can be scaled to the truth")
    return (image[mask] * truth[mask]).sum() / energy


def _peak(truth: Tensor, mask: Tensor) -> Tensor:
    peak = truth[mask].max()
    if not bool(peak > 0):
        raise InputError("the truth is nowhere positive inside the mask", expected="a peak to relate errors to")
    return peak


def best_scale(image: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """Find the real factor that brings an image closest to the truth, in least squares over the mask.

    Parameters
    ----------
    image, truth
        (..., y, x), real or complex, of one shape and unit; magnitudes count.
    mask
        (y, x) or the shape of the images, bool; None compares all pixels.

    Returns
    -------
    Tensor
        Zero-dimensional, <image, truth> / <image, image>.

    Raises
    ------
    ShapeError, InputError
        When the shapes differ, the mask is empty, or the image is zero inside it.
    """
    return _scale(*_magnitudes(image, truth, mask))


def nrmse(image: Tensor, truth: Tensor, mask: Tensor | None = None, *, rescale: bool = False) -> Tensor:
    """Error relative to the truth, ||image - truth|| / ||truth|| over the mask.

    Parameters
    ----------
    image, truth
        (..., y, x), real or complex, of one shape and unit; magnitudes count.
    mask
        (y, x) or the shape of the images, bool; None compares all pixels.
    rescale
        Multiply the image by :func:`best_scale` first.

    Returns
    -------
    Tensor
        Zero-dimensional, 0 for a perfect image and 1 for an empty one.

    Raises
    ------
    ShapeError, InputError
        When the shapes differ, the mask is empty, or the truth is zero inside it.
    """
    image, truth, inside = _magnitudes(image, truth, mask, rescale)
    norm: Tensor = torch.linalg.vector_norm(truth[inside])
    if not bool(norm > 0):
        raise InputError("the truth is zero inside the mask", expected="a signal to relate errors to")
    error: Tensor = torch.linalg.vector_norm((image - truth)[inside])
    return error / norm


def psnr(image: Tensor, truth: Tensor, mask: Tensor | None = None, *, rescale: bool = False) -> Tensor:
    """Peak signal-to-noise ratio in dB; the peak is the maximum of the truth inside the mask, over all frames.

    Parameters
    ----------
    image, truth
        (..., y, x), real or complex, of one shape and unit; magnitudes count.
    mask
        (y, x) or the shape of the images, bool; None compares all pixels.
    rescale
        Multiply the image by :func:`best_scale` first.

    Returns
    -------
    Tensor
        Zero-dimensional, in dB; infinite for a perfect image.

    Raises
    ------
    ShapeError, InputError
        When the shapes differ, the mask is empty, or the truth is nowhere positive inside it.
    """
    image, truth, inside = _magnitudes(image, truth, mask, rescale)
    mse = (image - truth)[inside].square().mean()
    return 10 * torch.log10(_peak(truth, inside).square() / mse)


def ssim(image: Tensor, truth: Tensor, mask: Tensor | None = None, *, rescale: bool = False) -> Tensor:
    """Structural similarity, the mean of :func:`ssim_map` over the mask.

    The data range is the maximum of the truth inside the mask, over all frames, so that bright pixels outside do not
    make errors inside look small.

    Parameters
    ----------
    image, truth
        (..., y, x), real or complex, of one shape and unit; magnitudes count.
    mask
        (y, x) or the shape of the images, bool; None compares all pixels.
    rescale
        Multiply the image by :func:`best_scale` first.

    Returns
    -------
    Tensor
        Zero-dimensional, 1 for a perfect image.

    Raises
    ------
    ShapeError, InputError
        When the shapes differ, the mask is empty, or the truth is nowhere positive inside it.
    """
    image, truth, inside = _magnitudes(image, truth, mask, rescale)
    return ssim_map(image, truth, _peak(truth, inside))[inside].mean()


def ssim_map(image: Tensor, truth: Tensor, data_range: Tensor | float) -> Tensor:
    """Structural similarity of each pixel's neighbourhood, image by image.

    This is ``skimage.metrics.structural_similarity`` with ``gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False``: an 11 x 11 Gaussian window, mirrored at the borders with the border pixel repeated.

    Parameters
    ----------
    image, truth
        (..., y, x), real or complex, of one shape and unit; magnitudes count.
    data_range
        The largest value that the images are meant to take, in their unit.

    Returns
    -------
    Tensor
        (..., y, x), at most 1. In float32 it is within 1e-4 of the float64 result.

    Raises
    ------
    ShapeError, InputError
        When the shapes differ or the data range is not positive.

    Notes
    -----
    Source: Z. Wang et al., Image quality assessment: from error visibility to structural similarity, IEEE Trans Image
    Process 2004;13:600-612.
    """
    image, truth, _ = _magnitudes(image, truth, None)
    if not bool(torch.as_tensor(data_range) > 0):
        raise InputError(f"the data range is {float(data_range)}", expected="a positive number")
    # On a scale of one, the squares below lose nothing to the unit of the images; in double precision, the variances,
    # which are small differences of large means, lose nothing to each other.
    x, y = image.double() / data_range, truth.double() / data_range
    mean_x, mean_y, xx, yy, xy = _blur(torch.stack([x, y, x * x, y * y, x * y]))
    variance_x, variance_y, covariance = xx - mean_x * mean_x, yy - mean_y * mean_y, xy - mean_x * mean_y
    c1, c2 = _SSIM_K1**2, _SSIM_K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x * mean_x + mean_y * mean_y + c1)
    similarity: Tensor = luminance * (2 * covariance + c2) / (variance_x + variance_y + c2)
    return similarity.to(image.dtype)


def _blur(images: Tensor) -> Tensor:
    """Gaussian window over the last two axes, mirrored at the borders as scipy.ndimage does with ``reflect``."""
    offsets = torch.arange(-_SSIM_RADIUS, _SSIM_RADIUS + 1, device=images.device, dtype=images.dtype)
    taps = torch.exp(-0.5 * (offsets / _SSIM_SIGMA) ** 2)
    taps = taps / taps.sum()
    rows, columns = (_mirror(n, images.device) for n in images.shape[-2:])
    padded = images[..., rows, :][..., columns].reshape(-1, 1, rows.numel(), columns.numel())
    blurred = functional.conv2d(functional.conv2d(padded, taps.view(1, 1, -1, 1)), taps.view(1, 1, 1, -1))
    return blurred.reshape(images.shape)


def _mirror(n: int, device: torch.device) -> Tensor:
    index = torch.arange(-_SSIM_RADIUS, n + _SSIM_RADIUS, device=device) % (2 * n)
    return torch.minimum(index, 2 * n - 1 - index)


def body_mask(images: Tensor) -> Tensor:
    """Find the body in a cine, for metrics that should not count the air around it.

    The magnitude, averaged over time and smoothed, is parted by Otsu's threshold, lowered to two fifths so that dim
    tissue counts; of what lies above it the largest connected piece is kept, narrow gaps are closed, and holes are
    filled, so that lungs enclosed by the chest wall belong to the body. An image without contrast is body throughout.

    Parameters
    ----------
    images
        (frame, y, x), real or complex.

    Returns
    -------
    Tensor
        (y, x) bool, on the images' device.

    Raises
    ------
    ShapeError, InputError
        When the shape is wrong or a value is not finite.
    """
    from scipy import ndimage
    from skimage.filters import threshold_otsu
    from skimage.morphology import isotropic_closing

    if images.ndim != 3 or images.numel() == 0:
        raise ShapeError("the images", images, "(frame, y, x), not empty")
    mean = images.detach().abs().mean(0).to("cpu", torch.float64).numpy()
    if not np.isfinite(mean).all():
        raise InputError("the images hold NaN or infinite values", expected="finite numbers")
    size = max(mean.shape)
    smooth = ndimage.gaussian_filter(mean, size / 128)
    # Fat close to a coil outshines the rest; without it the histogram has two parts, air and tissue.
    smooth = np.minimum(smooth, np.quantile(smooth, 0.95))
    if np.ptp(smooth) <= 1e-6 * smooth.max():
        return torch.ones(mean.shape, dtype=torch.bool, device=images.device)
    bright = smooth > 0.4 * threshold_otsu(smooth)
    gap = size // 12
    closed = isotropic_closing(np.pad(bright, gap + 1), gap)[gap + 1 : -gap - 1, gap + 1 : -gap - 1]
    pieces, n_pieces = ndimage.label(closed)
    if n_pieces > 1:
        closed = pieces == 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    return torch.from_numpy(ndimage.binary_fill_holes(closed)).to(images.device)
