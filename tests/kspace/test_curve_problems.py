from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kspace.curve_problems import CurveLimits, curve_problems
from kspace.volume_curves import VolumeCurves

N = 25
PHASE = (torch.arange(N, dtype=torch.float64) + 0.5) / N
BEAT = 0.5 - 0.5 * torch.cos(2 * torch.pi * PHASE)  # 0 at end-diastole, 1 at end-systole


def curves(left: Tensor, wall: Tensor | None = None, right: Tensor | None = None) -> VolumeCurves:
    """Curves in mL, spread over three slices of 10 mm."""
    wall = 100 + 3 * BEAT if wall is None else wall
    right = 160 - 85 * BEAT if right is None else right
    share = torch.tensor([0.2, 0.6, 0.2], dtype=torch.float64)[:, None]
    return VolumeCurves(torch.stack([share * curve * 100 for curve in (left, wall, right)]), 10.0)


HEALTHY = 150 - 85 * BEAT


def test_a_heart_that_could_be_one_has_no_problem() -> None:
    assert curve_problems(curves(HEALTHY)) == ()


def test_virtual_patients_have_no_problem() -> None:
    from simulate.patient.cardiac_cycle import filling
    from simulate.patient.cohort import draw_cohort

    for patient in draw_cohort(range(8)):
        full = torch.tensor([filling(patient.rhythm, float(phase)) for phase in PHASE], dtype=torch.float64)
        assert curve_problems(curves(60 + 80 * full, right=70 + 78 * full)) == ()


SPIKY = HEALTHY + 9 * (-1.0) ** torch.arange(N)
TWICE = 150 - 85 * (0.5 - 0.5 * torch.cos(4 * torch.pi * PHASE))


@pytest.mark.parametrize(
    ("made", "fragment"),
    [
        (curves(torch.zeros(N, dtype=torch.float64)), "no LV in any frame"),
        (curves((HEALTHY - 65.0).clamp_min(0)), "the LV vanishes"),
        (curves(150 - 2 * BEAT, right=160 - 2 * BEAT), "ejection fraction of 1 %"),
        (curves(HEALTHY, right=160 - 30 * BEAT), "the LV pumps 85 mL and the RV 30 mL"),
        (curves(SPIKY), "the LV flickers"),
        (curves(TWICE), "the LV has 2 minima"),
        (curves(HEALTHY, right=160 - 85 * (0.5 - 0.5 * torch.cos(4 * torch.pi * PHASE))), "the RV has 2 minima"),
        (curves(HEALTHY, wall=100 - 60 * BEAT), "the myocardium changes by"),
        (curves(HEALTHY, wall=torch.zeros(N, dtype=torch.float64)), "there is no myocardium"),
    ],
)
def test_what_is_implausible_is_told(made: VolumeCurves, fragment: str) -> None:
    assert any(fragment in problem for problem in curve_problems(made)), curve_problems(made)


def test_frames_without_labels_are_told_and_stop_no_other_check() -> None:
    made = curves(HEALTHY)
    made.areas_mm2[:, :, 3:6] = torch.nan
    assert curve_problems(made) == ("nothing is labelled in 3 frame(s)",)


def test_a_single_slice_is_not_judged_by_volumes() -> None:
    areas = curves(HEALTHY, wall=100 - 60 * BEAT, right=160 - 30 * BEAT).areas_mm2.sum(1, keepdim=True)
    assert curve_problems(VolumeCurves(areas, 8.0)) == ()


def test_limits_can_be_set() -> None:
    assert curve_problems(curves(HEALTHY, right=160 - 30 * BEAT), CurveLimits(strokes=1.5)) == ()
