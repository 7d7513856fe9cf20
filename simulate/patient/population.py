"""Drawing patients: sex, age, body size and group drive the anatomy through stated distributions. All synthetic.

Means and standard deviations of ventricular volumes and mass by sex are those of the UK Biobank (Petersen et al., J
Cardiovasc Magn Reson 19:18, 2017), each shared between body size and the individual; both ventricles eject the same
stroke volume up to 2 % (bronchial and coronary venous flow, slight regurgitation). Groups follow the definitions of
ACDC (Bernard et al., IEEE Trans Med Imaging 37:2514, 2018).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kspace.errors import InputError
from simulate.patient.draw import LIMIT, Draw
from simulate.patient.failing import bulging, lung_density, lung_water, medicated_rate, out_of_step, trabeculated
from simulate.patient.left import LeftShape
from simulate.patient.parameters import (
    Group,
    LeftVentricle,
    Patient,
    Placement,
    Rhythm,
    RightVentricle,
    Scar,
    Sex,
    Surroundings,
    Texture,
    Thorax,
)

POPULATION_VERSION = 2
"""To be raised when the same seed draws another patient, or the same patient has another body: what was computed from
virtual patients is kept by it."""

REFERENCE: dict[Sex, dict[str, tuple[float, float]]] = {
    Sex.MALE: {
        "lv_edv_ml": (166, 32), "lv_ef": (0.58, 0.05), "lv_mass_g": (103, 21), "rv_edv_ml": (182, 36),
        "rv_ef": (0.54, 0.06),
    },
    Sex.FEMALE: {
        "lv_edv_ml": (124, 21), "lv_ef": (0.61, 0.05), "lv_mass_g": (70, 13), "rv_edv_ml": (130, 24),
        "rv_ef": (0.58, 0.06),
    },
}  # fmt: skip
"""Mean and standard deviation by sex in health (Petersen et al., 2017)."""


def draw_patient(
    seed: int, *, group: Group | None = None, sex: Sex | None = None, heart_rate_bpm: float | None = None
) -> Patient:
    """Draw a patient; the same arguments give the same patient.

    Parameters
    ----------
    seed
        0 or more. What is given does not change what is drawn for the rest.
    group
        Diagnostic group; None draws one, half of them normal.
    sex, heart_rate_bpm
        Either fixes what would be drawn.

    Raises
    ------
    InputError
        When the seed is negative or the heart rate impossible.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"the patient's seed is {seed}", expected="a whole number, 0 or more")
    groups = list(Group)
    choice, is_male = np.random.default_rng([seed, 100]).random(2)
    drawn = Group.NORMAL if choice < 0.5 else groups[1 + int((choice - 0.5) * 8)]
    group = drawn if group is None else Group(group)
    sex = (Sex.MALE if is_male < 0.5 else Sex.FEMALE) if sex is None else Sex(sex)
    for attempt in range(40):  # a scar may be too large for its ejection fraction
        patient = _draw(seed, attempt, group, sex, heart_rate_bpm)
        if patient.scar.size == 0:
            return patient
        try:
            LeftShape(patient.left, patient.scar)
        except InputError:
            continue
        later = Draw(np.random.default_rng([seed, 104, attempt]))
        return replace(patient, scar=bulging(later, patient.left, patient.scar))
    raise InputError(f"no patient of seed {seed} in group {group} could be drawn", expected="another seed")


