import hashlib
import json

import numpy as np
import pytest

from kspace.errors import InputError
from simulate.body import BodyState
from simulate.patient.anatomy import PatientBody
from simulate.patient.left import LeftShape
from simulate.patient.parameters import Group, Patient, Sex
from simulate.patient.placement import short_axis_geometry
from simulate.patient.population import POPULATION_VERSION, REFERENCE, draw_patient

PARAMETERS = {2: "e534b610af9099f1"}
TISSUE_SHARES = {
    2: [
        32.264, 9.713, 14.239, 11.433, 1.701, 1.868, 2.451, 2.429,
        1.974, 2.465, 0.275, 13.986, 2.519, 1.984, 0.495, 0.206, 0.000,
    ]
}  # fmt: skip
"""By version: what the first patients of each group are, and how much of a slice each tissue takes, in percent."""


def _rounded(value: object) -> object:
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return f"{value:.5g}" if isinstance(value, float) else value


def test_patients_do_not_change_unless_their_version_does() -> None:
    """Studies keep what they computed of a patient by the version. After an intended change, raise it and note both."""
    patients = [draw_patient(seed, group=group) for seed, group in enumerate(Group)]
    text = json.dumps([_rounded(p.to_dict()) for p in patients])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == PARAMETERS[POPULATION_VERSION]
    shares = []
    for patient in patients:
        geometry = short_axis_geometry(patient, n_slices=1, first_mm=40.0, rows=64, columns=64, pixel_mm=5.0)
        fractions = PatientBody(patient, geometry).fractions(0, BodyState(phase=0.3))
        shares.append(100 * fractions.double().mean((1, 2)).numpy())
    np.testing.assert_allclose(np.mean(shares, 0), TISSUE_SHARES[POPULATION_VERSION], atol=2e-3)


def _values(patients: list[Patient]) -> dict[str, np.ndarray]:
    return {
        "lv_edv_ml": np.array([p.left.edv_ml for p in patients]),
        "lv_ef": np.array([p.left.ef for p in patients]),
        "lv_mass_g": np.array([p.left.mass_g for p in patients]),
        "rv_edv_ml": np.array([p.right.edv_ml for p in patients]),
        "rv_ef": np.array([p.right.ef for p in patients]),
    }


@pytest.mark.parametrize("sex", list(Sex))
def test_normal_hearts_have_the_moments_of_the_reference_population(sex: Sex) -> None:
    patients = [draw_patient(seed, group=Group.NORMAL, sex=sex) for seed in range(500)]
    values = _values(patients)
    for name, (mean, sd) in REFERENCE[sex].items():
        assert values[name].mean() == pytest.approx(mean, rel=0.10), name
        assert values[name].std() == pytest.approx(sd, rel=0.25), name
    size = np.array([p.bsa_m2 for p in patients])
    for name in ("lv_edv_ml", "lv_mass_g", "rv_edv_ml"):
        assert 0.3 < np.corrcoef(size, values[name])[0, 1] < 0.8, name
    left, right = values["lv_edv_ml"] * values["lv_ef"], values["rv_edv_ml"] * values["rv_ef"]
    assert np.abs(right / left - 1).max() < 0.08
    assert np.abs(right / left - 1).mean() < 0.03
    rate = np.array([p.rhythm.heart_rate_bpm for p in patients])
    assert -0.5 < np.corrcoef(rate, values["lv_edv_ml"])[0, 1] < -0.05


def test_men_are_larger_than_women() -> None:
    men, women = ([draw_patient(s, group=Group.NORMAL, sex=sex) for s in range(100)] for sex in (Sex.MALE, Sex.FEMALE))
    for name in ("lv_edv_ml", "lv_mass_g", "rv_edv_ml"):
        assert _values(men)[name].mean() > 1.15 * _values(women)[name].mean()


def _group(group: Group, n: int = 40) -> list[Patient]:
    return [draw_patient(seed, group=group) for seed in range(n)]


