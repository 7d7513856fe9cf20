from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.recon.cg_sense import CgSense
from kspace.recon.low_rank_sparse import LowRankSparse, shrink_rank, shrink_spectrum
from kspace.recon.method import Reconstruction
from kspace.recon.proximal import Scaled

TO_THE_END = {"tolerance": 0.0, "noise_share": 0.0}


def objective(case: Any, method: LowRankSparse, found: Reconstruction, noise_std: float) -> float:
    """What is minimised, over the mean diagonal, from the sums alone."""
    equations = case.equations(dtype=torch.complex128)
    scaled = Scaled(equations, case.maps.to(torch.complex128), noise_std)
    low, sparse = (part.to(torch.complex128) for part in found.state)
    weight = scaled.threshold(method.noise_factor, method.signal_factor)
    rank_weight = method.rank_factor * weight * (math.sqrt(math.prod(case.matrix)) + math.sqrt(case.n_frames))
    misfit = float(equations.data_misfit(low + sparse, case.maps.to(torch.complex128)).sum()) / 2 / scaled.scale
    spectrum = torch.fft.fft(sparse, dim=0, norm="ortho").abs().sum()
    return misfit + rank_weight * float(torch.linalg.svdvals(low.flatten(1)).sum()) + weight * float(spectrum)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 6), st.integers(1, 19), st.integers(1, 9), st.floats(0, 5))
def test_both_proximal_operators_are_what_they_say(frames: int, rows: int, columns: int, take: float) -> None:
    generator = torch.Generator().manual_seed(frames + 7 * rows)
    images = torch.randn(frames, rows, columns, 2, generator=generator, dtype=torch.float64)
    x = torch.view_as_complex(images)
    u, s, vh = torch.linalg.svd(x.flatten(1), full_matrices=False)
    low = x.clone()
    shrink_rank(low, take)
    assert float((low.flatten(1) - (u * (s - take).clamp_min(0)) @ vh).abs().max()) < 1e-6
    spectrum = torch.fft.fft(x, dim=0, norm="ortho")
    shrunk = torch.polar((spectrum.abs() - take).clamp_min(0), spectrum.angle())
    sparse = x.clone()
    shrink_spectrum(sparse, take)
    assert torch.allclose(sparse, torch.fft.ifft(shrunk, dim=0, norm="ortho"))


def test_the_objective_falls_to_where_a_plain_method_ends(make_case: Any) -> None:
    case = make_case(matrix=(8, 7), n_frames=4, n_coils=2, noise_std=0.1)
    equations, maps = case.equations(dtype=torch.complex128), case.maps.to(torch.complex128)
    method = LowRankSparse(**TO_THE_END)
    values = []
    for n in (1, 10, 60, 250):
        found = replace(method, max_iterations=n)(equations, maps, noise_std=0.1)
        values.append(objective(case, method, found, 0.1))
    assert values[0] > values[1] > values[2] > values[3] - 1e-9 * values[3]
    assert values[2] / values[3] - 1 < 0.2
    # Plain proximal gradients, without momentum, from what was found: nothing is left to gain.
    scaled = Scaled(equations, maps, 0.1)
    weight = scaled.threshold(method.noise_factor, method.signal_factor)
    rank_weight = method.rank_factor * weight * (math.sqrt(math.prod(case.matrix)) + math.sqrt(case.n_frames))
    step = 0.5 / (1.1 * scaled.lipschitz())
    low, sparse = (part.clone() for part in found.state)
    for _ in range(100):
        gradient = equations.normal(low + sparse, maps) / scaled.scale - scaled.b
        low -= step * gradient
        sparse -= step * gradient
        shrink_rank(low, step * rank_weight)
        shrink_spectrum(sparse, step * weight)
    slow = objective(case, method, Reconstruction(low + sparse, state=(low, sparse)), 0.1)
    assert values[3] == pytest.approx(slow, rel=1e-4)


def low_rank_case(make_case: Any, n_frames: int = 12) -> Any:
    """A background and one pattern that comes and goes: rank two. The samples are made anew from it."""
    return make_case(n_frames=n_frames, matrix=(24, 22), n_coils=4, spokes_per_frame=4, noise_std=0.02)


def test_a_beating_heart_is_recovered_from_few_spokes(make_case: Any, check: Any) -> None:
    case = low_rank_case(make_case)
    equations = case.equations()
    plain = check.relative_error(CgSense()(equations, case.maps, noise_std=0.02).image, case.images)
    got = check.relative_error(LowRankSparse()(equations, case.maps, noise_std=0.02).image, case.images)
    assert got < 0.6 * plain


def test_the_state_is_the_two_parts_of_the_image(make_case: Any, check: Any) -> None:
    case = make_case(n_frames=6, noise_std=0.05)
    found = LowRankSparse()(case.equations(), case.maps, noise_std=0.05)
    assert len(found.state) == 2
    check.close(found.state[0] + found.state[1], found.image, 1e-6)
    huge = LowRankSparse(rank_factor=1e6)(case.equations(), case.maps, noise_std=0.05)
    assert float(huge.state[0].abs().max()) == 0


def test_a_warm_start_reaches_the_cold_solution_and_changes_nothing_it_was_given(make_case: Any, check: Any) -> None:
    case = make_case(n_frames=4, spokes_per_frame=16, noise_std=0.05)
    method = LowRankSparse(**TO_THE_END, max_iterations=120)
    before = LowRankSparse()(case.equations(n_spokes=56), case.maps, noise_std=0.05)
    kept: list[Tensor] = [part.clone() for part in before.state]
    cold = method(case.equations(), case.maps, noise_std=0.05)
    check.close(method(case.equations(), case.maps, noise_std=0.05, start=before).image, cold.image, 1e-2)
    other = CgSense()(case.equations(), case.maps, noise_std=0.05)
    check.close(method(case.equations(), case.maps, noise_std=0.05, start=other).image, cold.image, 1e-2)
    assert all(torch.equal(part, copy) for part, copy in zip(before.state, kept, strict=True))
