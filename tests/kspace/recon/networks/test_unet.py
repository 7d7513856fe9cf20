from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from kspace.errors import ShapeError, UsageError
from kspace.recon.networks.unet import CineUNet


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network(neighbours: int = 5, features: int = 4, levels: int = 2) -> CineUNet:
    """A network that does something, as a trained one would."""
    torch.manual_seed(0)
    made = CineUNet(neighbours, features, levels)
    torch.nn.init.normal_(made.out.weight)
    torch.nn.init.normal_(made.out.bias)
    return made


def cine(frames: int = 6, rows: int = 21, columns: int = 18, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    still = torch.randn(rows, columns, dtype=torch.complex64, generator=generator)
    return still + 0.3 * torch.randn(frames, rows, columns, dtype=torch.complex64, generator=generator)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((torch.linalg.vector_norm(found - expected) / torch.linalg.vector_norm(expected)).detach())


@pytest.mark.parametrize("factor", [1e-6, 4e5, 1j, 3 * complex(0.6, -0.8), -1.0])
def test_scale_and_phase_go_through(factor: complex) -> None:
    model, x = network(), cine()
    expected = model(x)
    assert relative(expected, x) > 0.05
    assert relative(model(x * factor), expected * factor) < 1e-4


def test_a_fixed_map_of_phases_goes_through() -> None:
    model, x = network(), cine()
    turn = torch.polar(torch.ones(21, 18), 6 * torch.rand(21, 18))
    assert relative(model(x * turn), model(x) * turn) < 1e-4


@pytest.mark.parametrize("shift", [1, 4])
def test_time_is_a_circle(shift: int) -> None:
    model, x = network(), cine()
    assert relative(model(x.roll(shift, 0)), model(x).roll(shift, 0)) < 1e-4


def test_a_frame_depends_on_its_neighbours_only() -> None:
    model, x = network(neighbours=3), cine(frames=7)
    # Two frames change places, so that scale and mean phase are as they were.
    changed = (model(x) - model(x[[0, 1, 2, 4, 3, 5, 6]])).detach().abs().amax((1, 2))
    assert float(changed[2:6].min()) > 1e-3
    assert float(changed[[0, 1, 6]].max()) < 1e-5


@pytest.mark.parametrize("shape", [(5, 7, 9), (1, 1, 1), (2, 16, 16), (3, 33, 2), (2, 3, 11, 13)])
def test_any_size_fits(shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, dtype=torch.complex64)
    found = network()(x)
    assert found.shape == x.shape
    assert found.dtype == torch.complex64
    assert bool(torch.isfinite(torch.view_as_real(found)).all())


def test_cines_of_a_batch_do_not_mix() -> None:
    model = network()
    batch = torch.stack((cine(), 100 * cine(seed=2)))
    assert relative(model(batch)[0], model(batch[0])) < 1e-5
    assert relative(model(batch)[1], model(batch[1])) < 1e-5


def test_untrained_it_returns_what_goes_in() -> None:
    x = cine()
    assert relative(CineUNet()(x), x) < 1e-6


def test_nothing_stays_nothing() -> None:
    zero = torch.zeros(2, 5, 5, dtype=torch.complex64)
    assert float(network()(zero).detach().abs().max()) < 1e-15


def test_gradients_are_right() -> None:
    model = network(neighbours=3, features=2, levels=1).double()
    x = cine(3, 3, 3).to(torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(model, (x,))
    names = [name for name, _ in model.named_parameters()]

    def of_parameters(*values: Tensor) -> Tensor:
        found: Tensor = torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x.detach(),))
        return torch.view_as_real(found)

    values = tuple(p.detach().requires_grad_() for p in model.parameters())
    assert torch.autograd.gradcheck(of_parameters, values, fast_mode=True)


def test_size_of_the_default() -> None:
    assert sum(p.numel() for p in CineUNet().parameters()) == 762_322


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="4 neighbours; expected an odd number"):
        CineUNet(4)
    with pytest.raises(UsageError, match="0 features"):
        CineUNet(3, 0)
    with pytest.raises(ShapeError, match="and complex"):
        CineUNet()(torch.zeros(2, 4, 4))
    with pytest.raises(ShapeError, match="and complex"):
        CineUNet()(torch.zeros(4, 4, dtype=torch.complex64))