def _draw(seed: int, attempt: int, group: Group, sex: Sex, rate: float | None) -> Patient:
    d = Draw(np.random.default_rng([seed, 101, attempt]))
    male = sex is Sex.MALE
    age = d.normal(58, 10, 25, 85) if group is Group.NORMAL else d.normal(60, 11, 25, 88)
    height = d.normal(176, 6.8) if male else d.normal(162.5, 6.3)
    bmi = d.lognormal(26.8, 0.14, 18, 45) if male else d.lognormal(26.0, 0.17, 17, 47)
    weight = bmi * (height / 100) ** 2
    bsa = (height * weight / 3600) ** 0.5
    size = (bsa - (2.0 if male else 1.75)) / (0.165 if male else 0.175)
    fitness = d.z()  # a large slow heart or a small fast one
    drawn_rate = medicated_rate(d.normal((64 if male else 67) - 4.5 * fitness, 8.5, 42, 110), group)
    left, right, scar = _ventricles(d, group, sex, size, bsa, fitness, age)
    own = Draw(np.random.default_rng([seed, 102, attempt]))
    new = Draw(np.random.default_rng([seed, 103, attempt]))
    last = Draw(np.random.default_rng([seed, 105, attempt]))
    left = trabeculated(own, new, last, left, group)
    return Patient(
        seed=seed,
        sex=sex,
        group=group,
        age_years=age,
        height_cm=height,
        weight_kg=weight,
        rhythm=out_of_step(own, new, last, _rhythm(d, drawn_rate if rate is None else rate, age), group),
        left=left,
        right=right,
        scar=scar,
        around=_surroundings(d, male, bmi, bsa, group),
        placement=_placement(d, bmi, age),
        thorax=replace(
            _thorax(d, male, bmi, height),
            lung_density=lung_density(own),
            lung_water=lung_water(new, group, left.ef),
        ),
        texture=Texture(
            blood=d.lognormal(0.055, 0.35, 0.01, 0.15),
            myocardium=d.lognormal(0.09, 0.3, 0.02, 0.25),
            muscle=d.lognormal(0.16, 0.3, 0.04, 0.4),
            fat=d.lognormal(0.13, 0.3, 0.03, 0.4),
            liver=d.lognormal(0.06, 0.3, 0.02, 0.2),
            lung=d.lognormal(0.30, 0.3, 0.1, 0.7),
        ),
    )


def _rhythm(d: Draw, rate: float, age: float) -> Rhythm:
    late = min(1.0, max(0.0, (age - 30) / 50))  # relaxation slows with age and the atrium does more
    return Rhythm(
        heart_rate_bpm=rate,
        systole_offset_s=d.normal(-0.01, 0.014),
        relaxation_s=d.normal(0.062 + 0.018 * late, 0.01, 0.035, 0.12),
        atrial_share=d.normal(0.16 + 0.16 * late, 0.04, 0.07, 0.42),
        diastasis_share=d.uniform(0.02, 0.09),
    )


