from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.recon.cg_sense import CgSense
from kspace.recon.locally_low_rank import LocallyLowRank, shrink_patches
from kspace.recon.low_rank_sparse import shrink_rank
from kspace.recon.proximal import Scaled

TO_THE_END = {"tolerance": 0.0, "noise_share": 0.0}


def tiles(length: int, patch: int, shift: int) -> list[slice]:
    edges = [max(edge, 0) for edge in range(-shift, length + patch, patch)]
    return [slice(a, min(b, length)) for a, b in pairwise(edges) if a < length and b > 0]


def direct(images: Tensor, threshold: float, patch: int, shift: tuple[int, int]) -> Tensor:
    """Patch by patch, by singular vectors."""
    result = images.clone()
    for rows in tiles(images.shape[1], patch, shift[0]):
        for columns in tiles(images.shape[2], patch, shift[1]):
            part = images[:, rows, columns]
            u, s, vh = torch.linalg.svd(part.flatten(1), full_matrices=False)
            result[:, rows, columns] = ((u * (s - threshold).clamp_min(0)) @ vh).reshape(part.shape)
    return result


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 17), st.integers(1, 14), st.integers(1, 6), st.floats(0, 5), st.data())
def test_every_patch_loses_the_threshold_from_its_singular_values(
    frames: int, rows: int, columns: int, patch: int, take: float, data: st.DataObject
) -> None:
    shift = (data.draw(st.integers(0, patch - 1)), data.draw(st.integers(0, patch - 1)))
    generator = torch.Generator().manual_seed(rows)
    x = torch.view_as_complex(torch.randn(frames, rows, columns, 2, generator=generator, dtype=torch.float64))
    got = x.clone()
    shrink_patches(got, take, patch, shift)
    assert float((got - direct(x, take, patch, shift)).abs().max()) < 1e-6


def test_one_patch_over_all_is_the_whole_matrix() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.view_as_complex(torch.randn(5, 9, 7, 2, generator=generator))
    whole, patched = x.clone(), x.clone()
    shrink_rank(whole, 2.0)
    shrink_patches(patched, 2.0, 16)
    assert torch.allclose(whole, patched, atol=1e-5)


def test_the_objective_over_all_places_of_the_patches_falls(make_case: Any) -> None:
    case = make_case(matrix=(12, 10), n_frames=4, noise_std=0.1)
    equations, maps = case.equations(dtype=torch.complex128), case.maps.to(torch.complex128)
    method = LocallyLowRank(**TO_THE_END, patch=4)
    scaled = Scaled(equations, maps, 0.1)
    weight = scaled.threshold(method.noise_factor, method.signal_factor) * (4 + math.sqrt(4))

    def objective(x: Tensor) -> float:
        total = 0.0
        for shift in ((a, b) for a in range(4) for b in range(4)):
            for rows in tiles(12, 4, shift[0]):
                for columns in tiles(10, 4, shift[1]):
                    total += float(torch.linalg.svdvals(x[:, rows, columns].flatten(1)).sum()) / 16
        return float(equations.data_misfit(x, maps).sum()) / 2 / scaled.scale + weight * total

    values = [
        objective(replace(method, max_iterations=n)(equations, maps, noise_std=0.1).image) for n in (1, 5, 20, 100)
    ]
    assert values[0] > values[1] > values[2]
    # The places take turns, so that the end is not a point but a small circle around one.
    assert values[3] < 1.002 * values[2]


def test_a_beating_heart_is_recovered_from_few_spokes(make_case: Any, check: Any) -> None:
    case = make_case(n_frames=12, matrix=(24, 22), n_coils=4, spokes_per_frame=4, noise_std=0.02)
    equations = case.equations()
    plain = check.relative_error(CgSense()(equations, case.maps, noise_std=0.02).image, case.images)
    got = check.relative_error(LocallyLowRank()(equations, case.maps, noise_std=0.02).image, case.images)
    assert got < 0.6 * plain


def test_a_warm_start_reaches_the_cold_solution_and_changes_nothing_it_was_given(make_case: Any, check: Any) -> None:
    case = make_case(n_frames=4, spokes_per_frame=8, noise_std=0.05)
    method = LocallyLowRank(**TO_THE_END, max_iterations=100)
    before = LocallyLowRank()(case.equations(n_spokes=24), case.maps, noise_std=0.05)
    kept = before.image.clone()
    cold = method(case.equations(), case.maps, noise_std=0.05)
    check.close(method(case.equations(), case.maps, noise_std=0.05, start=before).image, cold.image, 1e-2)
    assert torch.equal(before.image, kept)


def test_the_same_data_give_the_same_images(make_case: Any) -> None:
    case = make_case(noise_std=0.05)
    method = LocallyLowRank()
    first, second = (method(case.equations(), case.maps, noise_std=0.05).image for _ in range(2))
    assert torch.equal(first, second)
