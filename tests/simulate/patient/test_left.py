from dataclasses import replace

import numpy as np
import pytest

from kspace.errors import InputError
from simulate.patient.left import LeftShape
from simulate.patient.parameters import Group
from simulate.patient.population import draw_patient


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
