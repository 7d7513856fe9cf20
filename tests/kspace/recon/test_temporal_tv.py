from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from kspace.equations import NormalEquations
from kspace.recon.cg_sense import CgSense
from kspace.recon.temporal_tv import TemporalTV, largest_eigenvalue, shrink_differences

TINY = {"matrix": (6, 5), "n_frames": 4, "n_coils": 2, "spokes_per_frame": 3, "noise_std": 0.3}


def objective(case: Any, images: Tensor, threshold: float) -> float:
    """1/2 |W^(1/2) (E x - s)|^2 + lambda sum |x_(f+1) - x_f|, by the dense matrix."""
    x = images.to(torch.complex128)
    variation = (torch.roll(x, -1, 0) - x).abs().sum()
    misfit = 0.0
    for frame in range(case.n_frames):
        matrix, samples = case.dense(frame)
        misfit += 0.5 * float((matrix @ x[frame].flatten() - samples).abs().square().sum())
    return misfit + threshold * float(variation)


def slow_minimiser(case: Any, threshold: float, n_iterations: int = 2000) -> Tensor:
    """ADMM with dense matrices in float64; its optimality conditions are checked before it is believed."""
    dense = [case.dense(frame) for frame in range(case.n_frames)]
    hessian = torch.block_diag(*[matrix.mH @ matrix for matrix, _ in dense])
    b = torch.cat([matrix.mH @ samples for matrix, samples in dense])
    turn = torch.roll(torch.eye(case.n_frames, dtype=torch.complex128), 1, 1)
    pixels = math.prod(case.matrix)
    difference = torch.kron(turn - torch.eye(case.n_frames), torch.eye(pixels, dtype=torch.complex128))
    rho = float(hessian.diagonal().real.mean())
    factor = torch.linalg.cholesky(hessian + rho * difference.mH @ difference)
    z, u = torch.zeros_like(b), torch.zeros_like(b)
    for _ in range(n_iterations):
        right = b + rho * (difference.mH @ (z - u))
        x = torch.cholesky_solve(right[:, None], factor)[:, 0]
        moved = difference @ x + u
        z = moved * (1 - threshold / rho / moved.abs().clamp_min(1e-30)).clamp_min(0)
        u = moved - z
    dual = rho * u
    gradient = hessian @ x - b + difference.mH @ dual
    assert float(gradient.norm() / b.norm()) < 1e-6
    assert float(dual.abs().max()) <= threshold * (1 + 1e-9)
    gap = threshold * (difference @ x).abs().sum() - (dual.conj() * (difference @ x)).real.sum()
    assert float(gap) < 1e-6 * float(b.norm()) ** 2 / rho
    return x.reshape(case.images.shape)


def following_noise(equations: NormalEquations, threshold: float) -> tuple[TemporalTV, float]:
    """A method whose lambda is a number of our choice, in the objective's unit, and the noise that makes it so."""
    noise_std = threshold / equations.scale / equations.noise_in_image(1.0)
    return TemporalTV(noise_factor=1.0, signal_factor=0.0, tolerance=0.0, noise_share=0.0), noise_std


@pytest.mark.parametrize("share", [0.02, 0.2, 5.0])
def test_it_goes_down_to_the_value_that_an_independent_solver_finds(share: float, make_case: Any, check: Any) -> None:
    case = make_case(**TINY)
    equations, maps = case.equations(dtype=torch.complex128), case.maps.to(torch.complex128)
    threshold = share * equations.scale
    method, noise_std = following_noise(equations, threshold)
    expected = slow_minimiser(case, threshold)
    best = objective(case, expected, threshold)
    excess = []
    for n in (1, 10, 100, 1000):
        got = replace(method, max_iterations=n)(equations, maps, noise_std=noise_std)
        excess.append(objective(case, got.image, threshold) / best - 1)
    assert excess[0] > excess[1] > excess[2] > excess[3] - 1e-9
    assert -1e-9 < excess[3] < 1e-6
    check.close(got.image, expected, 1e-3)


def test_single_precision_reaches_the_same_value(make_case: Any) -> None:
    case = make_case(**TINY)
    equations = case.equations()
    threshold = 0.2 * equations.scale
    method, noise_std = following_noise(equations, threshold)
    got = replace(method, max_iterations=600)(equations, case.maps, noise_std=noise_std)
    best = objective(case, slow_minimiser(case, threshold), threshold)
    assert objective(case, got.image, threshold) == pytest.approx(best, rel=1e-4)


