import numpy as np
import pytest

from simulate.patient.left import THETA
from simulate.patient.population import draw_patient
from simulate.patient.right import RightShape


@pytest.mark.parametrize("emptiness", [0.0, 0.4, 1.0])
def test_areas_integrate_to_the_exact_volume(emptiness: float) -> None:
    shape = RightShape(draw_patient(12))
    z = np.arange(-60.0, 140.0, 0.05)
    assert shape.area_mm2(z, emptiness).sum() * 0.05 / 1e3 == pytest.approx(shape.volume_ml(emptiness), rel=1e-3)


def test_the_outline_encloses_the_area_whatever_it_is_laid_around() -> None:
    shape = RightShape(draw_patient(12))
    z = np.array([-10.0, 5.0, 30.0, 70.0])
    inner = np.broadcast_to(30 + 3 * np.cos(2 * THETA), (4, len(THETA)))
    section = shape.section(z, 0.3, inner)
    area = np.pi * (section.outer**2 - inner**2).mean(1)
    np.testing.assert_allclose(area, shape.area_mm2(z, 0.3), rtol=2e-3)


def test_there_is_none_above_the_pulmonary_valve_or_below_the_apex() -> None:
    patient = draw_patient(12)
    shape = RightShape(patient)
    assert (shape.area_mm2(np.array([shape.valve_mm(0.0) - 1, patient.left.length_mm]), 0.0) == 0).all()
