from __future__ import annotations

from typing import Any

import pytest
import torch

from kspace.errors import InputError, ShapeError, UsageError
from kspace.region_coils import region_matrix


def seen(matrix: torch.Tensor, images: torch.Tensor, region: torch.Tensor) -> float:
    return float((matrix @ images[:, region]).abs().square().sum())


@pytest.fixture
def scene(make_noise: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Six coils, of which two see the region to keep alone and a bright arm drowns the others."""
    keep, suppress = torch.zeros(2, 20, 20, dtype=torch.bool)
    keep[5:10, 5:10], suppress[:, 15:] = True, True
    mixing = torch.linalg.qr(make_noise(6, 6, dtype=torch.complex128)).Q
    images = torch.zeros(6, 20, 20, dtype=torch.complex128)
    images[:2, keep] = make_noise(2, 25, seed=1, dtype=torch.complex128)
    images[2:, suppress] = 10 * make_noise(4, 100, seed=2, dtype=torch.complex128)
    return torch.einsum("dc,cyx->dyx", mixing, images), keep, suppress


def test_it_keeps_the_region_and_leaves_the_other(scene: Any) -> None:
    images, keep, suppress = scene
    matrix = region_matrix(images, keep, suppress, 2)
    everything = torch.eye(6, dtype=torch.complex128)
    assert seen(matrix, images, keep) > 0.999 * seen(everything, images, keep)
    assert seen(matrix, images, suppress) < 1e-6 * seen(everything, images, suppress)


@pytest.mark.parametrize("n_virtual", [1, 3, 6])
def test_white_noise_stays_white(scene: Any, n_virtual: int, check: Any) -> None:
    matrix = region_matrix(*scene, n_virtual)
    check.close(matrix @ matrix.mH, torch.eye(n_virtual, dtype=matrix.dtype), 1e-9)


def test_mixing_the_channels_changes_nothing_that_is_seen(scene: Any, make_noise: Any) -> None:
    images, keep, suppress = scene
    turn = torch.linalg.qr(make_noise(6, 6, seed=5, dtype=torch.complex128)).Q
    turned = torch.einsum("dc,cyx->dyx", turn, images)
    for region in (keep, suppress):
        one = seen(region_matrix(images, keep, suppress, 1), images, region)
        other = seen(region_matrix(turned, keep, suppress, 1), turned, region)
        assert other == pytest.approx(one, rel=1e-6)


def test_what_cannot_be_done_is_named(scene: Any) -> None:
    images, keep, suppress = scene
    with pytest.raises(ShapeError, match="keep"):
        region_matrix(images, keep[1:], suppress, 2)
    with pytest.raises(InputError, match="suppress is empty"):
        region_matrix(images, keep, torch.zeros_like(suppress), 2)
    with pytest.raises(InputError, match="no signal"):
        region_matrix(torch.zeros_like(images), keep, suppress, 2)
    with pytest.raises(UsageError, match="7 virtual coils"):
        region_matrix(images, keep, suppress, 7)
