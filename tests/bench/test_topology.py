"""bench/topology.py from end to end on a few slices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.topology import degraded, dice, measure, middle_slices, named, report
from kspace.segment.refine import RefineOptions
from kspace.segment.segmentation import Structure
from kspace.segment.topology import betti_errors


def test_spoilt_topologies_get_better() -> None:
    rows = {row.name: row for row in measure(named("bench.topology:degraded"), 4, RefineOptions(steps=10))}
    plain = rows["as it is"]
    assert plain.errors >= plain.wrong > 0
    assert plain.dice_myocardium > 0.9
    for name in ("tidy", "refine", "refine, tidy"):
        assert rows[name].errors < plain.errors
        assert rows[name].dice_myocardium > plain.dice_myocardium - 0.01
        assert rows[name].cpu_ms > 0
    lines = list(report(list(rows.values())))
    assert len(lines) == 6
    assert {line.count("|") for line in lines} == {8}


def test_slices_are_right_and_probabilities_are_some() -> None:
    (images, labels), (_, other) = middle_slices(2)
    assert int(betti_errors(torch.stack([labels, other])).sum()) == 0
    found = degraded(images, labels, torch.Generator().manual_seed(0))
    assert found.shape == (2, 4, 128, 128)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 128, 128))


def test_dice_is_that_of_each_structure() -> None:
    truth = torch.tensor([[1, 1, 2, 3]])

    def spoilt(value: int) -> Tensor:
        return torch.tensor([[1, value, 2, 3]])

    assert dice(truth, truth).tolist() == [1, 1, 1]
    assert dice(spoilt(Structure.MYOCARDIUM), truth).tolist() == pytest.approx([2 / 3, 2 / 3, 1])