def test_the_default_iterations_come_close_at_a_usual_lambda(make_case: Any) -> None:
    case = make_case(**TINY | {"spokes_per_frame": 6})
    equations = case.equations()
    threshold = 0.05 * equations.scale
    method, noise_std = following_noise(equations, threshold)
    best = objective(case, slow_minimiser(case, threshold), threshold)
    first = objective(
        case, replace(method, max_iterations=1)(equations, case.maps, noise_std=noise_std).image, threshold
    )
    last = objective(case, method(equations, case.maps, noise_std=noise_std).image, threshold)
    assert last - best < 0.05 * (first - best)


def test_without_lambda_it_is_least_squares(make_case: Any, check: Any) -> None:
    case = make_case(**TINY | {"spokes_per_frame": 10, "n_coils": 3})
    method = TemporalTV(noise_factor=0.0, signal_factor=0.0, tolerance=0.0, noise_share=0.0, max_iterations=1000)
    expected = CgSense(l2=0.0, max_iterations=500, tolerance=1e-10)
    equations, maps = case.equations(dtype=torch.complex128), case.maps.to(torch.complex128)
    check.close(method(equations, maps, noise_std=0.3).image, expected(equations, maps).image, 1e-3)
    single = case.equations()
    check.close(method(single, case.maps, noise_std=0.3).image, expected(equations, maps).image, 3e-3)


def test_a_large_lambda_makes_all_frames_the_same(make_case: Any) -> None:
    case = make_case(**TINY)
    equations = case.equations()
    method, noise_std = following_noise(equations, 50 * equations.scale)
    image = replace(method, max_iterations=400)(equations, case.maps, noise_std=noise_std).image
    assert float((image - image.mean(0)).abs().max()) < 1e-3 * float(image.abs().max())


def test_lambda_follows_noise_and_signal(make_case: Any) -> None:
    case = make_case(matrix=(8, 8), noise_std=0.1)
    equations = case.equations()
    run = {"max_iterations": 5, "tolerance": 0.0, "noise_share": 0.0}
    by_noise, by_signal = TemporalTV(signal_factor=0.0, **run), TemporalTV(noise_factor=0.0, **run)

    def image(method: TemporalTV, noise_std: float | None) -> Tensor:
        return method(equations, case.maps, noise_std=noise_std).image

    assert not torch.equal(image(by_noise, 0.1), image(by_noise, 0.2))
    assert torch.equal(image(by_noise, 0.2), image(replace(by_noise, noise_factor=2.0), 0.1))
    assert torch.equal(image(by_noise, None), image(replace(by_noise, noise_factor=0.0), 0.1))
    assert torch.equal(image(by_signal, 0.1), image(by_signal, 7.0))
    assert not torch.equal(image(by_signal, None), image(replace(by_signal, signal_factor=0.02), None))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 100.0])
def test_differences_shrink_to_the_least_of_distance_and_variation(threshold: float, make_noise: Any) -> None:
    before = make_noise(5, 3, 9, dtype=torch.complex128)
    images, dual = before.clone(), torch.zeros(2, 5, 3, 9, dtype=torch.float64)
    shrink_differences(images, dual, threshold, 2000)
    if threshold == 0.0:
        assert torch.equal(images, before)
        return
    # The gap between the primal and the dual value bounds the distance from the minimiser.
    slopes = torch.roll(images, -1, 0) - images
    y = threshold * torch.complex(dual[0], dual[1])
    assert float(y.abs().max()) <= threshold * (1 + 1e-9)
    assert float((images - (before + y - torch.roll(y, 1, 0))).abs().max()) < 1e-9
    gap = threshold * slopes.abs().sum() - (y.conj() * -slopes).real.sum().abs()
    assert abs(float(gap)) < 1e-5 * float(before.abs().sum())


# Use


def test_a_warm_start_goes_on_where_it_ended(make_case: Any) -> None:
    case = make_case(**TINY)
    equations = case.equations()
    threshold = 0.2 * equations.scale
    method, noise_std = following_noise(equations, threshold)
    method = replace(method, max_iterations=20, warm_share=1.0)
    half = method(equations, case.maps, noise_std=noise_std)
    kept = half.image.clone(), half.state[0].clone()
    resumed = method(equations, case.maps, noise_std=noise_std, start=half)
    assert objective(case, resumed.image, threshold) < objective(case, half.image, threshold)
    # Momentum starts anew, so that the way differs from that of 40 iterations in one go; how far it leads does not.
    whole = replace(method, max_iterations=40)(equations, case.maps, noise_std=noise_std)
    ends = [objective(case, image, threshold) for image in (half.image, whole.image, resumed.image)]
    assert ends[2] - ends[1] <= 0.02 * abs(ends[1]), ends
    assert torch.equal(half.image, kept[0])
    assert torch.equal(half.state[0], kept[1])


