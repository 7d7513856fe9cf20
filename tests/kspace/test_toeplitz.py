from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace import fft
from kspace.errors import ShapeError
from kspace.nufft import exact_adjoint, exact_transform
from kspace.toeplitz import apply_spectrum, psf_spectrum, sense_normal


def test_convolution_is_the_adjoint_of_the_weighted_transform(small: Any, make_noise: Any, check: Any) -> None:
    positions = small.positions[0].reshape(-1, 2)
    weights = make_noise(positions.shape[0], seed=2, dtype=torch.float64).abs()
    weights[::3] = 0
    x = make_noise(2, *small.matrix, dtype=torch.complex128)
    expected = exact_adjoint(exact_transform(x, positions) * weights, positions, small.matrix)
    check.close(apply_spectrum(x, psf_spectrum(positions, weights, small.matrix, accuracy="reference")), expected, 1e-8)
    single = psf_spectrum(positions, weights.float(), small.matrix)
    assert single.dtype == torch.float32
    assert single.shape == (2 * small.matrix[0], 2 * small.matrix[1])
    check.close(apply_spectrum(x.to(torch.complex64), single), expected, 1e-4)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(1, 17),
    columns=st.integers(1, 17),
    n_samples=st.integers(0, 30),
    n_coils=st.integers(1, 3),
    n_frames=st.integers(1, 3),
    batches=st.integers(1, 2),
)
def test_normal_operator_at_any_size(
    rows: int,
    columns: int,
    n_samples: int,
    n_coils: int,
    n_frames: int,
    batches: int,
    make_noise: Any,
    make_maps: Any,
    check: Any,
) -> None:
    positions = torch.rand(n_frames, n_samples, 2, generator=torch.Generator().manual_seed(rows)) - 0.5
    weights = make_noise(n_frames, n_samples, dtype=torch.float64).abs()
    spectra = [
        psf_spectrum(p, w, (rows, columns), accuracy="reference") for p, w in zip(positions, weights, strict=True)
    ]
    maps = make_maps(n_coils, rows, columns, dtype=torch.complex128)
    x = make_noise(batches, n_frames, rows, columns, dtype=torch.complex128)
    got = sense_normal(x, maps, torch.stack(spectra))
    for frame in range(n_frames):
        samples = exact_transform(x[:, frame, None] * maps, positions[frame]) * weights[frame]
        expected = (exact_adjoint(samples, positions[frame], (rows, columns)) * maps.conj()).sum(1)
        size = float(torch.linalg.vector_norm(x)) * float(weights.sum())
        assert float(torch.linalg.vector_norm(got[:, frame] - expected)) <= 1e-7 * size


def test_spectrum_is_additive_over_samples(small: Any, make_noise: Any, check: Any) -> None:
    positions = small.positions[0].reshape(-1, 2)
    weights = make_noise(positions.shape[0], dtype=torch.float32).abs()
    cut = positions.shape[0] // 3
    parts = [
        psf_spectrum(p, w, small.matrix)
        for p, w in zip(positions.tensor_split([cut]), weights.tensor_split([cut]), strict=True)
    ]
    check.close(parts[0] + parts[1], psf_spectrum(positions, weights, small.matrix), 1e-5)


def test_operator_is_its_own_adjoint_and_its_gradient(small: Any, make_noise: Any, make_maps: Any, check: Any) -> None:
    positions = small.positions[0].reshape(-1, 2)
    spectrum = psf_spectrum(positions, torch.ones(positions.shape[0]), small.matrix)[None]
    maps = make_maps(3, *small.matrix)

    def normal(x: torch.Tensor) -> torch.Tensor:
        return sense_normal(x, maps, spectrum)

    x, t = make_noise(1, *small.matrix), make_noise(1, *small.matrix, seed=1)
    check.adjoint(normal, normal, x, t)
    check.gradient(normal, normal, x, t)


def test_fast_path_and_recorded_path_agree(small: Any, make_noise: Any, make_maps: Any, check: Any) -> None:
    spectrum = make_noise(2, 2 * small.matrix[0], 2 * small.matrix[1], dtype=torch.float32)
    maps, x = make_maps(2, *small.matrix), make_noise(3, 2, *small.matrix)
    recorded = sense_normal(x.requires_grad_(), maps, spectrum)
    assert recorded.requires_grad
    with torch.no_grad():
        quick = sense_normal(x, maps, spectrum)
    assert not quick.requires_grad
    check.close(recorded, quick, 1e-6)
    check.close(sense_normal(x.detach().conj(), maps.conj(), spectrum), apply_conjugated(x, maps, spectrum), 1e-6)


def apply_conjugated(x: torch.Tensor, maps: torch.Tensor, spectrum: torch.Tensor) -> torch.Tensor:
    coil_images = x.detach()[..., None, :, :].conj() * maps.conj()
    return (apply_spectrum(coil_images, spectrum[:, None]) * maps).sum(-3)


def test_gradcheck_with_respect_to_images_and_maps(make_noise: Any, make_maps: Any) -> None:
    spectrum = make_noise(2, 6, 4, dtype=torch.float64)
    x = make_noise(2, 3, 2, dtype=torch.complex128).requires_grad_()
    maps = make_maps(2, 3, 2, dtype=torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, c: sense_normal(x, c, spectrum), (x, maps))
    assert torch.autograd.gradgradcheck(lambda x, c: sense_normal(x, c, spectrum), (x, maps))


def test_what_does_not_fit_is_named() -> None:
    x, maps = torch.zeros(2, 4, 5, dtype=torch.complex64), torch.zeros(1, 4, 5, dtype=torch.complex64)
    with pytest.raises(ShapeError, match="spectrum has shape"):
        apply_spectrum(x, torch.zeros(4, 5))
    with pytest.raises(ShapeError, match="with 3 frames"):
        sense_normal(x, maps, torch.zeros(3, 8, 10))
    with pytest.raises(ShapeError, match="maps has shape"):
        sense_normal(x, maps[:, 1:], torch.zeros(2, 8, 10))


def test_scipy_takes_over_where_fftw_is_not_installed(
    make_noise: Any, make_maps: Any, check: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, spectrum = make_maps(3, 11, 14), make_noise(2, 22, 28, dtype=torch.float32)
    x = make_noise(2, 11, 14)
    expected = sense_normal(x, maps, spectrum)
    monkeypatch.setattr(fft, "fftw_available", lambda: False)
    monkeypatch.setattr(fft, "_workspaces", threading.local())
    check.close(sense_normal(x, maps, spectrum), expected, 1e-6)
