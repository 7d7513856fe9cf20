from __future__ import annotations

import pytest
import torch

from kspace.errors import UsageError
from kspace.segment.window import Window


def blob(rows: int, columns: int, centre: tuple[float, float], width: tuple[float, float]) -> torch.Tensor:
    y, x = torch.arange(rows)[:, None], torch.arange(columns)[None]
    return torch.exp(-(((y - centre[0]) / width[0]) ** 2) - ((x - centre[1]) / width[1]) ** 2)[None]


def centroid(image: torch.Tensor) -> tuple[float, float]:
    y, x = torch.arange(image.shape[-2]), torch.arange(image.shape[-1])
    return float((image.sum(-1) * y).sum() / image.sum()), float((image.sum(-2) * x).sum() / image.sum())


@pytest.mark.parametrize(("spacing", "pixel"), [((1.0, 1.5), 1.25), ((0.7, 0.7), 2.5), ((2.0, 2.0), 1.0)])
def test_a_point_is_where_to_slice_says(spacing: tuple[float, float], pixel: float) -> None:
    image = blob(90, 110, (41.3, 52.8), (9 / spacing[0], 9 / spacing[1]))
    window = Window((45.0, 50.0), 64, pixel, spacing)
    row, column = centroid(window.cut(image)[0])
    back = window.to_slice(row, column)
    assert back == pytest.approx((41.3, 52.8), abs=0.05)


def test_what_is_put_back_is_what_was_cut() -> None:
    image = blob(80, 96, (38.0, 47.5), (12.0, 12.0))
    window = Window((40.2, 46.7), 48, 1.3, (1.1, 1.1))
    put_back = window.put_back(window.cut(image)[:, None], (80, 96), torch.zeros(1))[0, 0]
    inside = image[0] > 0.3
    assert float((put_back - image[0])[inside].abs().max()) < 0.02


def test_outside_stands_what_was_asked_for() -> None:
    window = Window((5.0, 5.0), 4, 1.0, (1.0, 1.0))
    values = torch.full((1, 2, 4, 4), 0.5)
    there = window.put_back(values, (12, 12), torch.tensor([1.0, 0.0]))
    assert float(there[0, 0, 0, 0]) == 1
    assert float(there[0, 1, 11, 11]) == 0
    assert float(there[0, 0, 5, 5]) == pytest.approx(0.5)


def test_fine_patterns_do_not_alias() -> None:
    checks = ((torch.arange(60)[:, None] + torch.arange(60)[None]) % 2).float()[None]
    seen = Window((29.5, 29.5), 12, 4.0, (1.0, 1.0)).cut(checks)
    assert float((seen - 0.5).abs().max()) < 0.05


def test_senseless_windows_are_refused() -> None:
    with pytest.raises(UsageError):
        Window((0, 0), 0, 1.0, (1.0, 1.0))
    with pytest.raises(UsageError):
        Window((0, 0), 4, 1.0, (0.0, 1.0))