def test_a_warm_start_reaches_the_goal_in_fewer_iterations(make_case: Any) -> None:
    case = make_case(n_frames=4, spokes_per_frame=16, noise_std=0.05)
    method = TemporalTV(max_iterations=200, warm_share=1.0)
    before = method(case.equations(n_spokes=56), case.maps)
    cold = method(case.equations(), case.maps)
    warm = method(case.equations(), case.maps, start=before)
    assert warm.iterations < cold.iterations < 200
    assert warm.change < method.tolerance


def test_a_decision_costs_a_third_of_the_iterations_and_no_search_for_the_step(
    make_case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case(n_frames=4, spokes_per_frame=16, noise_std=0.05)
    exact = TemporalTV(tolerance=0.0)
    before = exact(case.equations(n_spokes=48), case.maps)
    assert before.iterations == exact.max_iterations

    def never(*_: Any, **__: Any) -> float:
        raise AssertionError("the eigenvalue was sought again")

    monkeypatch.setattr("kspace.recon.proximal.largest_eigenvalue", never)
    after = exact(case.equations(), case.maps, start=before)
    assert after.iterations == exact.max_iterations // 3
    assert after.cold_iterations == exact.max_iterations
    assert 0.8 < after.steepness / before.steepness < 1.25


def test_decision_after_decision_comes_as_near_to_the_truth_as_cold_starts(make_case: Any) -> None:
    case, noise_std = make_case(n_frames=6, matrix=(40, 36), n_coils=4, spokes_per_frame=40, noise_std=0.2), 0.2

    def error(image: torch.Tensor) -> float:
        return float(torch.linalg.vector_norm(image - case.images) / torch.linalg.vector_norm(case.images))

    method, last = TemporalTV(), None
    for spokes in (8, 12, 16, 20, 24, 28, 32, 36, 40):
        equations = case.equations(n_spokes=6 * spokes)
        last = method(equations, case.maps, noise_std=noise_std, start=last)
        cold = method(equations, case.maps, noise_std=noise_std)
        assert error(last.image) < 1.1 * error(cold.image), spokes


def test_what_is_mostly_new_starts_anew(make_case: Any) -> None:
    case = make_case(n_frames=4, spokes_per_frame=16, noise_std=0.05)
    method = TemporalTV()
    few = method(case.equations(n_spokes=24), case.maps)
    cold, warm = (method(case.equations(), case.maps, start=start) for start in (None, few))
    assert torch.equal(cold.image, warm.image)


def test_another_methods_image_can_be_started_from(make_case: Any, check: Any) -> None:
    case = make_case(**TINY)
    equations = case.equations()
    method = TemporalTV(tolerance=0.0, noise_share=0.0, max_iterations=500)
    start = CgSense()(equations, case.maps)
    check.close(method(equations, case.maps, start=start).image, method(equations, case.maps).image, 0.02)


# The step


@pytest.mark.parametrize("density", ["ramp", "none"])
def test_the_largest_eigenvalue_is_found_a_few_per_cent_above(density: Any, make_case: Any) -> None:
    case = make_case(noise_std=0.05)
    exact = max(float(torch.linalg.matrix_norm(case.dense(frame, density)[0], 2)) ** 2 for frame in range(3))
    found = largest_eigenvalue(case.equations(density=density), case.maps)
    assert exact < found < 1.06 * exact


def test_without_signal_or_spokes_there_is_still_an_eigenvalue(make_case: Any) -> None:
    case = make_case()
    exact = max(float(torch.linalg.matrix_norm(case.dense(frame)[0], 2)) ** 2 for frame in range(3))
    assert exact < largest_eigenvalue(case.equations(scale=0), case.maps) < 1.06 * exact
    assert largest_eigenvalue(case.equations(n_spokes=0), case.maps) == 0


def test_a_frame_steeper_than_those_looked_at_does_no_harm(make_case: Any, check: Any) -> None:
    case = make_case(**TINY)
    equations, maps = case.equations(dtype=torch.complex128), case.maps.to(torch.complex128)
    exact = max(float(torch.linalg.matrix_norm(case.dense(frame)[0], 2)) ** 2 for frame in range(4))
    assert largest_eigenvalue(equations, maps) < 0.9 * exact
    method = TemporalTV(tolerance=0.0, noise_share=0.0)
    short, long = (replace(method, max_iterations=n)(equations, maps).image for n in (30, 600))
    size = float(torch.linalg.vector_norm(case.images))
    assert float(torch.linalg.vector_norm(short)) < 2 * size
    assert float(torch.linalg.vector_norm(long)) < 2 * size
