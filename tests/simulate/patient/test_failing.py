from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from simulate.body import BodyState
from simulate.magnet import LUNG_MOST, patient_tissues
from simulate.patient.cardiac_cycle import timing
from simulate.patient.heart import SPONGY_EDGE_MM, Heart
from simulate.patient.left import THETA, LeftShape, wrap
from simulate.patient.parameters import Group, Patient
from simulate.patient.population import draw_patient
from simulate.patient.thorax import MOST_OVER_MEAN
from simulate.tissues import Tissue

CheckVolumes = Callable[[Heart, BodyState], None]


def _group(group: Group, count: int = 60) -> list[Patient]:
    return [draw_patient(seed, group=group) for seed in range(count)]


def test_a_third_of_failing_hearts_have_a_broad_qrs_complex_and_no_healthy_one() -> None:
    failing = _group(Group.DILATED) + _group(Group.INFARCT)
    assert np.mean([p.rhythm.qrs_s > 0.12 for p in failing]) == pytest.approx(0.35, abs=0.1)
    assert max(p.rhythm.qrs_s for p in _group(Group.NORMAL)) < 0.12
    assert max(p.rhythm.qrs_s for p in failing) < 0.2


def test_a_broad_qrs_complex_delays_ejection_and_relaxation() -> None:
    failing = _group(Group.DILATED)
    broad = [p.rhythm for p in failing if p.rhythm.qrs_s > 0.12]
    narrow = [p.rhythm for p in failing if p.rhythm.qrs_s <= 0.12]
    for name, low, high in (("contraction_s", 0.04, 0.09), ("relaxation_s", 0.025, 0.065)):
        later = np.mean([getattr(r, name) for r in broad]) - np.mean([getattr(r, name) for r in narrow])
        assert low < later < high  # Xiao et al.: 60 and 50 ms
    assert np.mean([r.systole_offset_s for r in broad]) > np.mean([r.systole_offset_s for r in narrow]) + 0.03
    for r in broad:
        t = timing(r)
        assert t.opening < 0.75 * t.end_systole < t.relaxed < t.kick < 1


def test_systole_follows_the_regression_on_heart_rate() -> None:
    rhythm = draw_patient(5, group=Group.NORMAL).rhythm
    for rate in (50.0, 65.0, 80.0):
        r = replace(rhythm, heart_rate_bpm=rate, systole_offset_s=0.0)
        from_q = timing(r).end_systole * 60 / rate + 0.04
        assert from_q == pytest.approx(0.546 - 0.0021 * rate, abs=1e-9)


def test_lungs_of_failing_hearts_hold_more_water_the_less_is_ejected() -> None:
    normal = np.array([p.thorax.lung_water for p in _group(Group.NORMAL)])
    failing = _group(Group.DILATED, 150)
    water = np.array([p.thorax.lung_water for p in failing])
    assert 1.16 < np.median(water) / np.median(normal) < 1.5
    assert np.corrcoef(water, [p.left.ef for p in failing])[0, 1] < 0


def test_no_lung_is_denser_than_what_lungs_can_be() -> None:
    for group in (Group.NORMAL, Group.DILATED):
        for patient in _group(group, 40):
            for field in (1.5, 3.0):
                density = patient_tissues(patient, field)[Tissue.LUNG].density
                t = patient.thorax
                assert density * t.lung_density * t.lung_water * MOST_OVER_MEAN <= LUNG_MOST + 1e-9


def _bulging() -> Patient:
    patients = [p for p in _group(Group.INFARCT) if p.scar.dyskinesis > 0.1]
    assert 2 <= len(patients) <= 30
    return patients[0]


@pytest.mark.parametrize("phase", [0.1, 0.35, 0.6])
def test_an_infarct_that_bulges_keeps_the_exact_volumes(phase: float, check_volumes: CheckVolumes) -> None:
    patient = _bulging()
    check_volumes(Heart(patient), BodyState(phase))


def test_an_infarct_that_bulges_moves_outwards_in_systole() -> None:
    patient = _bulging()
    shape = LeftShape(patient.left, patient.scar)
    core = shape._stillness(np.array([patient.scar.height]))[0] > 0.97 * patient.scar.size
    base = shape.base_mm(1.0)
    z = patient.scar.height * patient.left.length_mm
    relaxed = shape.section(np.array([z]), 0.0, 0.0).endo[0, core].mean()
    moved = base + patient.scar.height * (patient.left.length_mm - base)
    assert shape.section(np.array([moved]), 1.0, 0.0).endo[0, core].mean() > relaxed


def test_what_moves_about_an_infarct_goes_on_after_systole() -> None:
    patient = draw_patient(2, group=Group.INFARCT)
    rhythm = replace(patient.rhythm, late_apex_s=0.0, late_wall_s=0.0, late_scar_s=0.0)
    early, late = (
        Heart(replace(patient, rhythm=replace(rhythm, late_scar_s=delay), scar=replace(patient.scar, dyskinesis=0.0)))
        for delay in (0.0, 0.1)
    )
    assert early.in_step
    assert not late.in_step
    border = np.abs(early.left._stillness(np.array([patient.scar.height]))[0] - 0.5) < 0.2
    z, phases = np.array([patient.scar.height * patient.left.length_mm]), np.linspace(0.2, 0.7, 51)
    times = []
    for heart in (early, late):
        radius = [heart.section(z, BodyState(float(p))).endo[0, border].mean() for p in phases]
        times.append(phases[int(np.argmin(radius))])
    assert times[1] > times[0] + 0.02


