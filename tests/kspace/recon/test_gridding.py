from __future__ import annotations

from typing import Any

import pytest
import torch

from kspace.equations import NormalEquations
from kspace.errors import UsageError
from kspace.nufft import exact_transform
from kspace.recon.gridding import Gridding
from kspace.trajectory import radial_positions, uniform_angles


@pytest.mark.parametrize("matrix", [(64, 64), (63, 48)])
def test_fully_sampled_data_give_the_image_back(matrix: tuple[int, int], make_maps: Any, check: Any) -> None:
    rows, columns = matrix
    y, x = torch.meshgrid(torch.arange(rows) - rows / 2, torch.arange(columns) - columns / 2, indexing="ij")
    image = (torch.exp(-((y - 3) ** 2 + (x + 5) ** 2) / 60) * torch.exp(0.2j * x)).to(torch.complex64)
    positions = radial_positions(uniform_angles(120), 128)
    for strength in (1.0, 2.5):
        maps = strength * make_maps(4, *matrix)
        samples = exact_transform(image * maps, positions.reshape(-1, 2)).reshape(4, 120, 128).transpose(0, 1)
        equations = NormalEquations(matrix, 1, 4)
        equations.add(samples.to(torch.complex64), positions, torch.zeros(120, dtype=torch.int64))
        check.close(Gridding()(equations, maps).image[0], image, 0.01)


def test_it_is_the_combined_adjoint_over_the_spokes(make_case: Any, check: Any) -> None:
    case = make_case()
    equations = case.equations()
    got = Gridding()(equations, case.maps)
    check.close(got.image, equations.right_hand_side(case.maps) / 6, 1e-6)
    assert (got.iterations, got.change, got.state) == (0, 0.0, ())


def test_a_start_and_the_noise_change_nothing_and_nobody_is_called(make_case: Any) -> None:
    case = make_case()
    equations = case.equations()
    plain = Gridding()(equations, case.maps)

    def never(status: object) -> bool:
        raise AssertionError(status)

    again = Gridding()(equations, case.maps, noise_std=3.0, start=plain, on_iteration=never)
    assert torch.equal(again.image, plain.image)


def test_pixels_that_no_coil_sees_are_zero(make_case: Any) -> None:
    case = make_case()
    maps = case.maps.clone()
    maps[:, 3:5, 2:9] = 0
    image = Gridding()(case.equations(), maps).image
    assert float(image[:, 3:5, 2:9].abs().sum()) == 0
    assert bool(torch.isfinite(image.abs()).all())


def test_it_needs_density_weights(make_case: Any) -> None:
    case = make_case()
    with pytest.raises(UsageError, match="density='ramp'"):
        Gridding()(case.equations(density="none"), case.maps)
