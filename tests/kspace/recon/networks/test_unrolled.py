from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.errors import ShapeError, UsageError
from kspace.recon.networks.consistency import consistent, gradient_step
from kspace.recon.networks.least_squares import LeastSquares
from kspace.recon.networks.temporal_prior import PriorOptions, TemporalPrior, shifted_in_time
from kspace.recon.networks.unrolled import Reference, UnrolledNetwork, UnrolledOptions

SMALL = PriorOptions(channels=(8, 8), depth=(1, 1), second=True)


def a_problem(
    frames: int = 5,
    rows: int = 10,
    columns: int = 9,
    coils: int = 2,
    dtype: torch.dtype = torch.complex64,
    seed: int = 0,
) -> tuple[LeastSquares, Tensor]:
    """A least-squares problem of random, consistent data with a spectrum like that of random weighted samples."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randn(frames, rows, columns, dtype=torch.complex128, generator=g) + 2
    maps = torch.randn(coils, rows, columns, dtype=torch.complex128, generator=g)
    maps = maps / torch.linalg.vector_norm(maps, dim=0)
    spectrum = 4 * torch.rand(frames, 2 * rows, 2 * columns, dtype=torch.float64, generator=g)
    real = torch.empty((), dtype=dtype).real.dtype
    bare = LeastSquares(images * 0, maps, spectrum, 2.0, torch.rand(frames, generator=g, dtype=torch.float64), 0.1)
    right = bare.normal(images)
    problem = LeastSquares(
        right.to(dtype), maps.to(dtype), spectrum.to(real), 2.0, bare.sampling.to(real) * 0.2 + 0.02, 0.1
    )
    return problem, (images + 0.3 * torch.randn(images.shape, dtype=images.dtype, generator=g)).to(dtype)


def a_network(dtype: torch.dtype = torch.float32, **options: Any) -> UnrolledNetwork:
    """A small network whose weights are all random, none of them nought."""
    torch.manual_seed(1)
    network = UnrolledNetwork(UnrolledOptions(blocks=2, prior=SMALL, **options)).to(dtype)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return network


def least_squares(problem: LeastSquares) -> Tensor:
    """(frame, y, x) complex128, the solution of A x = b, from the dense matrix."""
    frames, rows, columns = problem.right.shape
    basis = torch.eye(rows * columns, dtype=torch.complex128).reshape(-1, 1, rows, columns)
    matrix = problem.normal(basis.expand(-1, frames, -1, -1)).flatten(2).permute(1, 2, 0)
    return torch.linalg.solve(matrix, problem.right.flatten(1)[..., None]).reshape(problem.right.shape)


def test_consistent_images_solve_their_equations() -> None:
    problem, proposal = a_problem(dtype=torch.complex128)
    weight = torch.tensor([0.1, 0.5, 1.0, 2.0, 5.0], dtype=torch.float64)
    x = consistent(problem, proposal, weight, iterations=200, tolerance=1e-13)
    w = weight[:, None, None]
    torch.testing.assert_close(problem.normal(x) + w * x, problem.right + w * proposal, rtol=1e-8, atol=1e-8)


def test_what_agrees_with_the_data_already_stays() -> None:
    problem, _ = a_problem(dtype=torch.complex128)
    truth = least_squares(problem)
    weight = torch.ones(5, dtype=torch.float64)
    torch.testing.assert_close(consistent(problem, truth, weight), truth, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient_step(problem, truth, weight), truth, rtol=1e-6, atol=1e-6)


def test_the_gradient_of_consistency() -> None:
    problem, proposal = a_problem(frames=2, rows=4, columns=3, dtype=torch.complex128)
    weight = torch.tensor([0.4, 1.5], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z, w: consistent(problem, z, w, iterations=80, tolerance=1e-14), (proposal.requires_grad_(), weight)
    )


@pytest.mark.parametrize("consistency", ["cg", "gradient"])
def test_the_gradient_through_the_whole_network(consistency: Any) -> None:
    problem, start = a_problem(frames=2, rows=4, columns=5, dtype=torch.complex128)
    network = a_network(torch.float64, consistency=consistency, iterations=60)
    inputs = [
        p for name, p in network.named_parameters() if "regularisation" in name or "tail" in name or "head.bias" in name
    ]

    def run(*values: Tensor) -> Tensor:
        return torch.view_as_real(network(problem, start))

    assert torch.autograd.gradcheck(run, inputs, eps=1e-6, atol=1e-5, fast_mode=True)


def test_saving_memory_changes_nothing() -> None:
    problem, start = a_problem(dtype=torch.complex128)
    gradients = []
    for save in (False, True):
        network = a_network(torch.float64)
        network(problem, start, save_memory=save).abs().square().sum().backward()
        gradients.append([p.grad for p in network.parameters()])
    for plain, saved in zip(*gradients, strict=True):
        assert plain is not None
        assert float(plain.abs().max()) > 0
        torch.testing.assert_close(plain, saved)


@settings(max_examples=15, deadline=None)
@given(
    frames=st.integers(1, 7), rows=st.integers(5, 17), columns=st.integers(5, 17), by=st.integers(-6, 6),
    turn=st.floats(-math.pi, math.pi), factor=st.floats(-8, 8), seed=st.integers(0, 1000),
)  # fmt: skip
def test_time_phase_and_scale_go_through(
    frames: int, rows: int, columns: int, by: int, turn: float, factor: float, seed: int
) -> None:
    problem, start = a_problem(frames, rows, columns, seed=seed)
    network = a_network().eval()
    second = start + 0.2 * problem.right
    with torch.no_grad():
        expected = network(problem, start, second)
        shifted = LeastSquares(
            problem.right.roll(by, 0), problem.maps, problem.spectrum.roll(by, 0), problem.scale,
            problem.sampling.roll(by, 0), problem.noise,
        )  # fmt: skip
        assert_near(network(shifted, start.roll(by, 0), second.roll(by, 0)), expected.roll(by, 0))
        unit = 10**factor * torch.polar(torch.tensor(1.0), torch.tensor(turn))
        other = LeastSquares(
            problem.right * unit, problem.maps, problem.spectrum, problem.scale, problem.sampling,
            0.1 * 10**factor,
        )  # fmt: skip
        assert_near(network(other, start * unit, second * unit), expected * unit)


def assert_near(got: Tensor, expected: Tensor) -> None:
    """Within 1e-4 of the norm."""
    error = float(torch.linalg.vector_norm(got - expected) / torch.linalg.vector_norm(expected))
    assert error < 1e-4, error


def test_an_untrained_network_starts_from_the_start() -> None:
    problem, _ = a_problem(dtype=torch.complex128)
    truth = least_squares(problem)
    network = UnrolledNetwork(UnrolledOptions(blocks=2, prior=SMALL)).double()
    with torch.no_grad():
        torch.testing.assert_close(network(problem, truth), truth, rtol=1e-6, atol=1e-6)


def test_frames_hear_of_their_neighbours_on_a_circle() -> None:
    features = torch.arange(4.0)[:, None, None, None].expand(4, 8, 1, 1)
    got = shifted_in_time(features)[:, ::2, 0, 0]
    assert got.tolist() == [[3, 1, 0, 0], [0, 2, 1, 1], [1, 3, 2, 2], [2, 0, 3, 3]]


def test_nothing_but_zeros_comes_of_zeros() -> None:
    problem, start = a_problem()
    nought = LeastSquares(problem.right * 0, problem.maps, problem.spectrum, 2.0, problem.sampling, 0.0)
    with torch.no_grad():
        got = a_network().eval()(nought, start * 0)
    assert bool(torch.isfinite(torch.view_as_real(got)).all())


def test_the_reference_leaves_a_real_average_of_level_one() -> None:
    _, images = a_problem()
    seen = Reference.of(images * 1e-12).seen(images * 1e-12)
    average = seen.mean(0)
    assert float((average.imag.abs() / average.abs().clamp_min(1e-6)).max()) < 1e-4
    again = Reference.of(images)
    torch.testing.assert_close(again.unseen(again.seen(images)), images, rtol=1e-5, atol=1e-5)
    assert abs(float(Reference.of(seen).level) - 1) < 1e-4


def test_wrong_sizes_are_refused() -> None:
    problem, start = a_problem()
    with pytest.raises(ShapeError, match="the start"):
        a_network()(problem, start[1:])
    with pytest.raises(ShapeError, match="the second start"):
        a_network()(problem, start, start[1:])
    with pytest.raises(ShapeError, match="spectrum"):
        LeastSquares(problem.right, problem.maps, problem.spectrum[1:], 1.0, problem.sampling, None)
    with pytest.raises(ShapeError, match="maps"):
        LeastSquares(problem.right, problem.maps[:, 1:], problem.spectrum, 1.0, problem.sampling, None)
    for wrong in ({"blocks": 0}, {"iterations": 0}, {"consistency": "magic"}):
        with pytest.raises(UsageError):
            UnrolledOptions(**wrong)  # type: ignore[arg-type]
    for channels, depth in (((7, 8), (1, 1)), ((8, 8), (0, 1))):
        with pytest.raises(UsageError):
            TemporalPrior(PriorOptions(channels, depth))


def test_images_by_another_method_are_seen() -> None:
    problem, start = a_problem()
    network = a_network().eval()
    with torch.no_grad():
        alone, beside_itself, beside = (
            network(problem, start),
            network(problem, start, start),
            network(problem, start, problem.right),
        )
    torch.testing.assert_close(alone, beside_itself)
    assert float((beside - alone).abs().max()) > 1e-3
