from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kspace.segment.finder import coherence, heart_places


def beating(frames: int, harmonic: int) -> Tensor:
    phase = 2 * math.pi * harmonic * torch.arange(frames) / frames
    return torch.cos(phase)[:, None, None] * torch.ones(20, 20) + 3


@pytest.mark.parametrize("frames", [9, 12, 25, 30])
def test_noise_is_not_coherent_and_a_beat_is(frames: int) -> None:
    noise = torch.randn(frames, 60, 60, generator=torch.Generator().manual_seed(frames))
    assert float(coherence(noise).mean()) < 0.12
    torch.testing.assert_close(coherence(beating(frames, 1)), torch.ones(20, 20))
    torch.testing.assert_close(coherence(beating(frames, 3)), torch.ones(20, 20))
    assert float(coherence(beating(frames, 4)).max()) < 1e-4


def test_where_the_beat_begins_does_not_matter() -> None:
    images = torch.rand(12, 16, 16, generator=torch.Generator().manual_seed(0)) + beating(12, 1)[:, :16, :16]
    torch.testing.assert_close(coherence(images), coherence(images.roll(5, 0)), atol=1e-5, rtol=1e-5)


def test_a_few_frames_cannot_tell() -> None:
    assert bool((coherence(torch.randn(8, 5, 6)) == 1).all())


@pytest.mark.parametrize(("low", "high"), [(0.0, 100.0), (-1.0, 1.0)])
def test_the_shipped_finder_sees_no_heart_in_noise(low: float, high: float) -> None:
    generator = torch.Generator().manual_seed(1)
    slices = [(torch.rand(20, 160, 160, generator=generator) * (high - low) + low).abs() for _ in range(2)]
    assert heart_places(slices, (1.4, 1.4)) == ()
