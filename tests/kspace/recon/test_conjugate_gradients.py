from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kspace.recon.conjugate_gradients import Solution, solve

N_FRAMES, SIZE = 3, (5, 4)


def problem() -> tuple[Tensor, Tensor]:
    """Hermitian positive matrices (frame, pixel, pixel) and right-hand sides (frame, y, x), float64."""
    generator = torch.Generator().manual_seed(0)
    n = SIZE[0] * SIZE[1]
    roots = torch.randn(N_FRAMES, n, n, dtype=torch.complex128, generator=generator)
    matrices = roots @ roots.mH / n + torch.eye(n)
    return matrices, torch.randn(N_FRAMES, *SIZE, dtype=torch.complex128, generator=generator)


def solved(
    matrices: Tensor, right: Tensor, parts: list[slice], start: Tensor | None = None, most: int = 60
) -> Solution:
    diagonal = matrices.diagonal(dim1=1, dim2=2).real.reshape(N_FRAMES, *SIZE)

    def apply(images: Tensor, frames: slice) -> Tensor:
        return (matrices[frames] @ images.flatten(1)[..., None]).reshape(images.shape)

    return solve(
        apply, right, start, parts, tolerance=1e-12, goal=torch.zeros(N_FRAMES, dtype=torch.float64),
        preconditioner=lambda images, frames: images / diagonal[frames], max_iterations=most,
    )  # fmt: skip


PARTS = {"one by one": [slice(f, f + 1) for f in range(N_FRAMES)], "all at once": [slice(0, N_FRAMES)]}


@pytest.mark.parametrize("how", PARTS)
@pytest.mark.parametrize("warm", [False, True])
def test_it_finds_the_solution_however_the_frames_are_cut(how: str, warm: bool, check: Any) -> None:
    matrices, right = problem()
    exact = torch.linalg.solve(matrices, right.flatten(1)).reshape(right.shape)
    found = solved(matrices, right, PARTS[how], start=0.5 * exact if warm else None)
    check.close(found.image, exact, 1e-9)
    assert 0 < found.iterations < 60
    assert found.residual < 1e-11


def test_every_iterate_is_the_same_one_by_one_and_all_at_once(check: Any) -> None:
    matrices, right = problem()
    for most in (1, 2, 5):
        one, all_ = (solved(matrices, right, parts, most=most).image for parts in PARTS.values())
        check.close(one, all_, 1e-12)


def test_views_are_solved_like_what_they_show(check: Any) -> None:
    matrices, right = problem()
    shown = right.conj()
    strided = right.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert shown.is_conj()
    assert not strided.is_contiguous()
    for view in (shown, strided):
        for start in (None, view):
            copied = None if start is None else start.resolve_conj().contiguous()
            expected = solved(matrices, view.resolve_conj().contiguous(), PARTS["one by one"], copied)
            check.close(solved(matrices, view, PARTS["one by one"], start).image, expected.image, 1e-12)