def _ventricles(
    d: Draw, group: Group, sex: Sex, size: float, bsa: float, fitness: float, age: float
) -> tuple[LeftVentricle, RightVentricle, Scar]:
    """Draw volumes first, then shapes that hold them."""
    table = REFERENCE[sex]

    def standard(name: str, z: float) -> float:
        mean, sd = table[name]
        return mean + 1.03 * sd * float(np.clip(z, -LIMIT, LIMIT))  # 1.03 makes up for the cut tails

    years = (age - 58) / 10
    z_edv = 0.55 * size + 0.36 * fitness - 0.20 * years + 0.73 * d.z()
    z_ef = d.z()
    z_mass = 0.50 * size + 0.45 * (z_edv - 0.55 * size) + 0.73 * d.z()
    edv, ef, mass = standard("lv_edv_ml", z_edv), standard("lv_ef", z_ef), standard("lv_mass_g", z_mass)
    rv_ef = standard("rv_ef", 0.6 * z_ef + 0.8 * d.z())
    descent, septal = d.normal(14.5, 1.8, 8, 20), 0.0
    wall_variation, apex = d.uniform(0.02, 0.09), d.normal(4.5, 0.8, 2.5, 7)
    trabeculae, rv_wall = d.lognormal(1.8, 0.3, 0.6, 5), d.normal(3.0, 0.4, 2.0, 4.5)
    shunt, scar, slender = 1.0, Scar(), 1.0
    if group is Group.DILATED:
        ef, edv = d.normal(0.28, 0.06, 0.12, 0.385), bsa * d.normal(132, 20, 104, 190)
        mass, descent, slender = mass * d.normal(1.5, 0.2, 1.1, 2.1), d.normal(7, 1.8, 3, 11), 0.93
        rv_ef = d.normal(0.42, 0.08, 0.22, 0.58)
        trabeculae *= 1.5
    elif group is Group.HYPERTROPHIC:
        ef = d.normal(0.66, 0.05, 0.55, 0.78)
        edv *= d.normal(0.95, 0.08)
        mass = max(mass, table["lv_mass_g"][0]) * d.normal(1.75, 0.25, 1.3, 2.5)
        septal, descent = d.uniform(0.5, 1.6), d.normal(11.5, 2, 6, 16)
    elif group is Group.INFARCT:
        ef, edv = d.normal(0.31, 0.05, 0.19, 0.395), edv * d.normal(1.28, 0.15, 0.95, 1.7)
        mass, descent = mass * d.normal(1.2, 0.1, 1.0, 1.5), d.normal(9, 1.8, 4, 13)
        territory = d.rng.choice(3, p=[0.5, 0.3, 0.2])
        scar = _scar(d, int(territory))
        rv_ef = d.normal(0.50, 0.06, 0.35, 0.62)
    elif group is Group.ABNORMAL_RV:
        if d.uniform(0, 1) < 0.5:  # volume overload, else failing
            shunt, rv_ef = d.uniform(1.3, 1.75), d.normal(0.47, 0.05, 0.36, 0.58)
        else:
            rv_ef = d.normal(0.33, 0.04, 0.22, 0.395)
        rv_wall = d.normal(4.5, 0.9, 3, 7)
        edv *= 0.92
    stroke = edv * ef * shunt * d.normal(1.0, 0.02)
    rv_edv = float(np.clip(stroke / rv_ef, 45.0, 460.0))
    rv_ef = stroke / rv_edv
    # A half ellipsoid with the aspect of the normal heart; longer in the tall.
    length = 97 * ((edv + 0.6 * mass) / 205) ** (1 / 3) * d.normal(1, 0.035) * slender
    left = LeftVentricle(
        edv_ml=edv, ef=ef, mass_g=mass, length_mm=float(np.clip(length, 66, 145)),
        base_descent_mm=float(descent * (length / 97) ** 0.5),
        widest=d.uniform(0.14, 0.28), bluntness=d.normal(2.15, 0.15, 1.8, 2.6), apex_mm=apex,
        ovality=d.normal(-0.03, 0.05, -0.16, 0.16), ovality_rad=d.normal(0, 0.4, -1, 1), trilobe=d.normal(0, 0.018),
        septal_bulge=septal, bulge_rad=d.normal(0.35, 0.35, -0.5, 1.2), bulge_height=d.uniform(0.2, 0.45),
        wall_variation=wall_variation, twist_base_rad=d.normal(-0.06, 0.02), twist_apex_rad=d.normal(0.17, 0.04),
        papillary_mm=float(np.clip(d.normal(4.9, 0.7) * (mass / 90) ** 0.33, 2.5, 7.5)),
        trabeculae_mm=float(min(trabeculae, 5.5)), outflow_height=d.uniform(0.04, 0.09),
        outflow_rad=d.uniform(0.3, 0.6),
    )  # fmt: skip
    if group is Group.HYPERTROPHIC:
        # Papillary muscles are 8.7 (2.6) % of the mass in this disease too (Gommans et al., Neth Heart J 24:326, 2016).
        left = replace(_thicken(left, d.uniform(16.0, 24.0)), papillary_mm=min(1.3 * left.papillary_mm, 9.0))
    if group in (Group.DILATED, Group.INFARCT, Group.ABNORMAL_RV):
        left = replace(left, twist_apex_rad=left.twist_apex_rad * 0.5)
    right = RightVentricle(
        edv_ml=float(rv_edv), ef=float(rv_ef), span_rad=d.normal(1.22, 0.06, 1.02, 1.42),
        skew=d.normal(-0.32, 0.09, -0.55, -0.05),
        roundness=d.normal(1.75, 0.15, 1.4, 2.3) + (0.5 if group is Group.ABNORMAL_RV else 0.0),
        length_share=d.normal(0.90, 0.025, 0.82, 0.96),
        base_descent_mm=float(np.clip(descent * d.normal(1.35, 0.1) * (rv_ef / 0.56) ** 0.7, 3, 28)),
        wall_mm=rv_wall, trabeculae_mm=d.lognormal(2.6, 0.3, 0.8, 6), outflow_mm=d.normal(22, 3, 14, 32),
        band_mm=max(0.0, d.uniform(-3.0, 3.5)),
    )  # fmt: skip
    return left, right, scar


def _scar(d: Draw, territory: int) -> Scar:
    """Anterior descending, right or circumflex artery (Cerqueira et al., Circulation 105:539, 2002)."""
    at, wide, height, tall = [(0.7, 1.0, 0.72, 0.42), (-1.2, 0.85, 0.4, 0.4), (2.6, 0.8, 0.45, 0.4)][territory]
    return Scar(
        size=d.uniform(0.85, 1.0), theta_rad=at + d.normal(0, 0.2), half_width_rad=wide * d.uniform(0.75, 1.15),
        height=height + d.normal(0, 0.05), half_height=tall * d.uniform(0.8, 1.1), thinning=d.uniform(0.35, 0.6),
        fibrosis=d.uniform(0.4, 0.9),
    )  # fmt: skip


