from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from kspace.errors import SpokewiseError, UsageError
from kspace.scan import Cine, Geometry
from kspace.segment.orient import Turn
from kspace.segment.segmenter import Segmenter, _place_of_heart, flip_risk
from kspace.segment.topology import betti_errors


def cine(slices: int = 3, frames: int = 3, rows: int = 40, columns: int = 52, seed: int = 0) -> Cine:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(slices, frames, rows, columns, generator=generator)
    images[..., 10:30, 15:40] += 1
    return Cine(images, Geometry.from_spacing((slices, rows, columns), (8.0, 3.0, 3.5)))


@pytest.fixture(scope="module")
def segment(untrained: Callable[[int], Path]) -> Segmenter:
    return Segmenter(folder=untrained(2))


def test_shapes_and_samples(segment: Segmenter) -> None:
    heard: list[tuple[int, int]] = []
    found = segment(cine(), on_slice=lambda done, of: heard.append((done, of)))
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert found.labels.shape == (3, 3, 40, 52)
    assert found.samples.shape == (2, 3, 3, 40, 52)
    assert bool(found.labels.any()), "an untrained network draws something, or the other tests would test nothing"
    assert bool((found.samples[0] != found.samples[1]).any())
    assert float(found.entropy.min()) >= 0
    assert float(found.entropy.max()) <= math.log(4) + 1e-5
    torch.testing.assert_close(found.position_probabilities.sum(1), torch.ones(3))


def test_islands_are_tidied_away(segment: Segmenter) -> None:
    one = cine(slices=1, frames=2)
    drawn, tidied = (replace(segment, topology=way)(one).labels for way in ("as drawn", "tidy"))  # type: ignore[arg-type]
    assert int(betti_errors(tidied).sum()) < int(betti_errors(drawn).sum())


@pytest.mark.parametrize(("uncertainty", "samples"), [("augmentation", 4), ("dropout", 5)])
def test_other_ways_of_looking(segment: Segmenter, uncertainty: str, samples: int) -> None:
    other = replace(segment, uncertainty=uncertainty, dropouts=5)  # type: ignore[arg-type]
    found = other(cine())
    assert len(found.samples) == samples
    assert bool((found.samples[0] != found.samples[1]).any())
    assert torch.equal(found.labels, other(cine()).labels)


def test_dropout_leaves_the_network_as_it_was_and_torch_its_state(segment: Segmenter) -> None:
    before = segment(cine()).labels
    state = torch.get_rng_state()
    replace(segment, uncertainty="dropout")(cine())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(segment(cine()).labels, before)


def test_cyclic_shifts_in_time_go_through(segment: Segmenter) -> None:
    one = cine(frames=3)
    shifted = replace(one, images=one.images.roll(1, 1))
    assert torch.equal(segment(shifted).labels, segment(one).labels.roll(1, 1))


def test_scale_goes_through(segment: Segmenter) -> None:
    one = cine()
    agree = segment(replace(one, images=1000 * one.images)).labels == segment(one).labels
    assert float(agree.float().mean()) > 0.999


def test_however_it_is_stored_the_same_is_drawn(segment: Segmenter) -> None:
    one = cine(rows=48, columns=48)
    turned = Turn(True, False, True).undo(one.images)
    a = one.geometry.affine
    affine = a.copy()
    # Turn: swap, then flip columns. Stored row r is usual column n - 1 - r; stored column c is usual row c.
    affine[:, 0], affine[:, 1] = a[:, 1], -a[:, 0]
    affine[:, 3] = a @ np.array([47, 0, 0, 1.0])
    stored = Cine(turned, Geometry(one.geometry.shape, affine))
    agree = Turn(True, False, True).apply(segment(stored).labels) == segment(one).labels
    assert float(agree.float().mean()) > 0.999


@pytest.mark.parametrize("images", [torch.zeros(2, 2, 24, 24), torch.full((2, 2, 24, 24), 5.0)])
def test_where_there_is_nothing_nothing_is_drawn(segment: Segmenter, images: Tensor) -> None:
    found = segment(Cine(images, Geometry.from_spacing((2, 24, 24), (8.0, 2.0, 2.0))))
    assert not bool(found.labels.any())
    assert not bool(found.samples.any())
    assert bool(found.flip_risk.isnan().all())
    assert {p.word for p in found.positions} == {"no heart"}


def test_an_empty_slice_in_a_stack_stays_empty(segment: Segmenter) -> None:
    one = cine()
    images = one.images.clone()
    images[2] = 0
    found = segment(replace(one, images=images))
    assert not bool(found.labels[2].any())
    assert bool(found.labels[:2].any())


def test_no_networks_and_senseless_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpokewiseError, match="segment-cine-0"):
        Segmenter(folder=tmp_path)(cine())
    with pytest.raises(UsageError):
        Segmenter(uncertainty="guess")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Segmenter(dropouts=0)
    with pytest.raises(UsageError):
        Segmenter(topology="torus")  # type: ignore[arg-type]


def test_flip_risk_is_the_entropy_among_structures() -> None:
    probabilities = torch.zeros(2, 4, 1, 2)
    probabilities[0, :, 0, 0] = torch.tensor([0.4, 0.3, 0.3, 0.0])  # labelled: undecided between two
    probabilities[0, :, 0, 1] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    probabilities[1, 0] = 1
    labels = torch.tensor([[[1, 0]], [[0, 0]]], dtype=torch.uint8)
    risk = flip_risk(probabilities, labels)
    assert float(risk[0]) == pytest.approx(math.log(2))
    assert bool(risk[1].isnan())


def test_where_the_networks_see_no_heart_the_next_place_is_tried(
    segment: Segmenter, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, right = cine(), (20.0, 27.0)
    looked: list[tuple[float, float]] = []

    def seen(way: object, given: Tensor) -> tuple[Tensor, Tensor]:
        there = bool((given[:, 0] > 0.5).float().mean() > 0.05)  # the bright patch
        looked.append(right if there else (-300.0, 0.0))
        return torch.zeros(len(given), 4, 128, 128), torch.tensor([0.9, 0.1, 0, 0] if not there else [0.1, 0.9, 0, 0])

    monkeypatch.setattr("kspace.segment.segmenter._Way.look", seen)
    slices = list(one.images)
    way = next(segment._ways(one.images.device))
    for places in (((-300.0, 0.0), right), (right, (-300.0, 0.0)), ((-300.0, 0.0), right, (0.0, 900.0))):
        assert _place_of_heart(slices, places, (3.0, 3.5), way) == right
    looked.clear()
    _place_of_heart(slices, (right, (-300.0, 0.0)), (3.0, 3.5), way)
    assert len(looked) == len(slices), "a sure place is the last that is looked at"
    assert _place_of_heart(slices, (), (3.0, 3.5), way) is None
