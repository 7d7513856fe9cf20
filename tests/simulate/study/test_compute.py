from __future__ import annotations

import numpy as np
import pytest
import torch

from kspace.quality.trajectory import SCORES, TRUTH_SCORES
from kspace.segment.segmentation import SlicePosition
from simulate.body import BodyState
from simulate.patient.cardiac_cycle import timing
from simulate.patient.population import draw_patient
from simulate.study.compute import patient_trajectory, planned_place
from simulate.study.look import Looker, dice, disagreement
from simulate.study.protocol import Protocol
from simulate.study.stack import PASSED, STOPPED, scan_who

TINY = Protocol(
    n_slices=2, matrix=48, frames=4, n_coils=2, seconds=(0.5, 1.0), method="gridding", window=64, field_of_view_mm=208
)


def test_a_patient_has_all_that_policies_read_and_is_the_same_again() -> None:
    one, again = (patient_trajectory(TINY, TINY.who(3)) for _ in range(2))
    assert one.to_bytes() == again.to_bytes()
    assert one.areas_mm2.shape == (2, 2, 3, 4)
    assert one.n_samples == 2
    missing = {"reconstruction_spread", "distrusted_share"}  # cost more than they would tell here
    assert set(SCORES) - missing <= set(one.scores)
    assert set(TRUTH_SCORES) <= set(one.truth_scores)
    assert np.isnan(one.scores["prediction_error"][0]).all()
    assert (one.scores["prediction_error"][1] > 0).all()
    assert (one.scores["spokes_per_frame"][1] == 2 * one.scores["spokes_per_frame"][0]).all()
    assert one.facts["part"] == TINY.who(3).part.value


def test_the_stack_covers_the_ventricle_by_the_midpoint_rule() -> None:
    protocol = Protocol(n_slices=10)
    who = protocol.who(0)
    scanner = scan_who(protocol, who)
    patient = draw_patient(who.seed, group=who.group)
    dz, dy, dx = scanner.body.geometry.spacing_mm
    assert dz == pytest.approx(patient.left.length_mm / 10)
    state = BodyState(timing(patient.rhythm).end_systole)
    for at, expected in ((BodyState(), patient.left.edv_ml), (state, patient.left.edv_ml * (1 - patient.left.ef))):
        area = sum(float((scanner.body.labels(k, at) == 1).sum()) for k in range(10)) * dy * dx
        assert area * dz / 1000 == pytest.approx(expected, rel=0.12)


def test_nothing_outside_the_disc_gives_signal_and_the_heart_is_inside() -> None:
    scanner = scan_who(Protocol(n_slices=3), Protocol(n_slices=3).who(1))
    image, labels = scanner.body.image(1, BodyState()), scanner.body.labels(1, BodyState())
    n = image.shape[-1]
    y, x = torch.meshgrid(*(torch.arange(n) - n // 2,) * 2, indexing="ij")
    radius = torch.sqrt((y**2 + x**2).double()) / n
    assert float(image[radius >= STOPPED].abs().max()) < 1e-9
    assert float(image[radius < PASSED].abs().max()) > 0
    assert float(radius[labels > 0].max()) < STOPPED


def test_thirds_of_the_ventricle() -> None:
    base, middle, apex = SlicePosition.BASE, SlicePosition.MIDDLE, SlicePosition.APEX
    assert [planned_place(index, 6) for index in range(6)] == [base, base, middle, middle, apex, apex]
    assert [planned_place(index, 5) for index in range(5)] == [base, base, middle, apex, apex]


def test_dice_and_disagreement() -> None:
    one = torch.zeros(2, 8, 8, dtype=torch.uint8)
    one[:, 2:6, 2:6] = 1
    other = one.clone()
    other[:, 2:4] = 0
    assert dice(one, one)[0] == 1
    assert dice(one, other)[0] == pytest.approx(2 * 8 / 24)
    assert dice(one, other)[1].isnan()
    assert disagreement(one, [one, other]) == pytest.approx(1 - (1 + 2 / 3) / 2)


def test_areas_are_in_square_millimetres() -> None:
    looker = Looker((), 1.4, 16, 2)
    labels = torch.zeros(3, 16, 16, dtype=torch.uint8)
    labels[1, :5, :2] = 3
    areas = looker.areas(labels)
    assert areas.shape == (3, 3)
    assert areas[2].tolist() == pytest.approx([0, 10 * 1.96, 0])
