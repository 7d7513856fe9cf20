from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from kspace.errors import ShapeError
from kspace.quality.image_judge import ImageJudge, judge_inputs
from kspace.quality.policies import run
from kspace.quality.policies.two_classifiers import NETWORK_SCORES, TwoNetworks
from tests.kspace.quality.trajectories import random_trajectory


def discs(noise: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*(torch.linspace(-1, 1, 32),) * 2, indexing="ij")
    radius = torch.sqrt(y**2 + x**2)
    disc = torch.stack([(radius < 0.5 + 0.1 * k).float() for k in range(3)])
    return disc + noise * torch.randn(3, 32, 32, generator=rng), (disc > 0).to(torch.uint8)


def test_inputs_show_frames_their_average_and_labels() -> None:
    images, labels = discs(0.0, 0)
    seen = judge_inputs(images, labels)
    assert seen.shape == (3, 6, 16, 16)
    assert torch.equal(seen[:, :3], judge_inputs(images))
    torch.testing.assert_close(seen[:, 3].sum((-2, -1)) * 4, labels.float().sum((-2, -1)))
    assert (seen[:, 4:] == 0).all()
    torch.testing.assert_close(judge_inputs(300 * images), judge_inputs(images), atol=1e-4, rtol=1e-4)


def test_a_judge_learns_to_tell_noise() -> None:
    torch.manual_seed(0)
    judge = ImageJudge(labels=False, features=(8, 16))
    optimiser = torch.optim.Adam(judge.parameters(), 1e-2)
    cases = [(judge_inputs(discs(noise, seed)[0]), float(noise < 0.2)) for seed in range(16) for noise in (0.1, 0.6)]
    inputs, good = torch.stack([one[0] for one, _ in cases]), torch.tensor([flag for _, flag in cases])
    for _ in range(30):
        loss = binary_cross_entropy_with_logits(judge(inputs), good)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    unseen = [(judge(judge_inputs(discs(noise, 100 + seed)[0])).mean() > 0, noise < 0.2)
              for seed in range(8) for noise in (0.1, 0.6)]  # fmt: skip
    assert sum(bool(said) == true for said, true in unseen) >= 15


def test_shapes_are_checked() -> None:
    images, labels = discs(0.0, 0)
    with pytest.raises(ShapeError, match="the labels"):
        judge_inputs(images, labels[:2])
    with pytest.raises(ShapeError, match="what a judge sees"):
        ImageJudge(labels=True)(judge_inputs(images))


def test_the_published_policy_stops_each_slice_when_both_networks_say_good() -> None:
    one = random_trajectory(3, noise=0.1)
    shape = (one.n_steps, one.n_slices)
    image, labels = np.full(shape, 0.9), np.zeros(shape)
    labels[1:, 0] = 0.7  # the first slice from the second step on
    labels[2:, 1:] = 0.6
    image[2, 1] = 0.2  # the second waits for its images
    scored = replace(one, scores={**one.scores, **dict(zip(NETWORK_SCORES, (image, labels), strict=True))})
    stopped = run(TwoNetworks(), scored)
    assert stopped.steps.tolist() == [2, 4, *[3] * (one.n_slices - 2)]
    assert stopped.choice.reached
    unknown = run(TwoNetworks(), one)
    assert (unknown.steps == one.n_steps).all()
    assert not unknown.choice.reached