def _thicken(left: LeftVentricle, thickest_mm: float) -> LeftVentricle:
    """Return the ventricle with the septal bulge, then the mass, raised until its thickest wall is as asked."""
    for _ in range(30):
        if LeftShape(left).thickness_mm(0.0).max() >= thickest_mm:
            break
        left = replace(left, septal_bulge=min(2.2, left.septal_bulge + 0.25), mass_g=min(420.0, left.mass_g * 1.05))
    return left


def _surroundings(d: Draw, male: bool, bmi: float, bsa: float, group: Group) -> Surroundings:
    large = {Group.DILATED: 1.12, Group.HYPERTROPHIC: 1.12, Group.INFARCT: 1.06}.get(group, 1.0)
    return Surroundings(
        left_atrium_mm=d.normal(22, 2, 17, 30) * large * (bsa / 1.85) ** 0.33,
        right_atrium_mm2=d.normal(1500, 220, 900, 2200) * (1.35 if group is Group.ABNORMAL_RV else 1.0),
        aorta_mm=d.normal(16.0 if male else 14.3, 1.1, 11.5, 20),
        pulmonary_mm=d.normal(13.5 if male else 12.5, 1.2, 10, 18),
        fat_mm=float(np.clip(d.lognormal(1.9, 0.45) * (bmi / 26) ** 1.5, 0.4, 8)),
        groove_mm=float(np.clip(d.normal(4.5, 1.2) * (bmi / 26), 1, 11)),
        pericardium_mm=d.normal(1.2, 0.2, 0.8, 2.0),
    )


def _placement(d: Draw, bmi: float, age: float) -> Placement:
    lying = (bmi - 26) / 5 + 0.3 * (age - 58) / 10  # the heart lies flatter in the stout and the old
    return Placement(
        azimuth_rad=d.normal(0.73 + 0.05 * lying, 0.12, 0.4, 1.15),
        elevation_rad=d.normal(0.62 - 0.10 * lying, 0.10, 0.25, 0.9),
        roll_rad=d.normal(-0.06, 0.14, -0.45, 0.4),
        mitral_left_mm=d.normal(20, 4, 8, 34),
        mitral_back_mm=d.normal(6, 5, -8, 22),
        septum_rad=d.normal(np.pi + 0.12, 0.14, 2.75, 3.75),
        drift_x=d.normal(0.0, 0.03),
        drift_y=d.normal(0.0, 0.03),
        view_x_mm=d.normal(4, 9, -20, 28),
        view_y_mm=d.normal(-28, 9, -52, -4),
    )


def _thorax(d: Draw, male: bool, bmi: float, height: float) -> Thorax:
    stout = (bmi / 26) ** 0.55
    wide = (162 if male else 150) * stout * (height / 170) ** 0.5
    fat = (11.0 if male else 14.0) * (bmi / 26) ** 2
    return Thorax(
        half_width_mm=float(np.clip(wide * d.normal(1, 0.035), 120, 260)),
        half_depth_mm=float(np.clip((114 if male else 106) * stout * d.normal(1, 0.04), 85, 200)),
        squareness=d.normal(2.35, 0.15, 2.0, 2.9),
        fat_mm=float(np.clip(fat * d.lognormal(1, 0.25), 3, 45)),
        breast_mm=0.0 if male else float(np.clip(d.normal(24, 8) * (bmi / 26), 4, 55)),
        muscle_mm=d.normal(15 if male else 13, 1.8, 9, 21),
        visceral_fat=float(np.clip(0.35 + 0.03 * (bmi - 26) + (0.1 if male else 0) + d.normal(0, 0.12), 0, 1)),
        dome_right_mm=d.normal(0, 8, -20, 25),
        dome_left_mm=d.normal(26, 7, 8, 48),
        liver_left_mm=d.normal(45, 18, 0, 95),
        spleen_mm=d.normal(42, 6, 28, 58),
        stomach_mm=d.normal(34, 6, 20, 52),
        stomach_gas=d.uniform(0.0, 0.8),
        aorta_mm=d.normal(12.0 if male else 10.8, 1.2, 8.5, 17),
        rib_pitch_mm=d.normal(31, 2.5, 25, 38),
        lung_vessels=d.normal(1.0, 0.25, 0.4, 1.7),
    )
