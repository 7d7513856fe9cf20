"""Receive coils: whitening, compression, and sensitivities from the data themselves.

The order that makes sense is :func:`whiten`, :func:`compress`, grid all spokes of all frames into one image per coil,
:func:`espirit_maps`. Whitening makes noise of unit variance that is independent from channel to channel; compression
keeps it so, because its rows are orthonormal; maps of unit root-sum-of-squares then make the SENSE combination the one
with the least noise.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError, UsageError
from kspace.scan import RadialScan


def noise_covariance(noise: Tensor) -> Tensor:
    """Estimate the covariance of noise between channels from samples without signal.

    Parameters
    ----------
    noise
        (coil, sample), complex, of zero mean.

    Returns
    -------
    Tensor
        (coil, coil), Hermitian: the mean of ``n n^H``, in the unit of the noise squared.

    Raises
    ------
    ShapeError, InputError
        When the noise is not (coil, sample), not finite, or holds fewer samples than coils.
    """
    if noise.ndim != 2 or noise.shape[0] < 1:
        raise ShapeError("the noise", noise, "(coil, sample)")
    n_coils, n_samples = noise.shape
    if n_samples < n_coils:
        raise InputError(
            f"there are {n_samples} noise samples of {n_coils} coils",
            expected="at least as many samples as coils, better a hundred times as many",
        )
    covariance = noise @ noise.mH / n_samples
    if not bool(torch.isfinite(covariance.abs()).all()):
        raise InputError("the noise holds NaN or infinite samples", expected="finite numbers")
    return 0.5 * (covariance + covariance.mH)


def whitening_matrix(covariance: Tensor) -> Tensor:
    """Find the matrix W that makes noise of this covariance white: W Psi W^H = I.

    Parameters
    ----------
    covariance
        (coil, coil), Hermitian and positive definite, in the unit of the samples squared.

    Returns
    -------
    Tensor
        (coil, coil) complex, the inverse of the Cholesky factor, lower triangular; in one over the samples' unit.

    Raises
    ------
    ShapeError, InputError
        When the covariance is not square, not Hermitian, or not positive definite to within its precision.
    """
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1] or covariance.shape[0] < 1:
        raise ShapeError("the noise covariance", covariance, "(coil, coil)")
    dtype = covariance.dtype if covariance.is_complex() else torch.promote_types(covariance.dtype, torch.complex64)
    psi = covariance.to(torch.complex128)
    if not bool(torch.isfinite(psi.abs()).all()) or bool((psi - psi.mH).abs().max() > 1e-4 * psi.abs().max()):
        raise InputError("the noise covariance is not Hermitian", expected="the mean of n n^H, finite")
    psi = 0.5 * (psi + psi.mH)
    # Judged on correlations, so that a channel of low gain is not taken for a dependent one.
    variance = psi.diagonal().real
    definite = bool((variance > 0).all())
    if definite:
        correlation = psi / torch.sqrt(variance[:, None] * variance)
        definite = bool(torch.linalg.eigvalsh(correlation)[0] > len(psi) * torch.finfo(dtype).eps)
    if not definite:
        raise InputError(
            "the noise covariance is not positive definite",
            expected="linearly independent channels, each with noise",
            hint="Leave out dead or duplicate channels, measure more noise samples than there are coils, or add a "
            "ridge such as 1e-3 of the mean of the diagonal to the diagonal",
        )
    identity = torch.eye(len(psi), dtype=psi.dtype, device=psi.device)
    inverse: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(psi), identity, upper=False)
    return inverse.to(dtype)


def whiten(scan: RadialScan) -> RadialScan:
    """Make the noise of a scan white: unit variance, independent from channel to channel.

    Parameters
    ----------
    scan
        Spokes with a known ``noise_covariance``; without one the scan comes back as it is.

    Returns
    -------
    RadialScan
        The same spokes in units of the noise's standard deviation, with the identity as their covariance.

    Raises
    ------
    InputError
        When the covariance is not Hermitian and positive definite.
    """
    if scan.noise_covariance is None:
        return scan
    matrix = whitening_matrix(scan.noise_covariance).to(scan.samples)
    identity = torch.eye(scan.n_coils, dtype=matrix.dtype, device=matrix.device)
    return replace(scan, samples=matrix @ scan.samples, noise_covariance=identity)


def _gram(samples: Tensor) -> Tensor:
    """(coil, coil) complex128, the sum of ``s s^H`` over spokes and readout."""
    if samples.ndim != 3 or samples.shape[1] < 1:
        raise ShapeError("samples", samples, "(spoke, coil, readout)")
    channels = samples.transpose(0, 1).reshape(samples.shape[1], -1)
    gram = (channels @ channels.mH).to(torch.complex128)
    if not bool(gram.diagonal().real.sum() > 0):
        raise InputError("there is no signal to compress the coils by", expected="spokes with finite, non-zero samples")
    return gram


def compression_matrix(samples: Tensor, n_virtual: int) -> Tensor:
    """Find the few combinations of channels that hold the most energy, by principal components.

    Parameters
    ----------
    samples
        (spoke, coil, readout), complex, whitened so that energy means information.
    n_virtual
        Number of virtual channels, at most the number of coils.

    Returns
    -------
    Tensor
        (n_virtual, coil), orthonormal rows, the strongest first; white noise stays white. The largest entry of each
        row is real and positive, so that the same data always give the same matrix.

    Raises
    ------
    ShapeError, InputError
        When samples are not (spoke, coil, readout), or hold no signal.
    UsageError
        When ``n_virtual`` is not between 1 and the number of coils.

    Notes
    -----
    Source: F. Huang et al., A software channel compression technique for faster reconstruction with many channels,
    Magn Reson Imaging 2008;26:133-141.
    """
    gram = _gram(samples)
    if not 1 <= n_virtual <= len(gram):
        raise UsageError(f"{n_virtual} virtual coils were asked for", expected=f"1 to {len(gram)}, the number of coils")
    rows: Tensor = torch.linalg.eigh(gram).eigenvectors.flip(1)[:, :n_virtual].mH
    return with_real_peaks(rows).to(samples.dtype)


def with_real_peaks(rows: Tensor) -> Tensor:
    """Turn the phase of each row of (virtual coil, coil) so that its largest entry is real and positive."""
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return rows * (largest.conj() / largest.abs())


def retained_energy(samples: Tensor, matrix: Tensor) -> float:
    """Tell the fraction of the energy of samples that survives a compression.

    Parameters
    ----------
    samples
        (spoke, coil, readout), complex, before compression.
    matrix
        (n_virtual, coil), from :func:`compression_matrix`.

    Returns
    -------
    float
        Between 0 and 1.

    Raises
    ------
    ShapeError, InputError
        When the shapes do not fit or the samples hold no signal.
    """
    gram = _gram(samples)
    if matrix.ndim != 2 or matrix.shape[1] != len(gram):
        raise ShapeError("the compression matrix", matrix, f"(n_virtual, coil) = (n_virtual, {len(gram)})")
    rows = matrix.to(gram)
    return min(1.0, float((rows @ gram @ rows.mH).diagonal().real.sum() / gram.diagonal().real.sum()))


def compress(scan: RadialScan, n_virtual: int) -> RadialScan:
    """Replace the channels of a scan by fewer virtual ones, see :func:`compression_matrix`.

    Parameters
    ----------
    scan
        The spokes, better whitened before.
    n_virtual
        Number of virtual channels, at most the number of coils.

    Returns
    -------
    RadialScan
        The same spokes of ``n_virtual`` coils; the noise covariance, where known, goes with them.

    Raises
    ------
    InputError
        When the scan holds no signal.
    UsageError
        When ``n_virtual`` is not between 1 and the number of coils.
    """
    matrix = compression_matrix(scan.samples, n_virtual)
    covariance = scan.noise_covariance
    if covariance is not None:
        rows = matrix.to(covariance.device, torch.promote_types(matrix.dtype, covariance.dtype))
        covariance = rows @ covariance.to(rows.dtype) @ rows.mH
    return replace(scan, samples=matrix @ scan.samples, noise_covariance=covariance)


def espirit_maps(
    images: Tensor,
    *,
    calibration_width: int = 24,
    kernel_width: int = 6,
    threshold: float = 0.02,
    crop: float = 0.9,
    mask_background: bool = False,
    coarse: int | None = 64,
    iterations: int = 40,
) -> Tensor:
    """Estimate coil sensitivities from coil images by ESPIRiT.

    Only the centre of the images' k-space counts, so images gridded from all spokes of all frames will do, streaks and
    all. The phase is such that the first principal virtual coil is real and positive, which keeps the maps smooth.

    Parameters
    ----------
    images
        (coil, y, x), complex, on the reconstruction grid; any unit.
    calibration_width
        Width in samples of the central block of k-space; cut to the grid where that is smaller. Smooth coils come
        out within 1 % from 16 on, within 3 % at 12.
    kernel_width
        Width in samples of the kernels whose span describes the block, at most half of its width.
    threshold
        Singular values below this fraction of the largest count as noise.
    crop
        Pixels whose eigenvalue is below this fraction of one count as background.
    mask_background
        Set the maps to zero in the background. By default they go on smoothly and have unit norm everywhere.
    coarse
        Largest matrix on which maps are computed before cubic interpolation to the full grid; None computes them on
        the full grid. With 8 smooth coils on 192 x 192, 64 changes the maps inside the body by 1.5e-5 (root mean
        square; 1.6e-4 at most) and takes 0.2 s instead of 1.4 s on two CPU cores.
    iterations
        Steps of the power method.

    Returns
    -------
    Tensor
        (coil, y, x), complex, of unit root-sum-of-squares over coils; dtype and device of ``images``.

    Raises
    ------
    ShapeError, InputError
        When images are not (coil, y, x), not complex, not finite or zero.
    UsageError
        When a width, fraction or number of iterations makes no sense, or the kernel is too wide for the grid.

    Notes
    -----
    Source: M. Uecker et al., ESPIRiT: an eigenvalue approach to autocalibrating parallel MRI, Magn Reson Med
    2014;71:990-1001, as implemented by ``sigpy.mri.app.EspiritCalib``. Virtual coils as phase reference are BART's way.
    The computation is sigpy's complex64 on the CPU, also for complex128 images and images on a GPU.
    """
    width = _check_calibration(images, calibration_width, kernel_width)
    for name, value in (("threshold", threshold), ("crop", crop)):
        if not 0 <= value < 1:
            raise UsageError(f"{name} is {value}", expected="a fraction from 0 to below 1")
    if iterations < 1 or (coarse is not None and coarse < 1):
        raise UsageError(f"iterations is {iterations} and coarse is {coarse}", expected="at least 1")
    calibration = _central_kspace(images.detach(), width)
    norm = torch.linalg.vector_norm(calibration)
    if not bool(norm > 0):
        raise InputError("the coil images hold no signal", expected="an object in the field of view")
    block = (calibration / norm).to("cpu", torch.complex64)
    rotation = compression_matrix(block.transpose(0, 1), len(block))
    virtual = torch.einsum("vc,cyx->vyx", rotation, block)

    ny, nx = images.shape[1:]
    my, mx = (ny, nx) if coarse is None else (min(ny, max(coarse, width)), min(nx, max(coarse, width)))
    maps, eigenvalue = _sigpy_espirit(_pad_centre(virtual, my, mx), width, kernel_width, threshold, iterations)
    rows, columns = _cubic(my, ny), _cubic(mx, nx)
    maps = torch.einsum("cv,vyx->cyx", rotation.mH, maps)
    maps = rows.to(maps.dtype) @ maps @ columns.to(maps.dtype).mT
    norm = torch.linalg.vector_norm(maps, dim=0)
    maps = torch.where(norm > 0, maps / norm.clamp(min=1e-30), 1 / math.sqrt(len(maps)))
    if mask_background:
        maps = maps * (rows @ eigenvalue @ columns.mT > crop)
    return maps.to(images)


def _check_calibration(images: Tensor, calibration_width: int, kernel_width: int) -> int:
    if images.ndim != 3 or min(images.shape) < 1:
        raise ShapeError("the coil images", images, "(coil, y, x), none of them empty")
    if not images.is_complex():
        raise InputError(f"the coil images are {images.dtype}", expected="complex64 or complex128")
    if not bool(torch.isfinite(torch.view_as_real(images)).all()):
        raise InputError("the coil images hold NaN or infinite values", expected="finite numbers")
    width = min(calibration_width, *(int(n) for n in images.shape[1:]))
    # Below twice the kernel there are too few equations: the error jumps from a few percent to 20 and 100 %.
    if not 2 <= kernel_width <= width // 2:
        raise UsageError(
            f"a kernel of width {kernel_width} does not suit a calibration region of width {width}",
            expected="a width from 2 to half of the calibration region, which is no wider than the grid",
            hint="Lower kernel_width, or reconstruct on a larger matrix",
        )
    return width


def _central_kspace(images: Tensor, width: int) -> Tensor:
    """(coil, width, width), the central block of the unitary, centred Fourier transform."""
    ny, nx = images.shape[1:]
    spectrum = torch.fft.fft2(torch.fft.ifftshift(images, dim=(-2, -1)), norm="ortho")
    kspace: Tensor = torch.fft.fftshift(spectrum, dim=(-2, -1))
    top, left = ny // 2 - width // 2, nx // 2 - width // 2
    return kspace[:, top : top + width, left : left + width]


def _pad_centre(block: Tensor, rows: int, columns: int) -> Tensor:
    padded = block.new_zeros((len(block), rows, columns))
    n_rows, n_columns = block.shape[1:]
    top, left = rows // 2 - n_rows // 2, columns // 2 - n_columns // 2
    padded[:, top : top + n_rows, left : left + n_columns] = block
    return padded


def _sigpy_espirit(
    kspace: Tensor, width: int, kernel_width: int, threshold: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Maps (coil, y, x), the first of them real, and eigenvalues (y, x) by sigpy, which costs 2.3 s to import."""
    from sigpy.mri.app import EspiritCalib

    app = EspiritCalib(
        kspace.numpy(),
        calib_width=width,
        kernel_width=kernel_width,
        thresh=threshold,
        max_iter=iterations,
        output_eigenvalue=True,
        show_pbar=False,
    )
    # sigpy divides by the first coil, which may vanish in a pixel; such a pixel is left to the interpolation.
    with np.errstate(invalid="ignore", divide="ignore"):
        maps, eigenvalue = app.run()
    return torch.from_numpy(np.nan_to_num(maps)), torch.from_numpy(np.nan_to_num(eigenvalue.real))


def _cubic(n_coarse: int, n_full: int) -> Tensor:
    """(n_full, n_coarse) float32, Keys' cubic interpolation between two centred, periodic grids of one extent."""
    position = (torch.arange(n_full, dtype=torch.float64) - n_full // 2) * (n_coarse / n_full) + n_coarse // 2
    below = torch.floor(position)
    matrix = torch.zeros(n_full, n_coarse, dtype=torch.float64)
    for tap in (-1, 0, 1, 2):
        distance = (position - below - tap).abs()
        near = (1.5 * distance - 2.5) * distance**2 + 1
        far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
        weight = torch.where(distance <= 1, near, far)
        column = (below + tap).to(torch.int64) % n_coarse
        matrix.scatter_add_(1, column[:, None], weight[:, None])
    return matrix.to(torch.float32)