def test_dilated_hearts_are_large_and_eject_little() -> None:
    for p in _group(Group.DILATED):
        assert p.left.ef < 0.40
        assert p.left.edv_ml / p.bsa_m2 > 100


def test_failing_hearts_are_trabeculated_late_and_out_of_step() -> None:
    failing, normal = _group(Group.DILATED) + _group(Group.INFARCT), _group(Group.NORMAL, 60)
    assert np.median([p.left.spongy_mm for p in failing]) > 1.5 * np.median([p.left.spongy_mm for p in normal])
    assert min(p.left.spongy_mm for p in normal) > 1
    late = np.array([p.rhythm.systole_offset_s for p in failing])
    assert late.mean() > np.mean([p.rhythm.systole_offset_s for p in normal]) + 0.02
    assert late.max() > 0.07
    assert max(p.rhythm.late_wall_s for p in failing) > 0.06
    assert all(p.rhythm.late_wall_s == p.rhythm.late_apex_s == 0 for p in normal)


def test_lungs_differ_in_density() -> None:
    density = np.array([p.thorax.lung_density for p in _group(Group.NORMAL, 200)])
    assert density.mean() == pytest.approx(0.67 * 1.22 + 0.33 * 0.69, abs=0.05)
    assert np.quantile(density, 0.95) > 2.2 * np.quantile(density, 0.05)
    assert np.mean(density < 0.9) == pytest.approx(0.33 * 0.92 + 0.67 * 0.08, abs=0.08)  # breathed in


def test_hypertrophic_hearts_are_thick_and_eject_normally() -> None:
    patients = _group(Group.HYPERTROPHIC, 25)
    for p in patients:
        assert p.left.ef >= 0.55
        assert LeftShape(p.left).thickness_mm(0.0).max() > 15
    mass = np.mean([p.left.mass_g / p.bsa_m2 for p in patients])
    normal = np.mean([p.left.mass_g / p.bsa_m2 for p in _group(Group.NORMAL)])
    assert mass > 1.5 * normal


def test_infarcts_are_thin_and_do_not_thicken_while_the_rest_does() -> None:
    for p in _group(Group.INFARCT, 15):
        assert p.left.ef < 0.40
        shape = LeftShape(p.left, p.scar)
        at = np.array([p.scar.height])
        still = shape._stillness(at)[0]
        relaxed, contracted = shape.thickness_mm(0.0, at)[0], shape.thickness_mm(1.0, at)[0]
        core, remote = still >= 0.9 * still.max(), still < 0.05
        assert relaxed[core].mean() < 0.8 * relaxed[remote].mean()
        thickening = contracted / relaxed - 1
        assert thickening[core].mean() < 0.25
        assert thickening[remote].mean() > 1.4 * thickening[core].mean()


def test_abnormal_right_hearts_are_large_or_eject_little() -> None:
    for p in _group(Group.ABNORMAL_RV):
        assert p.right.ef < 0.40 or p.right.edv_ml / p.bsa_m2 > 85
        assert p.left.ef > 0.45


def test_the_same_seed_gives_the_same_patient_and_another_seed_another() -> None:
    assert draw_patient(7) == draw_patient(7)
    assert draw_patient(7) != draw_patient(8)
    assert draw_patient(7, sex=Sex.MALE).sex is Sex.MALE
    assert draw_patient(7, heart_rate_bpm=88).rhythm.heart_rate_bpm == 88


def test_half_of_the_patients_are_normal_and_every_group_occurs() -> None:
    groups = [draw_patient(seed).group for seed in range(120)]
    assert 0.35 < np.mean([g is Group.NORMAL for g in groups]) < 0.65
    assert set(groups) == set(Group)


@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_an_impossible_seed_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="seed"):
        draw_patient(seed)  # type: ignore[arg-type]


def test_an_impossible_heart_rate_is_refused() -> None:
    with pytest.raises(InputError, match="heart_rate_bpm"):
        draw_patient(1, heart_rate_bpm=400)
