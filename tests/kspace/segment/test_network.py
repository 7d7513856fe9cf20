from __future__ import annotations

import pytest
import torch

from kspace.errors import ShapeError, UsageError
from kspace.segment.network import NetworkOptions, SegmentationNetwork


def test_shapes_and_gradients() -> None:
    network = SegmentationNetwork(NetworkOptions((4, 8, 8)))
    labels, position = network(torch.randn(2, 3, 16, 24))
    assert labels.shape == (2, 4, 16, 24)
    assert position.shape == (2, 4)
    (labels.square().mean() + position.square().mean()).backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in network.parameters())


def test_frames_are_seen_one_by_one() -> None:
    network = SegmentationNetwork(NetworkOptions((4, 8))).eval()
    inputs = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(network(inputs)[0][1:2], network(inputs[1:2])[0], atol=1e-5, rtol=1e-5)


def test_dropout_only_when_asked_for() -> None:
    network = SegmentationNetwork(NetworkOptions((4, 8, 8), dropout=0.5)).eval()
    inputs = torch.randn(1, 3, 8, 8)
    assert torch.equal(network(inputs)[0], network(inputs)[0])
    network.drop.train()
    assert not torch.equal(network(inputs)[0], network(inputs)[0])


def test_what_cannot_be_halved_is_refused() -> None:
    network = SegmentationNetwork(NetworkOptions((4, 8, 8)))
    with pytest.raises(ShapeError, match="multiples of 4"):
        network(torch.randn(1, 3, 18, 16))
    with pytest.raises(ShapeError):
        network(torch.randn(1, 2, 16, 16))
    with pytest.raises(UsageError):
        NetworkOptions((4,))
    with pytest.raises(UsageError):
        NetworkOptions((4, 8), dropout=1.0)
