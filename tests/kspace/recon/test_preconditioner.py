from __future__ import annotations

from typing import Any

import pytest
import torch

from kspace.recon.preconditioner import Circulant
from kspace.toeplitz import sense_normal


def dense_normal(maps: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    """(pixel, pixel), the normal operator of one frame as a matrix."""
    rows, columns = maps.shape[-2:]
    units = torch.eye(rows * columns, dtype=maps.dtype).reshape(-1, 1, rows, columns)
    return sense_normal(units, maps, spectrum)[:, 0].reshape(len(units), -1).T


def circulant_basis(rows: int, columns: int) -> torch.Tensor:
    """(pixel, pixel) unitary, the Fourier transform as a matrix."""
    units = torch.eye(rows * columns, dtype=torch.complex128).reshape(-1, rows, columns)
    return torch.fft.fft2(units, norm="ortho").reshape(rows * columns, -1).T


@pytest.mark.parametrize("matrix", [(6, 7), (5, 4)])
def test_it_is_the_nearest_circulant(matrix: tuple[int, int], make_case: Any, check: Any) -> None:
    case = make_case(matrix=matrix, n_frames=1, n_coils=3, spokes_per_frame=7)
    equations = case.equations(dtype=torch.complex128)
    maps = case.maps.to(torch.complex128)
    dense = dense_normal(maps, equations.spectrum)
    fourier = circulant_basis(*matrix)
    # In the Frobenius norm the nearest matrix that a unitary transform diagonalises keeps the diagonal.
    nearest = (fourier @ dense @ fourier.mH).diagonal().real
    damping = torch.tensor([0.3], dtype=torch.float64)
    floor = torch.tensor([0.2], dtype=torch.float64)
    circulant = Circulant(maps, equations.spectrum, damping, floor, [slice(0, 1)])
    x = case.images[:1].to(torch.complex128)
    expected = (fourier.mH @ ((fourier @ x.reshape(-1)) / (nearest + 0.3 + 0.2))).reshape(x.shape)
    check.close(circulant(x, slice(0, 1)), expected, 1e-6)
    freedom = float((nearest / (nearest + 0.3)).sum())
    assert float(circulant.degrees_of_freedom()[0]) == pytest.approx(freedom, rel=1e-6)


def test_a_frame_without_spokes_is_left_alone(make_case: Any) -> None:
    case = make_case(n_frames=2)
    spectrum = case.equations().spectrum
    spectrum[1] = 0
    circulant = Circulant(case.maps, spectrum, torch.zeros(2), torch.zeros(2), [slice(0, 2)])
    assert float(circulant(case.images.to(torch.complex64)[:2], slice(0, 2))[1].abs().max()) == 0
    assert float(circulant.degrees_of_freedom()[1]) == 0
