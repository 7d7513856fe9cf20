from __future__ import annotations

import pytest
import torch

from kspace.errors import ShapeError
from kspace.segment.inputs import network_inputs, normalised


def test_inputs_are_frame_average_and_spread() -> None:
    images = torch.randn(5, 6, 7)
    inputs = network_inputs(images)
    assert inputs.shape == (5, 3, 6, 7)
    torch.testing.assert_close(inputs[:, 0], images)
    torch.testing.assert_close(inputs[2, 1], images.mean(0))
    torch.testing.assert_close(inputs[3, 2], images.std(0, correction=0))


def test_cyclic_shifts_in_time_go_through() -> None:
    images = torch.randn(6, 4, 4)
    torch.testing.assert_close(network_inputs(images.roll(2, 0)), network_inputs(images).roll(2, 0))


def test_a_single_frame_is_its_own_average_and_does_not_vary() -> None:
    inputs = network_inputs(torch.ones(1, 3, 3) * 4)
    assert float(inputs[:, :2].min()) == 4
    assert float(inputs[:, 2].abs().max()) == 0


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(frame, y, x\)"):
        network_inputs(torch.ones(3, 3))


def test_scale_and_level_do_not_matter() -> None:
    images = torch.rand(3, 16, 16)
    torch.testing.assert_close(normalised(images), normalised(300 * images), atol=1e-4, rtol=1e-4)
    assert float(normalised(torch.full((2, 5, 5), 7.0)).abs().max()) == 0