def test_blood_stagnates_deeper_where_less_is_ejected() -> None:
    slow = [np.median([p.left.slow_mm for p in _group(group)]) for group in (Group.NORMAL, Group.DILATED)]
    assert slow[1] > 1.5 * slow[0]
    patient = draw_patient(4, group=Group.DILATED)
    section = Heart(patient).section(np.array([0.3, 0.7]) * patient.left.length_mm, BodyState())
    assert section.slow[1].mean() > section.slow[0].mean() > 1
    assert (section.slow < section.endo).all()


def test_trabeculae_weigh_no_more_than_stated() -> None:
    patient = draw_patient(8, group=Group.DILATED)
    left = replace(patient.left, spongy_mm=8.0, spongy_share=0.7, spongy_mass=0.1)
    heart = Heart(replace(patient, left=left))
    z, radii = np.linspace(0, left.length_mm, 200), np.linspace(0, 1, 101)
    muscle = 0.0
    for planes in np.array_split(z, 10):
        s = heart.section(planes, BodyState())
        for depth in radii[:-1] + 0.005:  # from the inner edge of the layer to the wall
            radius = s.endo - s.spongy * (1 - depth)
            here = s.spongy_share * np.clip(s.spongy * depth / SPONGY_EDGE_MM, 0.0, 1.0)
            muscle += float((here * radius * s.spongy).mean(1).sum()) * 2 * np.pi * 0.01
    grams = muscle * (z[1] - z[0]) / 1e3 * 1.05
    assert grams / left.mass_g == pytest.approx(0.1, rel=0.1)


def test_trabeculae_weigh_over_health_what_was_measured() -> None:
    health, dilated, infarct = (
        np.mean([p.left.spongy_mass for p in _group(group)]) for group in (Group.NORMAL, Group.DILATED, Group.INFARCT)
    )
    assert health == pytest.approx(0.18, abs=0.02)
    # 0.9 of health's, twice that in 44 % that are hypertrabeculated.
    assert dilated / health == pytest.approx(0.56 * 0.92 + 0.44 * 2.0, abs=0.2)
    assert infarct / health == pytest.approx(0.56 * 0.92 + 0.44 * 2.0, abs=0.2)


def test_failing_hearts_race_or_are_slowed() -> None:
    rates = np.array([p.rhythm.heart_rate_bpm for p in _group(Group.DILATED) + _group(Group.INFARCT)])
    low, middle, high = np.quantile(rates, [0.25, 0.5, 0.75])
    assert middle == pytest.approx(71, abs=5)
    assert low == pytest.approx(60, abs=5)
    assert high == pytest.approx(84, abs=6)


def test_the_trabeculated_layer_is_a_shelf_of_uneven_depth_and_deepest_where_papillary_muscles_spring() -> None:
    depths = []
    for seed in range(12):
        patient = draw_patient(seed, group=Group.DILATED)
        heart = Heart(patient)
        section = heart.section(np.array([0.6 * patient.left.length_mm]), BodyState())
        lateral = np.abs(THETA) > 1.2
        roots = lateral & (np.abs(wrap(THETA[:, None] - [h[0] for h in heart._heads])).min(1) < 0.1)
        beside = lateral & (np.abs(wrap(THETA[:, None] - [h[0] for h in heart._heads])).min(1) > 0.6)
        depth = section.spongy[0]
        assert (depth <= 0.5 * section.endo[0] + 1e-9).all()
        depths.append((depth[roots].mean(), depth[beside].mean(), depth[lateral].std() / depth[lateral].mean()))
    at_roots, elsewhere, spread = np.array(depths).T
    assert np.median(at_roots / elsewhere) > 1.15
    assert np.median(spread) > 0.3  # ridges and recesses, not a rim


def test_hypertrabeculated_hearts_have_the_deepest_layers() -> None:
    failing = _group(Group.DILATED) + _group(Group.INFARCT)
    many = [p.left.spongy_mm for p in failing if p.left.spongy_mass > 0.32]  # none of the others reaches that,
    few = [p.left.spongy_mm for p in failing if p.left.spongy_mass < 0.205]  # and none of them is below this
    assert np.median(many) > np.median(few) + 2
    assert max(many) <= 16


def test_papillary_muscles_come_closer_to_the_wall_in_systole() -> None:
    patient = draw_patient(8, group=Group.NORMAL)
    heart = Heart(patient)
    assert 0.2 <= heart._tied <= 1.0
    heights = np.array([0.45])
    gaps = []
    for c in (0.0, 1.0):
        base = heart.left.base_mm(c)
        s = heart.contracted(base + heights * (patient.left.length_mm - base), c, 0.0)
        disc = max(s.papillary, key=lambda d: float(d.radius[0]))
        at = np.arctan2(disc.across[0], disc.along[0])
        wall = s.endo[0, int(np.argmin(np.abs(wrap(THETA - at))))]
        gaps.append(wall - np.hypot(disc.along[0], disc.across[0]) - disc.radius[0])
    assert gaps[1] < gaps[0]
