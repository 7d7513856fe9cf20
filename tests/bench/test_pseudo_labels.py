"""bench/pseudo_labels.py with stacks and labels that were made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from bench.heart_cohort import Stack
from bench.pseudo_labels import checked, table
from kspace.scan import Cine, Geometry
from kspace.segment.segmentation import Segmentation, SlicePosition
from simulate.patient.population import draw_patient


def record(dice: float, problems: tuple[str, ...] = (), ef_error: float = 2.0) -> dict[str, Any]:
    return {"problems": problems, "dice": {"lv": dice, "myocardium": dice, "rv": dice - 0.3}, "ef_error": ef_error}


def test_labels_that_passed_are_told_from_the_others() -> None:
    lines = list(table([record(0.9), record(0.7), record(0.5, ("the LV flickers",), -6.0)]))
    assert lines[2] == "| passed | 2 | 0.800 | 0.800 | 0.500 | 0.700 | 0.600 | 2.0 |"
    assert lines[3] == "| left out | 1 | 0.500 | 0.500 | 0.200 | 0.400 | 0.400 | 6.0 |"
    assert lines[4].startswith("| all | 3 | 0.700 |")
    assert len(list(table([record(0.9)]))) == 4


def test_labels_are_compared_with_the_hidden_truth() -> None:
    truth = torch.zeros(5, 16, 40, 40, dtype=torch.uint8)  # muscle alone at both ends
    for f in range(16):
        half = 6 - round(2 * (0.5 - 0.5 * math.cos(2 * math.pi * f / 16)))
        truth[:, f, 8:32, 8:32] = 2
        truth[1:4, f, 20 - half : 20 + half, 20 - half : 20 + half] = 1
    cine = Cine(truth.float(), Geometry.from_spacing((5, 40, 40), (10.0, 2.0, 2.0)))
    patient = draw_patient(1)
    stack = Stack(cine, truth, patient, "ge", (0.1, 0.3, 0.5, 0.7, 0.9))

    def drawn(labels: torch.Tensor) -> dict[str, Any]:
        places = (SlicePosition.BASE, *(SlicePosition.MIDDLE,) * 3, SlicePosition.APEX)
        certain, nothing = torch.eye(4)[[1, 2, 2, 2, 3]], torch.zeros(labels.shape)
        found = Segmentation(
            labels, cine.geometry, places, certain, labels[None], nothing, nothing[..., 0, 0].clone()
        )  # fmt: skip
        return checked(stack, lambda given: found)

    right = drawn(truth)
    assert (right["group"], right["vendor"], right["ef_error"]) == (patient.group.value, "ge", 0.0)
    assert (right["dice"]["lv"], right["dice"]["myocardium"]) == (1.0, 1.0)
    twitching = truth[:, :1].expand_as(truth).clone()
    twitching[1, 8] = truth[1, 8]  # one slice of three, in one frame
    found = drawn(twitching)
    assert any("the LV flickers" in problem for problem in found["problems"])
    assert found["ef_error"] == pytest.approx(100 * (1 - 16 / 36) * (1 / 3 - 1))
    assert found["dice"]["lv"] < 0.95
    assert drawn(torch.zeros_like(truth))["ef_error"] is None
