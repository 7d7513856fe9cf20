from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kspace.errors import ShapeError, UsageError
from kspace.segment.segmentation import Structure
from kspace.segment.topology import betti_errors, betti_numbers
from simulate.training.warp import WarpOptions, draw_velocity, flow, pull, warp


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small tensors gain nothing from threads, and lose much on a machine that is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def chance(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def hearts(wall_px: float, size: int = 128) -> Tensor:
    """(2, y, x) uint8: a ring and a crescent, wide and contracted."""
    y, x = torch.arange(size)[:, None] - size / 2, torch.arange(size) - size / 2
    frames = []
    for radius in (20.0, 13.0):
        from_lv, from_rv = torch.hypot(y, x), torch.hypot(y, x + 0.9 * radius)
        labels = torch.zeros(size, size, dtype=torch.uint8)
        labels[from_rv < radius + wall_px] = Structure.RV
        labels[from_lv < radius + wall_px] = Structure.MYOCARDIUM
        labels[from_lv < radius] = Structure.LV
        frames.append(labels)
    return torch.stack(frames)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.floats(0, 12), st.floats(1.0, 9.0))
def test_a_warped_label_keeps_its_topology(seed: int, reach_px: float, wall_px: float) -> None:
    labels = hearts(wall_px)
    _, moved, strength = warp(labels.float(), labels, chance(seed), WarpOptions(reach_px, halvings=2))
    assert torch.equal(betti_numbers(moved), betti_numbers(labels))
    assert strength in (0.0, 0.25, 0.5, 1.0)


def test_hearts_of_usual_walls_are_mostly_warped_in_full_and_much() -> None:
    labels = hearts(6.0)
    assert int(betti_errors(labels).sum()) == 0
    strengths, changed = [], []
    for seed in range(20):
        _, moved, strength = warp(labels.float(), labels, chance(seed))
        strengths.append(strength)
        changed.append(float((moved != labels).sum() / (labels > 0).sum()))
    assert sum(strength == 1 for strength in strengths) >= 17
    assert sum(changed) / len(changed) > 0.2


def test_a_wall_that_would_break_is_warped_less() -> None:
    labels, strong = hearts(1.0), WarpOptions(12.0, 10.0, halvings=5)
    strengths = [warp(labels.float(), labels, chance(seed), strong)[2] for seed in range(6)]
    assert min(strengths) < 1
    one = strengths.index(min(strengths))
    images, moved, strength = warp(labels.float(), labels, chance(one), WarpOptions(12.0, 10.0, halvings=0))
    assert strength == 0
    assert torch.equal(moved, labels)
    assert torch.equal(images, labels.float())


def test_image_and_labels_move_together() -> None:
    labels = hearts(6.0)
    images = (labels > 0).float()
    moved_images, moved, strength = warp(images, labels, chance(3))
    assert strength > 0
    assert not torch.equal(moved, labels)
    # The heart of the image, at half its brightness, is that of the labels but for pixels where labels meet.
    assert float(((moved_images > 0.5) != (moved > 0)).float().mean()) < 2e-3


def test_a_flow_never_folds_keeps_the_border_and_can_be_undone() -> None:
    options = WarpOptions()
    for seed in range(10):
        velocity = draw_velocity(128, 96, chance(seed), options)
        there, back = flow(velocity), flow(-velocity)
        along_y, along_x = there.diff(dim=1)[:, :, :-1], there.diff(dim=2)[:, :-1]
        jacobian = (1 + along_y[0]) * (1 + along_x[1]) - along_y[1] * along_x[0]
        assert float(jacobian.min()) > 0
        assert float(there[:, [0, -1]].abs().max()) < 1e-3
        assert float(there[:, :, [0, -1]].abs().max()) < 1e-3
        assert float(there.abs().max()) > 4
        assert float((there + pull(back[None], there)[0]).abs().max()) < 0.25
    spread = torch.stack([draw_velocity(128, 96, chance(seed), options)[:, 64, 48] for seed in range(200)]).std()
    assert float(spread) == pytest.approx(options.reach_px, rel=0.15)


def test_a_steady_flow_moves_by_its_velocity_along_the_right_axis() -> None:
    velocity = torch.zeros(2, 32, 40)
    velocity[0] = 3.0
    image = torch.arange(32.0)[:, None].expand(32, 40)
    moved = pull(image[None, None], flow(velocity))[0, 0]
    torch.testing.assert_close(moved[:28], image[:28] + 3)


def test_the_same_chance_is_the_same_warp() -> None:
    labels = hearts(5.0, 64)
    first, again, other = (warp(labels.float(), labels, chance(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ShapeError):
        warp(torch.zeros(2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.uint8), chance(0))
    for wrong in ({"reach_px": -1.0}, {"smooth_px": 0.0}, {"halvings": -1}, {"reach_px": float("inf")}):
        with pytest.raises(UsageError):
            WarpOptions(**wrong)  # type: ignore[arg-type]
