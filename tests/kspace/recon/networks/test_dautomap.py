from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from kspace.errors import ShapeError, UsageError
from kspace.nufft import exact_adjoint
from kspace.recon.networks.dautomap import DAutomap, DecomposedStep, DecomposedTransform, centred_dft


def test_a_step_is_the_papers_convolution() -> None:
    step = DecomposedStep(6)
    torch.nn.init.normal_(step.bias)
    x = torch.randn(3, 2, 6, 5)
    whole = functional.conv2d(x, step.weight, step.bias).reshape(3, 2, 6, 5)
    expected = torch.view_as_complex(whole.movedim(1, -1).contiguous()).mH
    found = step(x)
    assert torch.allclose(torch.complex(found[:, 0], found[:, 1]), expected, atol=1e-6)


@pytest.mark.parametrize("matrix", [(8, 8), (9, 12), (128, 128)])
def test_with_dft_matrices_a_block_is_the_inverse_transform(matrix: tuple[int, int]) -> None:
    block = DecomposedTransform(matrix).double()
    block.set_fourier()
    kspace = torch.randn(2, *matrix, dtype=torch.complex128)
    found = block(torch.stack((kspace.real, kspace.imag), 1))
    shifted = torch.fft.ifft2(torch.fft.ifftshift(kspace, dim=(-2, -1)), norm="ortho")
    expected = torch.fft.fftshift(shifted, dim=(-2, -1))
    assert torch.allclose(torch.complex(found[:, 0], found[:, 1]), expected, atol=1e-12)


def test_the_matrices_follow_the_projects_convention() -> None:
    rows, columns = 6, 9
    kspace = torch.randn(rows, columns, dtype=torch.complex128)
    places = [(torch.arange(n, dtype=torch.float64) - n // 2) / n for n in (rows, columns)]
    positions = torch.stack(torch.meshgrid(*places, indexing="ij"), -1).reshape(-1, 2)
    expected = exact_adjoint(kspace.reshape(1, -1), positions, (rows, columns))[0]
    found = centred_dft(rows, inverse=True) @ kspace @ centred_dft(columns).mH
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(
        centred_dft(7) @ centred_dft(7, inverse=True), torch.eye(7, dtype=torch.complex128), atol=1e-12
    )


def test_parameters_are_those_of_the_paper() -> None:
    counted = sum(p.numel() for p in DAutomap((128, 128)).parameters())
    assert counted == 4 * (256 * 256 + 256) + 3_264 + 102_464 + 6_274 == 375_170
    assert counted == pytest.approx(0.37e6, rel=0.05)


def test_a_fourier_start_is_the_inverse_transform() -> None:
    network = DAutomap((16, 12), features=4, start="fourier").double()
    image = torch.complex(torch.rand(2, 16, 12) * 2 - 1, torch.rand(2, 16, 12) * 2 - 1).to(torch.complex128)
    kspace = centred_dft(16) @ image @ centred_dft(12)
    found = network.transform(kspace)
    assert torch.allclose(found - 1, torch.stack((image.real, image.imag), 1), atol=1e-7)
    assert torch.allclose(network(kspace), image, atol=1e-7)


def test_it_can_be_trained() -> None:
    network = DAutomap((8, 10), features=3).double()
    kspace = torch.randn(1, 8, 10, dtype=torch.complex128)
    image = network(kspace)
    assert image.shape == kspace.shape
    assert image.is_complex()
    image.abs().square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in network.parameters())


def test_what_does_not_fit_is_refused() -> None:
    network = DAutomap((8, 10), features=2)
    with pytest.raises(ShapeError, match=r"\(batch, 8, 10\) and complex"):
        network(torch.zeros(1, 10, 8, dtype=torch.complex64))
    with pytest.raises(ShapeError, match="and complex"):
        network(torch.zeros(1, 8, 10))
    with pytest.raises(ShapeError, match="the matrix"):
        DecomposedStep(4).set_matrix(torch.eye(3))
    with pytest.raises(UsageError, match="unknown start"):
        DAutomap((4, 4), start="zero")  # type: ignore[arg-type]
