"""Networks that find mis-triggered lines: shapes, the circle of time, calibration."""

from __future__ import annotations

import pytest
import torch

from kspace.errors import ShapeError
from kspace.motion.line_detector import EVIDENCE, LineEvidenceNetwork, LineSequenceNetwork


def chance() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_evidence_network_follows_shifts_in_time() -> None:
    torch.manual_seed(0)
    network = LineEvidenceNetwork(8, 2).requires_grad_(False)
    seen = torch.randn(1, EVIDENCE, 9, 21, generator=chance())
    logits = network(seen)
    assert logits.shape == (1, 9, 21)
    torch.testing.assert_close(network(seen.roll(4, 2)), logits.roll(4, 1), rtol=1e-4, atol=1e-5)
    network.temperature.fill_(2.0)
    torch.testing.assert_close(network(seen), logits / 2)
    with pytest.raises(ShapeError, match="evidence"):
        network(seen[:, 1:])


def test_sequence_network_follows_shifts_in_time_and_scale() -> None:
    torch.manual_seed(0)
    network = LineSequenceNetwork((4, 8)).requires_grad_(False)
    kspace = torch.randn(1, 7, 16, 32, dtype=torch.complex64, generator=chance())
    noise = torch.tensor([0.1])
    logits = network(kspace, noise)
    assert logits.shape == (1, 7, 16)
    torch.testing.assert_close(network(kspace.roll(3, 1), noise), logits.roll(3, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network(10 * kspace, 10 * noise), logits, rtol=1e-4, atol=1e-5)
