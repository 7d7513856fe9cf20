from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kspace.errors import InputError
from simulate.body import BodyState
from simulate.patient.heart import Heart
from simulate.patient.left import THETA, LeftShape
from simulate.patient.parameters import Group
from simulate.patient.population import draw_patient

CheckVolumes = Callable[[Heart, BodyState], None]


@pytest.mark.parametrize("group", list(Group))
@pytest.mark.parametrize("emptiness", [0.0, 0.5, 1.0])
def test_areas_integrate_to_the_exact_volumes(group: Group, emptiness: float) -> None:
    patient = draw_patient(11, group=group)
    shape = LeftShape(patient.left, patient.scar)
    step = 0.25
    z = np.arange(-5.0, patient.left.length_mm + 5, step)
    cavity = wall = 0.0
    for planes in np.array_split(z, 20):
        s = shape.section(planes, emptiness, 0.7)
        cavity += np.pi * (s.endo**2).mean(1).sum() * step / 1e3
        wall += np.pi * ((s.epi**2 - s.endo**2) * s.wall).mean(1).sum() * step / 1e3
    assert cavity == pytest.approx(shape.volume_ml(emptiness), rel=0.004)
    assert wall == pytest.approx(patient.left.mass_g / 1.05, rel=0.004)


@pytest.mark.parametrize("group", [Group.DILATED, Group.INFARCT, Group.NORMAL])
@pytest.mark.parametrize("phase", [0.02, 0.2, 0.42, 0.55, 0.8])
def test_a_heart_out_of_step_keeps_its_exact_volumes(group: Group, phase: float, check_volumes: CheckVolumes) -> None:
    patient = draw_patient(13, group=group)
    late = {"late_apex_s": 0.09, "late_wall_s": 0.12, "late_rad": 2.8}
    patient = replace(patient, rhythm=replace(patient.rhythm, **late))
    check_volumes(Heart(patient), BodyState(phase))


def test_a_late_wall_and_a_late_apex_are_smallest_later() -> None:
    patient = draw_patient(13, group=Group.DILATED)
    late = {"late_apex_s": 0.08, "late_wall_s": 0.08, "late_rad": np.pi}
    heart = Heart(replace(patient, rhythm=replace(patient.rhythm, **late)))
    phases = np.linspace(0.1, 0.8, 71)
    planes = np.array([0.25, 0.7]) * patient.left.length_mm
    endo = np.array([heart.section(planes, BodyState(float(p))).endo for p in phases])
    basal, apical = phases[(endo**2).mean(2).argmin(0)]
    assert apical > basal
    septum, lateral = np.abs(THETA) < 0.3, np.abs(THETA) > np.pi - 0.3
    early, last = (phases[endo[:, 0, side].mean(1).argmin()] for side in (septum, lateral))
    assert last > early + 0.02


def test_the_base_descends_on_a_resting_apex() -> None:
    patient = draw_patient(2, group=Group.NORMAL)
    shape = LeftShape(patient.left)
    assert shape.base_mm(1.0) == pytest.approx(patient.left.base_descent_mm)
    near_apex = np.array([patient.left.length_mm - 0.5])
    for emptiness in (0.0, 1.0):
        assert shape.section(near_apex, emptiness, 0.0).epi.max() > 0
        assert shape.section(near_apex + 1.0, emptiness, 0.0).epi.max() == 0


def test_the_wall_thickens_in_systole() -> None:
    patient = draw_patient(2, group=Group.NORMAL)
    shape = LeftShape(patient.left)
    assert shape.thickness_mm(1.0).mean() > 1.3 * shape.thickness_mm(0.0).mean()


def test_the_wall_opens_to_the_outflow_tract_at_the_base_only() -> None:
    patient = draw_patient(2, group=Group.NORMAL)
    shape = LeftShape(patient.left)
    wall = shape.section(np.array([0.5, 0.3 * patient.left.length_mm]), 0.0, 0.0).wall
    assert 0.03 < 1 - wall[0].mean() < 0.4
    assert wall[1].min() == 1


def test_an_ejection_that_the_scar_does_not_allow_is_refused() -> None:
    patient = draw_patient(3, group=Group.INFARCT)
    huge = replace(patient.scar, size=1.0, half_width_rad=2.6, height=0.5, half_height=1.0)
    with pytest.raises(InputError, match="scar"):
        LeftShape(replace(patient.left, ef=0.7), huge)
