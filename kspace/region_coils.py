"""Virtual coils that see one region and not another (ROVir: Kim, Cauley, Nayak, Leahy, Haldar, MRM 86:197, 2021).

Principal components keep what is bright, wherever it lies. Cine needs the heart: of all combinations of channels, the
first generalised eigenvectors of the energy from the heart against the energy from elsewhere see most of the one and
least of the other, so that streaks from arms and subcutaneous fat are left behind with the channels that are dropped.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.coils import with_real_peaks
from kspace.errors import InputError, ShapeError, UsageError

# Of the mean energy per channel; what is seen nowhere decides nothing.
_RIDGE = 1e-3


def region_matrix(images: Tensor, keep: Tensor, suppress: Tensor, n_virtual: int) -> Tensor:
    """Find the combinations of channels that see most of one region for what they see of another.

    Parameters
    ----------
    images
        (coil, y, x) complex, coil images of whitened channels, such as the time average.
    keep, suppress
        (y, x) bool, where the signal is wanted and where it is not.
    n_virtual
        Number of virtual channels, at most the number of coils.

    Returns
    -------
    Tensor
        (n_virtual, coil), orthonormal rows, so that white noise stays white; the best channel first.

    Raises
    ------
    ShapeError, InputError
        When shapes do not fit, a region is empty, or there is no signal in the region to keep.
    UsageError
        When ``n_virtual`` is not between 1 and the number of coils.
    """
    if images.ndim != 3 or not images.is_complex():
        raise ShapeError("the coil images", images, "(coil, y, x), complex")
    n_coils = images.shape[0]
    for name, region in (("keep", keep), ("suppress", suppress)):
        if region.shape != images.shape[1:] or region.dtype != torch.bool:
            raise ShapeError(name, region, f"(y, x) = {tuple(images.shape[1:])}, bool")
        if not bool(region.any()):
            raise InputError(f"the region to {name} is empty", expected="at least one pixel")
    if not 1 <= n_virtual <= n_coils:
        raise UsageError(f"{n_virtual} virtual coils were asked for", expected=f"1 to {n_coils}, the number of coils")
    wanted, unwanted = (_energy(images[:, region]) for region in (keep, suppress))
    level = float(wanted.diagonal().real.mean())
    if not level > 0:
        raise InputError("there is no signal in the region to keep", expected="finite, non-zero images")
    unwanted = unwanted + _RIDGE * level * torch.eye(n_coils, dtype=unwanted.dtype, device=unwanted.device)
    # A generalised eigenproblem, by the Cholesky factor of the second matrix.
    factor = torch.linalg.cholesky(unwanted)
    half = torch.linalg.solve_triangular(factor, wanted, upper=False)
    ratio = torch.linalg.solve_triangular(factor, half.mH, upper=False)
    vectors = torch.linalg.eigh(0.5 * (ratio + ratio.mH)).eigenvectors.flip(1)[:, :n_virtual]
    best = torch.linalg.solve_triangular(factor.mH, vectors, upper=True)
    # Columns span what is kept; orthonormal ones of the same span keep noise white.
    rows: Tensor = torch.linalg.qr(best).Q.mH
    return with_real_peaks(rows).to(images.dtype)


def _energy(channels: Tensor) -> Tensor:
    """Return (coil, coil) complex128, the mean of s s^H over the (coil, pixel) values of a region."""
    values = channels.to(torch.complex128)
    return values @ values.mH / values.shape[1]
