from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from kspace.equations import Density
from kspace.recon.cg_sense import CgSense
from kspace.recon.preconditioner import Circulant

DENSITIES: tuple[Density, ...] = get_args(Density)


def least_squares(case: Any, density: Density, l2: float) -> Tensor:
    """(frame, y, x) complex128, from the dense matrix."""
    images = []
    for frame in range(case.n_frames):
        matrix, samples = case.dense(frame, density)
        hessian = matrix.mH @ matrix
        damping = l2 * hessian.diagonal().real.mean()
        solution = torch.linalg.solve(hessian + damping * torch.eye(len(hessian)), matrix.mH @ samples)
        images.append(solution.reshape(case.matrix))
    return torch.stack(images)


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("l2", [0.0, 0.02, 1.0])
@pytest.mark.parametrize(
    "sizes",
    [
        {"matrix": (8, 7), "n_frames": 2, "n_coils": 3, "spokes_per_frame": 12},
        {"matrix": (7, 9), "n_frames": 1, "n_coils": 1, "spokes_per_frame": 15},
    ],
)
def test_it_converges_to_the_dense_least_squares_solution(
    sizes: dict[str, Any], l2: float, density: Density, make_case: Any, check: Any
) -> None:
    case = make_case(**sizes, noise_std=0.1)
    expected = least_squares(case, density, l2)
    double = CgSense(l2=l2, max_iterations=400, tolerance=1e-11, density=density)
    equations = case.equations(density=density, dtype=torch.complex128)
    got = double(equations, case.maps.to(torch.complex128))
    check.close(got.image, expected, 1e-6)
    assert got.change <= 1e-11
    single = CgSense(l2=l2, max_iterations=200, tolerance=1e-6, density=density)
    check.close(single(case.equations(density=density), case.maps).image, expected, 3e-3)


def test_few_spokes_are_completed_by_damping(make_case: Any, check: Any) -> None:
    case = make_case(matrix=(8, 7), n_frames=2, spokes_per_frame=1, noise_std=0.1)
    method = CgSense(max_iterations=400, tolerance=1e-11)
    got = method(case.equations(dtype=torch.complex128), case.maps.to(torch.complex128))
    check.close(got.image, least_squares(case, "ramp", method.l2), 1e-6)


def test_the_change_is_the_relative_residual_in_the_norm_of_the_preconditioner(make_case: Any) -> None:
    case = make_case(noise_std=0.05)
    equations = case.equations(dtype=torch.complex128)
    maps = case.maps.to(torch.complex128)
    changes: list[float] = []
    for tolerance in (3e-3, 0.0):
        method = CgSense(max_iterations=7, tolerance=tolerance)
        got = method(equations, maps, on_iteration=lambda status: changes.append(status.change))
        b = equations.right_hand_side(maps)
        damping = method.l2 * equations.weight
        left = b - equations.normal(got.image, maps) - damping[:, None, None] * got.image
        everything = slice(0, case.n_frames)
        circulant = Circulant(maps, equations.spectrum, damping, equations.weight, [everything])
        energies = [(v.conj() * circulant(v, everything)).real.sum((-2, -1)) for v in (left, b)]
        assert got.change == pytest.approx(float((energies[0] / energies[1]).sqrt().max()), rel=1e-6)
        assert changes[-1] == got.change


def test_noise_ends_it_earlier_and_leaves_less_error_than_noise(make_case: Any, check: Any) -> None:
    case = make_case(n_frames=3, spokes_per_frame=16, noise_std=0.05)
    equations, clean = case.equations(), make_case(n_frames=3, spokes_per_frame=16, noise_std=0.0).equations()
    exact = CgSense(tolerance=1e-6)(equations, case.maps)
    noise = check.relative_error(CgSense(tolerance=1e-6)(clean, case.maps).image, exact.image)
    stopped = CgSense()(equations, case.maps, noise_std=0.05)
    assert stopped.iterations < exact.iterations
    assert check.relative_error(stopped.image, exact.image) < 0.5 * noise


def test_it_stops_at_its_tolerance_and_at_its_limit(make_case: Any) -> None:
    case = make_case(spokes_per_frame=10, noise_std=0.05)
    equations = case.equations()
    loose, tight = (CgSense(tolerance=t, max_iterations=60)(equations, case.maps) for t in (1e-2, 1e-4))
    assert loose.change <= 1e-2
    assert tight.change <= 1e-4
    assert 0 < loose.iterations < tight.iterations < 60
    assert CgSense(tolerance=1e-9, max_iterations=5)(equations, case.maps).iterations == 5


def test_a_warm_start_reaches_the_goal_in_fewer_iterations(make_case: Any, check: Any) -> None:
    case = make_case(n_frames=3, spokes_per_frame=16, noise_std=0.05)
    method = CgSense(max_iterations=100)
    before = method(case.equations(n_spokes=42), case.maps)
    equations = case.equations()
    cold = method(equations, case.maps)
    warm = method(equations, case.maps, start=before)
    assert warm.iterations < cold.iterations
    assert warm.change <= method.tolerance
    check.close(warm.image, cold.image, 0.02)
    finished = method(equations, case.maps, start=warm)
    assert finished.iterations == 0
    assert torch.equal(finished.image, warm.image)


def test_a_start_is_not_written_to(make_case: Any) -> None:
    case = make_case(noise_std=0.05)
    before = CgSense(max_iterations=2)(case.equations(n_spokes=12), case.maps)
    kept = before.image.clone()
    CgSense()(case.equations(), case.maps, start=before)
    assert torch.equal(before.image, kept)


def test_one_frame_does_not_wait_for_what_another_needs(make_case: Any, check: Any) -> None:
    case = make_case(n_frames=2, spokes_per_frame=8, noise_std=0.05)
    together = CgSense(max_iterations=200, tolerance=1e-6)(case.equations(), case.maps).image
    for frame in range(2):
        alone = case.equations()
        mine = case.frame != frame
        alone.remove(case.samples[mine].to(torch.complex64), case.positions[mine], case.frame[mine])
        image = CgSense(max_iterations=200, tolerance=1e-6)(alone, case.maps).image
        check.close(image[frame], together[frame], 1e-4)
        assert float(image[1 - frame].abs().sum()) == 0
