"""What failing hearts have, and healthy ones less of: late walls, stasis, trabeculae, wet lungs. All synthetic.

Each part has a generator of its own, so that what was drawn before it was added stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kspace.errors import InputError
from simulate.patient.draw import Draw
from simulate.patient.left import LeftShape
from simulate.patient.parameters import Group, LeftVentricle, Rhythm, Scar

_DEEPER_MM_ML = 0.02
"""Rise of the trabeculated layer's mean depth with the end-diastolic volume: the ratio of trabeculae to compact wall
rises by 0.01 per mL in the region where it is largest (Kawel et al., Circ Cardiovasc Imaging 5:357, 2012), which is
0.05 mm per mL over a wall of 5 mm; as a mean over all regions less than half of it is drawn."""
FAILING = (Group.DILATED, Group.INFARCT)
"""Groups whose left ventricle fails."""


def medicated_rate(resting_bpm: float, group: Group) -> float:
    """Resting heart rate of who has a failing heart, in 1/min, from the one that a healthy person would have.

    With an ejection fraction up to 35 % and on beta-blockers the median is 71 (quartiles 60 and 84) in 8,041 patients
    (Varian et al., Resting heart rate in ambulatory heart failure with reduced ejection fraction treated with
    beta-blockers): twice the spread of health, as some hearts race and others are slowed.
    """
    return float(np.clip(71 + 2.0 * (resting_bpm - 65), 42, 115)) if group in FAILING else resting_bpm


def out_of_step(d: Draw, new: Draw, last: Draw, rhythm: Rhythm, group: Group) -> Rhythm:
    """Failing hearts: slow to build up pressure and to relax; with a broad QRS complex, late and out of step.

    A third to a half of dilated hearts and fewer after infarction have QRS above 120 ms (Baldasseroni et al., Am Heart
    J 143:398, 2002); their lateral wall comes last by 30 to 120 ms (Auricchio et al., Circulation 109:1133, 2004).
    In dilated hearts with left bundle branch block contraction before ejection takes 130 (40) ms instead of 70 (20) and
    relaxation 130 (30) instead of 80 (30) (Xiao, Lee and Gibson, Br Heart J 66:443, 1991), and systole lasts longer by
    39 (32) ms (Plehn et al., Int J Med Sci 5:333, 2008); without it the failing heart's systole lasts as long as the
    healthy one's (Weissler et al., Circulation 37:149, 1968). Both isovolumic times grow here with the complex beyond
    100 ms. Times at which the 16 segments are smallest differ by 16.7 (5.8) % of the beat in dilated hearts, 8.6 (2.2)
    after infarction and 3.1 (1.0) in health (Khetan, Int J Res Med Sci, 2019; 15.6 (1.0) in severe failure: Kapetanakis
    et al., Circulation 112:992, 2005); some of that is noise in segments that hardly move, and half of it is drawn.
    The apex goes on shortening when the base has begun to lengthen: by how much is this simulator's choice, made after
    a look at two real hearts, where it is 130 and 140 ms. Where relaxation is impaired, early flow decelerates for over
    220 ms instead of 180; in a third, of restrictive filling, for less than 150 (Appleton, Hatle and Popp, J Am Coll
    Cardiol 12:426, 1988). ``d`` draws what was there first, ``new`` what came later, ``last`` the rest.
    """
    if group not in FAILING:
        return replace(rhythm, qrs_s=new.normal(0.092, 0.009, 0.07, 0.116))
    broad = d.uniform(0, 1) < (0.5 if group is Group.DILATED else 0.33)
    later = d.normal(0.075, 0.032, 0.0, 0.16) if broad else d.normal(0.02, 0.022, -0.03, 0.08)
    slower = d.normal(0.025, 0.025, -0.02, 0.09)
    contraction = d.normal(0.085, 0.012, 0.06, 0.11) if broad else d.normal(0.065, 0.01, 0.045, 0.09)
    qrs = new.normal(0.150, 0.018, 0.121, 0.195) if broad else new.normal(0.100, 0.010, 0.078, 0.119)
    conduction = max(0.0, qrs - 0.10)
    return replace(
        rhythm,
        systole_offset_s=float(np.clip(rhythm.systole_offset_s + later, -0.06, 0.16)),
        relaxation_s=float(np.clip(rhythm.relaxation_s + slower + 0.8 * conduction, 0.035, 0.22)),
        contraction_s=float(np.clip(contraction + 0.9 * conduction, 0.03, 0.2)),
        late_apex_s=d.normal(0.02, 0.03, -0.05, 0.09) + last.normal(0.08, 0.05, -0.09, 0.09),
        late_wall_s=(d.normal(0.075, 0.02, 0.03, 0.12) if broad else d.normal(0.025, 0.01, 0.0, 0.05))
        + (last.normal(0.04, 0.03, 0.0, 0.13) if group is Group.INFARCT else last.normal(0.09, 0.04, 0.0, 0.13)),
        late_rad=float((d.normal(np.pi, 0.4) + np.pi) % (2 * np.pi) - np.pi),
        qrs_s=qrs,
        early_s=last.normal(0.165, 0.015, 0.13, 0.19)
        if last.uniform(0, 1) < 0.33
        else last.normal(0.25, 0.03, 0.19, 0.34),
        late_scar_s=_after_systole(new) if group is Group.INFARCT else 0.0,
    )


def _after_systole(d: Draw) -> float:
    """Four of five scarred segments go on shortening after the aortic valve has closed (Voigt et al., 2003).

    In healthy people shortening outlasts systole by 23 (11 to 41) ms (Brainin et al., Int J Cardiovasc Imaging, 2019).
    """
    return d.normal(0.095, 0.03, 0.02, 0.15) if d.uniform(0, 1) < 0.79 else d.normal(0.02, 0.01, 0.0, 0.04)


def trabeculated(d: Draw, new: Draw, last: Draw, left: LeftVentricle, group: Group) -> LeftVentricle:
    """Trabeculae and blood inside the compact wall, deeper in dilated hearts (see the parameters' sources).

    False tendons are in 55 % of hearts, two or more in 21 % (Luetmer et al., J Am Coll Cardiol 8:179, 1986). How many
    trabeculae are drawn one by one is this simulator's choice. Blood next to rest: where flow swings to and fro at the
    rate of the heart, friction reaches 1.1 mm from a wall, so that half of the speed is reached within 1 mm and nearly
    all within 2 to 3. Blood that neither enters nor leaves within a beat is 30 (4) % of the end-diastolic volume in
    health (Stoll et al., J Cardiovasc Magn Reson, 2018, PMC5833126) and more in failure (Eriksson et al., Eur Heart J
    Cardiovasc Imaging 14:417, 2013), and stagnates longest at the apex (Baccani et al., 2002). Half of a large
    ventricle's volume, as a layer along the wall, would be 10 mm deep, which the depth that is drawn reaches in the
    worst of failing hearts. How much patients differ is not known; the spread is wide.
    """
    depth, spread = (6.5, 1.6) if group in FAILING else (3.0, 0.8)
    low, high = (3.0, 10.0) if depth > 3 else (1.2, 5.5)
    many = (8, 19) if group in FAILING else (5, 13)
    spongy = d.normal(depth, spread, low, high)
    if group in FAILING:  # trabeculae over wall rise by 0.01 per mL where they are deepest (Kawel et al., 2012)
        spongy = min(15.0, spongy + max(0.0, _DEEPER_MM_ML * (left.edv_ml - 150)))
    share = d.normal(0.6, 0.1, 0.35, 0.85)
    slow = new.lognormal(2.0 * 0.6 / max(left.ef, 0.15), 0.45, 0.8, 14.0)
    dark = new.uniform(0.0, 0.4 if group in FAILING else 0.15)
    # In magnetic resonance 36 % of dilated hearts are hypertrabeculated by length, 44 % by mass (Amzulescu et al., JACC
    # Cardiovasc Imaging 8:934, 2015); ultrasound sees a quarter among failing hearts in general (Kohli et al., Eur
    # Heart J 29:89, 2008). The layer is then 13.1 (3.3) mm where it is deepest (Deviggiano et al., Rev Argent Cardiol,
    # 2012): less as a mean over the angle.
    many_ridges = group in FAILING and new.uniform(0, 1) < 0.44
    return replace(
        left,
        spongy_mm=max(spongy, last.normal(11.0, 2.75, 7.0, 16.0)) if many_ridges else spongy,
        spongy_share=share,
        slow_mm=slow,
        slow_dark=dark,
        spongy_mass=_trabecular_mass(new, group, many_ridges),
        tendons=int(new.rng.choice(4, p=[0.45, 0.34, 0.15, 0.06])),
        strands=int(new.rng.integers(*many)),
    )


def _trabecular_mass(d: Draw, group: Group, many: bool) -> float:
    """Trabeculae over the compact wall's mass.

    In health trabeculae and papillary muscles add 28 % to the mass of the wall (Chuang et al., JACC Cardiovasc Imaging
    5:1115, 2012), papillary muscles alone 8.9 % (50 men and women, PMID 16778617): 19 % are trabeculae. What disease
    changes is known by another method, which finds 12 (5) % in health, 11 (4) % in dilated hearts and 32 (10) % where
    the wall is not compacted, with the blood between trabeculae, of which three quarters are muscle (Jacquier et al.,
    Eur Heart J 31:1098, 2010). Its ratios to health, 0.9 and 2.0, and its relative spreads are taken here on the scale
    on which health is drawn.
    """
    if group in FAILING:
        return d.normal(0.36, 0.11, 0.205, 0.6) if many else d.normal(0.165, 0.06, 0.06, 0.32)
    return d.normal(0.18, 0.05, 0.07, 0.3)


def bulging(d: Draw, left: LeftVentricle, scar: Scar) -> Scar:
    """A quarter of infarcts bulge in systole, most of them anterior (Visser et al., Am J Cardiol 57:729, 1986).

    Of 158 infarcts 35 did, 27 of the 84 anterior ones. The rest of the wall must still be able to eject the stroke
    volume: where it could not, the infarct bulges less.
    """
    anterior = scar.theta_rad > -0.3 and scar.height > 0.6
    bulge = d.uniform(0.08, 0.35) if d.uniform(0, 1) < (0.32 if anterior else 0.11) else 0.0
    while bulge > 0.02:
        candidate = replace(scar, dyskinesis=bulge)
        try:
            LeftShape(left, candidate)
        except InputError:
            bulge *= 0.6
            continue
        return candidate
    return scar


def lung_density(d: Draw) -> float:
    """Two of three hold their breath after breathing out, as protocols ask (Kramer et al., JCMR 22:17, 2020).

    From all the way in to all the way out, density grows 2.5-fold (Theilmann et al., J Magn Reson Imaging 30:527,
    2009); who is asked to hold goes two thirds of that way.
    """
    out = d.uniform(0, 1) < 0.67
    return d.lognormal(1.2 if out else 0.68, 0.2, 0.45, 1.6)


def lung_water(d: Draw, group: Group, ef: float) -> float:
    """Water of the lung over health's, more as less is ejected.

    16.6 (2.1) % in health, 17.9 (3.0) at risk and 19.3 (5.4) in failure (Thompson et al., J Cardiovasc Magn Reson
    21:58, 2019); 13.6 (2.3) in health and 19.8 (6.1) with an ejection fraction below 0.5 (Br J Radiol, 2023, PMID
    37001041): 1.16 to 1.45 times as much, with a spread of 30 %.
    """
    if group in FAILING:
        return d.lognormal(1.3 * float(np.exp(0.30 - ef)), 0.28, 0.7, 2.4)
    return d.lognormal(1.0, 0.13) if group is Group.NORMAL else d.lognormal(1.07, 0.17)
