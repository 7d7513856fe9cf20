from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.recon.cg_sense import CgSense
from kspace.recon.low_rank_sparse import LowRankSparse
from kspace.recon.proximal import Scaled, descend, shrinkage, soft

TINY = {"matrix": (6, 5), "n_frames": 4, "n_coils": 2, "spokes_per_frame": 3, "noise_std": 0.3}


def random_complex(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 2, generator=generator, dtype=torch.float64).view(torch.complex128)[..., 0]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 12), st.floats(0, 6), st.integers(0, 99))
def test_shrinkage_takes_the_threshold_off_the_singular_values(rows: int, columns: int, take: float, seed: int) -> None:
    x = random_complex(rows, columns, seed=seed)
    u, s, vh = torch.linalg.svd(x, full_matrices=False)
    expected = (u * (s - take).clamp_min(0)) @ vh
    got = shrinkage(x @ x.mH, take) @ x
    assert float((got - expected).abs().max()) < 1e-6


def test_shrinkage_works_on_many_matrices_and_keeps_single_precision() -> None:
    x = random_complex(5, 4, 9).to(torch.complex64)
    got = shrinkage(x @ x.mH, 1.5)
    assert got.dtype == torch.complex64
    for one, product in zip(x, got, strict=True):
        assert torch.allclose(product, shrinkage(one @ one.mH, 1.5), atol=1e-6)


def test_shrinking_nothing_and_shrinking_by_nothing_are_finite() -> None:
    nought = torch.zeros(3, 3, dtype=torch.complex64)
    assert float(shrinkage(nought, 1.0).abs().sum()) == 0
    assert bool(torch.isfinite(shrinkage(nought, 0.0).abs()).all())
    x = random_complex(3, 8)
    assert torch.allclose(shrinkage(x @ x.mH, 0.0) @ x, x)


def test_soft_keeps_the_phase_and_takes_the_threshold_off_the_size() -> None:
    values = random_complex(50)
    expected = torch.polar((values.abs() - 0.7).clamp_min(0), values.angle())
    assert torch.allclose(soft(values.clone(), 0.7), expected)
    assert torch.equal(soft(torch.zeros(3, dtype=torch.complex64), 0.0), torch.zeros(3, dtype=torch.complex64))


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_without_a_penalty_the_sum_of_the_components_is_least_squares(
    n_components: int, make_case: Any, check: Any
) -> None:
    case = make_case(**TINY | {"spokes_per_frame": 10, "n_coils": 3})
    equations, maps = case.equations(dtype=torch.complex128), case.maps.to(torch.complex128)
    start = torch.zeros(n_components, *case.images.shape, dtype=torch.complex128)
    got = descend(
        Scaled(equations, maps, None), start, lambda *_: None, max_iterations=150, goal=0.0, on_iteration=None
    )
    check.close(got.image, CgSense(l2=0.0, max_iterations=100, tolerance=1e-6)(equations, maps).image, 1e-2)
    assert len(got.state) == n_components


def test_a_frame_steeper_than_those_looked_at_does_no_harm(make_case: Any) -> None:
    """The Lanczos estimate looks at three frames of this case and misses the steepest by a tenth."""
    case = make_case(**TINY)
    equations, maps = case.equations(dtype=torch.complex128), case.maps.to(torch.complex128)
    method = LowRankSparse(tolerance=0.0, noise_share=0.0, max_iterations=300)
    got = method(equations, maps, noise_std=0.3)
    assert float(torch.linalg.vector_norm(got.image)) < 2 * float(torch.linalg.vector_norm(case.images))


def test_the_units_are_those_of_the_image(make_case: Any) -> None:
    case = make_case(matrix=(12, 10), noise_std=0.1)
    equations = case.equations()
    scaled = Scaled(equations, case.maps, 0.1)
    assert scaled.noise == pytest.approx(equations.noise_in_image(0.1))
    assert scaled.threshold(2.0, 0.5) == pytest.approx(2 * scaled.noise + 0.5 * scaled.streaks)
    assert Scaled(equations, case.maps, None).noise == 0
    assert scaled.level == pytest.approx(float(case.images.abs().square().mean().sqrt()), rel=0.4)
