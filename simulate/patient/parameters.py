"""Everything that a virtual patient is: typed, checked parameters with unit, range and source. All synthetic.

Angles around the left ventricle, called ``theta``, are counted from the middle of the septum: positive towards the
anterior wall (up in a short-axis image), negative towards the inferior wall, in radians. ``height`` along the long
axis runs from 0 at the mitral plane to 1 at the epicardial apex and belongs to the tissue: it moves with the wall.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

from kspace.errors import InputError
from simulate.patient.quantities import check_quantities, plain, quantity

_UKB = "Petersen et al., J Cardiovasc Magn Reson 19:18, 2017"
_WALL = "Kawel et al., Circ Cardiovasc Imaging 5:500, 2012"
_LAYER = "Dawson et al., Circ Cardiovasc Imaging 4:139, 2011; Kohli et al., Eur Heart J 29:89, 2008"
_LATE = "Helm et al., Circulation 111:2760, 2005; Auricchio et al., Circulation 109:1133, 2004"
_BLOCK = "Xiao, Lee and Gibson, Br Heart J 66:443, 1991; Plehn et al., Int J Med Sci 5:333, 2008"
_STASIS = "Eriksson et al., Eur Heart J Cardiovasc Imaging 14:417, 2013; Baccani et al., J Biomech 35:665, 2002"
_TENDONS = "Luetmer et al., J Am Coll Cardiol 8:179, 1986"
_WATER = "Thompson et al., J Cardiovasc Magn Reson, 2019; lung water in failure, Br J Radiol, 2023 (PMID 37001041)"
_LUNG = "0.10 of water after breathing in, 0.25 out: Theilmann et al., J Magn Reson Imaging 30:527, 2009"
_PI = 3.1415927


class Sex(StrEnum):
    """Sex, as the reference ranges know it."""

    FEMALE = "female"
    MALE = "male"


class Group(StrEnum):
    """Diagnostic groups, after the definitions of ACDC (Bernard et al., IEEE Trans Med Imaging 37:2514, 2018)."""

    NORMAL = "normal"
    DILATED = "dilated"
    HYPERTROPHIC = "hypertrophic"
    INFARCT = "infarct"
    ABNORMAL_RV = "abnormal_rv"


class _Checked:
    def __post_init__(self) -> None:
        check_quantities(self)


@dataclass(frozen=True)
class Rhythm(_Checked):
    """The resting heartbeat and the shares of its filling."""

    heart_rate_bpm: float = quantity("1/min", 35, 150, "resting heart rate", "UK Biobank resting rate, 60 to 70")
    systole_offset_s: float = quantity(
        "s", -0.06, 0.16, "end-systole later than the regression on heart rate", "Weissler et al., Circulation 37:149"
    )
    relaxation_s: float = quantity("s", 0.03, 0.24, "isovolumic relaxation", "Nagueh et al., JASE 29:277, 2016")
    atrial_share: float = quantity("", 0.05, 0.5, "share of the stroke volume that the atrium adds", "as relaxation")
    diastasis_share: float = quantity("", 0.0, 0.2, "share of the stroke volume that drifts in between")
    contraction_s: float = quantity(
        "s", 0.03, 0.22, "isovolumic contraction, after the R wave", "Weissler et al., Circulation 37:149", 0.045
    )
    early_s: float = quantity("s", 0.1, 0.4, "duration of early filling", "Appleton et al., JACC 12:426, 1988", 0.19)
    qrs_s: float = quantity("s", 0.06, 0.24, "duration of the QRS complex", _BLOCK, 0.092)
    late_apex_s: float = quantity("s", -0.15, 0.18, "contraction of the apex later than that of the base", _LATE, 0.0)
    late_wall_s: float = quantity("s", 0, 0.25, "contraction of the latest wall later than the opposite", _LATE, 0.0)
    late_rad: float = quantity("rad", -_PI, _PI, "direction of the latest wall", _LATE, _PI)
    late_scar_s: float = quantity(
        "s", 0, 0.15, "contraction of what still moves about an infarct, later than the rest",
        "Voigt et al., J Am Soc Echocardiogr 16:415, 2003", 0.0,
    )  # fmt: skip


@dataclass(frozen=True)
class LeftVentricle(_Checked):
    """Left ventricle at end-diastole and how it contracts."""

    edv_ml: float = quantity("mL", 40, 450, "end-diastolic volume, papillary muscles included", _UKB)
    ef: float = quantity("", 0.08, 0.88, "ejection fraction", _UKB)
    mass_g: float = quantity("g", 30, 450, "myocardial mass at 1.05 g/mL, papillary muscles excluded", _UKB)
    length_mm: float = quantity("mm", 60, 150, "mitral plane to epicardial apex at end-diastole", _UKB)
    base_descent_mm: float = quantity("mm", 0, 25, "descent of the mitral plane", "Bulluck et al., EHJCI 15:1, 2014")
    widest: float = quantity("", 0.05, 0.4, "height at which the ventricle is widest")
    bluntness: float = quantity("", 1.6, 3.5, "exponent of the long-axis profile: 2 is an ellipsoid, more is blunter")
    apex_mm: float = quantity("mm", 1.5, 12, "wall at the apex", "Bradfield et al., J Anat 166:241, 1989")
    ovality: float = quantity("", -0.2, 0.2, "second angular mode of the squared radius")
    ovality_rad: float = quantity("rad", -_PI, _PI, "direction of the second mode")
    trilobe: float = quantity("", -0.1, 0.1, "third angular mode of the squared radius")
    septal_bulge: float = quantity("", 0, 4, "excess of septal over mean wall area", "Maron, JAMA 287:1308, 2002")
    bulge_rad: float = quantity("rad", -_PI, _PI, "direction of the thickest wall", "as septal_bulge")
    bulge_height: float = quantity("", 0, 1, "height of the thickest wall", "as septal_bulge")
    wall_variation: float = quantity("", 0, 0.3, "regional variation of the wall, as a share", _WALL)
    twist_base_rad: float = quantity("rad", -0.2, 0.1, "rotation of the base at end-systole", "Young, Prog Cardiovasc")
    twist_apex_rad: float = quantity("rad", -0.05, 0.4, "rotation of the apex at end-systole", "as twist_base_rad")
    papillary_mm: float = quantity("mm", 1, 9, "radius of the papillary muscles", "Axel, J Cardiovasc Magn Reson 2004")
    trabeculae_mm: float = quantity("mm", 0, 6, "depth of trabeculae", "Captur et al., Nat Protoc 9:2643, 2014")
    outflow_height: float = quantity("", 0, 0.3, "height up to which the wall opens to the outflow tract")
    outflow_rad: float = quantity("rad", 0, 1.2, "half the angle of that opening at the mitral plane")
    spongy_mm: float = quantity("mm", 0, 16, "depth of the layer of trabeculae and blood, at 0.75 height", _LAYER, 0.0)
    spongy_share: float = quantity("", 0, 0.9, "share of muscle in that layer next to the compact wall", default=0.6)
    spongy_mass: float = quantity(
        "", 0.02, 1, "most that muscle in that layer weighs, over the compact wall's mass",
        "Chuang et al., JACC Cardiovasc Imaging 5:1115, 2012", 1.0,
    )  # fmt: skip
    slow_mm: float = quantity("mm", 0, 16, "depth of blood next to rest along the wall, at half height", _STASIS, 0.0)
    slow_dark: float = quantity("", 0, 0.4, "share of signal that blood at rest loses by dephasing", default=0.0)
    tendons: int = quantity("", 0, 6, "false tendons across the cavity", _TENDONS, 0)
    strands: int = quantity("", 0, 40, "trabeculae from wall to wall and from papillary muscle to wall", _LAYER, 0)


@dataclass(frozen=True)
class Scar(_Checked):
    """A chronic infarct; ``size`` 0 means there is none."""

    size: float = quantity("", 0, 1, "0 none, 1 thin and akinetic throughout its core", "ACDC definition", 0.0)
    theta_rad: float = quantity("rad", -_PI, _PI, "middle of the territory", "Cerqueira, Circulation 105:539", 0.0)
    half_width_rad: float = quantity("rad", 0.2, 2.6, "half its angle", "as theta_rad", 0.8)
    height: float = quantity("", 0, 1, "middle of its height", "as theta_rad", 0.6)
    half_height: float = quantity("", 0.1, 1, "half its extent in height", "as theta_rad", 0.4)
    thinning: float = quantity("", 0, 0.75, "share of the wall that is lost in its core", "Baer, Circulation 1995", 0.0)
    fibrosis: float = quantity("", 0, 1, "share of the remaining wall that is scar", "as thinning", 0.0)
    dyskinesis: float = quantity(
        "", 0, 0.5, "outward motion of its core over the inward motion of healthy wall",
        "a quarter bulge: Visser et al., Am J Cardiol 57:729, 1986", 0.0,
    )  # fmt: skip


@dataclass(frozen=True)
class RightVentricle(_Checked):
    """Right ventricle at end-diastole and how it contracts."""

    edv_ml: float = quantity("mL", 40, 500, "end-diastolic volume", _UKB)
    ef: float = quantity("", 0.08, 0.85, "ejection fraction", _UKB)
    span_rad: float = quantity("rad", 0.8, 1.6, "half the angle of the left ventricle that it embraces")
    skew: float = quantity("", -0.6, 0.4, "where it is widest: towards the anterior (positive) or inferior side")
    roundness: float = quantity("", 1.2, 5, "exponent of its outline: 2 is a parabola, less a triangle")
    length_share: float = quantity("", 0.6, 1.0, "its length over the left ventricle's")
    base_descent_mm: float = quantity("mm", 0, 32, "descent of the tricuspid plane", "Rudski, JASE 23:685, 2010")
    wall_mm: float = quantity("mm", 1.5, 9, "free wall", "Rudski, JASE 23:685, 2010")
    trabeculae_mm: float = quantity("mm", 0, 8, "depth of trabeculae")
    outflow_mm: float = quantity("mm", 5, 45, "tricuspid plane to pulmonary valve")
    band_mm: float = quantity("mm", 0, 5, "thickness of the moderator band")


@dataclass(frozen=True)
class Surroundings(_Checked):
    """Atria, great vessels, fat and pericardium around the ventricles."""

    left_atrium_mm: float = quantity("mm", 12, 40, "radius of the left atrium at end-diastole", _UKB)
    right_atrium_mm2: float = quantity("mm^2", 500, 4000, "area of the right atrium above its valve", _UKB)
    aorta_mm: float = quantity("mm", 9, 22, "radius of the aortic root and ascending aorta", "Turkbey, JMRI 39:360")
    pulmonary_mm: float = quantity("mm", 8, 20, "radius of the pulmonary artery", "as aorta_mm")
    fat_mm: float = quantity("mm", 0.3, 12, "epicardial fat over the free walls", "Iacobellis, Nat Rev Endocrinol 2015")
    groove_mm: float = quantity("mm", 0, 15, "further fat at the base, in the atrioventricular groove", "as fat_mm")
    pericardium_mm: float = quantity("mm", 0.5, 3, "pericardium", "Sechtem, Circulation 1986: 1 to 2 mm")


@dataclass(frozen=True)
class Placement(_Checked):
    """How the heart lies in the chest: the long axis from mitral plane to apex, and where the mitral plane is."""

    azimuth_rad: float = quantity("rad", 0.2, 1.3, "long axis, from anterior towards the left", "Engblom, Clin Physiol")
    elevation_rad: float = quantity("rad", -0.2, 0.9, "long axis, from horizontal towards the feet", "as azimuth_rad")
    roll_rad: float = quantity("rad", -0.8, 0.8, "turn of the image about the long axis, from its columns to its rows")
    mitral_left_mm: float = quantity("mm", -10, 60, "mitral centre left of the body's midline")
    mitral_back_mm: float = quantity("mm", -50, 60, "mitral centre behind the middle of the chest")
    septum_rad: float = quantity("rad", 2.0, 4.4, "direction of the septum's middle, from +x towards +y (down)")
    drift_x: float = quantity("", -0.3, 0.3, "shift of the axis along x per mm of z")
    drift_y: float = quantity("", -0.3, 0.3, "shift of the axis along y per mm of z")
    view_x_mm: float = quantity("mm", -50, 50, "heart's centre right of the field of view's")
    view_y_mm: float = quantity("mm", -70, 30, "heart's centre below the field of view's")


@dataclass(frozen=True)
class Thorax(_Checked):
    """The body around the heart."""

    half_width_mm: float = quantity("mm", 110, 280, "half the chest's width", "ANSUR II anthropometric survey, 2012")
    half_depth_mm: float = quantity("mm", 75, 220, "half the chest's depth", "ANSUR II anthropometric survey, 2012")
    squareness: float = quantity("", 1.8, 3.2, "exponent of the chest's outline: 2 is an ellipse")
    fat_mm: float = quantity("mm", 2, 50, "subcutaneous fat in front", "Störchle et al., Sci Rep 8:16268, 2018")
    breast_mm: float = quantity("mm", 0, 60, "how far the breasts stand out from the chest")
    muscle_mm: float = quantity("mm", 6, 26, "muscles and ribs of the chest wall")
    visceral_fat: float = quantity("", 0, 1, "0 lean, 1 much fat around the organs and behind the breastbone")
    dome_right_mm: float = quantity("mm", -40, 50, "right dome of the diaphragm towards the feet from the mitral plane")
    dome_left_mm: float = quantity("mm", -20, 70, "left dome, likewise")
    liver_left_mm: float = quantity("mm", -20, 110, "how far the left lobe of the liver reaches over the midline")
    spleen_mm: float = quantity("mm", 20, 60, "half the spleen's length", "Prassopoulos, Eur Radiol 7:246, 1997")
    stomach_mm: float = quantity("mm", 15, 60, "radius of the stomach's fundus")
    stomach_gas: float = quantity("", 0, 1, "share of the stomach that is gas")
    aorta_mm: float = quantity("mm", 8, 18, "radius of the descending aorta", "Turkbey et al., JMRI 39:360, 2014")
    rib_pitch_mm: float = quantity("mm", 22, 42, "distance of the ribs")
    lung_vessels: float = quantity("", 0, 2, "density of the lungs' vessels, 1 is usual")
    lung_density: float = quantity("", 0.4, 1.6, "density of lung over that of a usual breath-hold", _LUNG, 1.0)
    lung_water: float = quantity("", 0.6, 2.5, "water of lung over that of health, equally inflated", _WATER, 1.0)


@dataclass(frozen=True)
class Texture(_Checked):
    """Standard deviation of the signal inside tissues, as a share of their mean."""

    blood: float = quantity("", 0, 0.3, "swirl of blood")
    myocardium: float = quantity("", 0, 0.3, "myocardium")
    muscle: float = quantity("", 0, 0.5, "skeletal muscle, with its fat planes")
    fat: float = quantity("", 0, 0.5, "lobules of fat")
    liver: float = quantity("", 0, 0.3, "liver and spleen")
    lung: float = quantity("", 0, 0.8, "lung")


@dataclass(frozen=True)
class Patient(_Checked):
    """A virtual patient.

    Raises
    ------
    InputError
        When a number is not finite or outside its range.
    """

    sex: Sex
    group: Group
    rhythm: Rhythm
    left: LeftVentricle
    right: RightVentricle
    scar: Scar
    around: Surroundings
    placement: Placement
    thorax: Thorax
    texture: Texture
    seed: int = quantity("", 0, 2**62, "of the patient, and of every detail that is no parameter")
    age_years: float = quantity("years", 18, 100, "age", "UK Biobank: 45 to 75")
    height_cm: float = quantity("cm", 130, 215, "body height", "Health Survey for England 2019")
    weight_kg: float = quantity("kg", 35, 200, "body weight", "Health Survey for England 2019")

    @property
    def bsa_m2(self) -> float:
        """Body surface area in m^2 (Mosteller, N Engl J Med 317:1098, 1987)."""
        return float((self.height_cm * self.weight_kg / 3600) ** 0.5)

    @property
    def rr_s(self) -> float:
        """RR interval at rest, in seconds."""
        return 60.0 / self.rhythm.heart_rate_bpm

    def to_dict(self) -> dict[str, Any]:
        """Return every parameter, nested, as JSON can hold it."""
        return plain(self)

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Self:
        """Build the patient that :meth:`to_dict` recorded."""
        parts = {
            "rhythm": Rhythm, "left": LeftVentricle, "right": RightVentricle, "scar": Scar, "around": Surroundings,
            "placement": Placement, "thorax": Thorax, "texture": Texture, "sex": Sex, "group": Group,
        }  # fmt: skip
        names = {entry.name for entry in fields(cls)}
        if set(record) != names:
            raise InputError(
                f"the record of a patient holds {sorted(set(record) ^ names)} too many or too few",
                expected=f"exactly {sorted(names)}",
            )
        try:
            values = {
                name: parts[name](**value) if isinstance(value, dict) else parts.get(name, _same)(value)
                for name, value in record.items()
            }
        except (TypeError, ValueError) as error:
            raise InputError(f"a patient's record cannot be read: {error}", expected="a record of to_dict") from None
        return cls(**values)


def _same(value: Any) -> Any:
    return value
