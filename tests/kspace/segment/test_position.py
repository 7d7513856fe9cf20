from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import ShapeError
from kspace.segment.position import ordered_positions
from kspace.segment.segmentation import SlicePosition

N, B, M, A = SlicePosition


def allowed(path: tuple[SlicePosition, ...]) -> bool:
    """From base to apex, or the other way round, with no heart at either end only."""

    def one_way(p: tuple[SlicePosition, ...]) -> bool:
        inner = [k for k, v in enumerate(p) if v is not N]
        if not inner:
            return True
        middle = p[inner[0] : inner[-1] + 1]
        return N not in middle and list(middle) == sorted(middle)

    return one_way(path) or one_way(path[::-1])


@given(st.integers(1, 5), st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_best_of_all_allowed_orders_is_found(n: int, seed: int) -> None:
    p = torch.rand(n, 4, generator=torch.Generator().manual_seed(seed)).softmax(1)

    def log(path: tuple[SlicePosition, ...]) -> float:
        return float(sum(p[k, v].log() for k, v in enumerate(path)))

    best = max(log(path) for path in itertools.product(SlicePosition, repeat=n) if allowed(path))
    got = ordered_positions(p)
    assert allowed(got)
    assert log(got) == pytest.approx(best, abs=1e-4)


def test_one_slice_that_looks_wrong_is_put_right() -> None:
    p = torch.full((5, 4), 0.01)
    for k, v in enumerate((B, M, N, M, A)):
        p[k, v] = 0.6
    p[2, M] = 0.3
    assert ordered_positions(p) == (B, M, M, M, A)
    assert ordered_positions(p.flip(0)) == (A, M, M, M, B)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError):
        ordered_positions(torch.ones(3, 3))
