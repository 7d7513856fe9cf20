"""A virtual patient in a magnet: the signal of its tissues under a balanced sequence, and what receive loops see.

The main field is imperfect, the transmit field uneven, relaxation differs from patient to patient, and blood that flows
through a slice is brighter than blood at rest. All of it is synthetic; magnitudes are from the sources stated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from kspace.scan import Geometry
from simulate.body import BodyState
from simulate.coils import loop_field
from simulate.patient.cardiac_cycle import filling
from simulate.patient.parameters import Patient
from simulate.patient.placement import axes, mitral_centre, stack_affine
from simulate.patient.texture import Waves
from simulate.patient.thorax import MOST_OVER_MEAN
from simulate.signal import TISSUES, BalancedSequence, TissueProperties, inflow_factor, tissue_signals, transmit_map
from simulate.tissues import Tissue

RELAXATION_SPREAD = 0.07
"""Standard deviation between people of T1, T2 and density, relative (von Knobelsdorff-Brenkenhoff et al., 2013)."""
FIELD_SPREAD_HZ = 22.0
"""Standard deviation over the heart of the main field at 1.5 T after shimming; it grows with the field strength. About
a third of the 71 Hz from peak to peak of Reeder et al., Magn Reson Med 39:988, 1998."""
_COARSE_MM = 9.0  # fields are smooth: computed this finely, then interpolated
_SLOWEST_MM_S = 25.0  # blood in a chamber is never at rest
_PASSAGE_S = 0.12  # blood at 70 mm/s passes a slice of 8 mm


FAT_T2_SPAN = (0.35, 1.0)
"""T2 of fat over the table's, from shortest to longest: between the 58 ms of single echoes (de Bazelaire et al.,
Radiology 230:652, 2004) and the long one of short echo spacing (Gold et al., AJR 183:343, 2004)."""
LUNG_SPAN = (0.6, 3.6)
"""Density of lung over the table's, of which some dephases: from 0.10 g/mL of water, less a quarter that has, to the
0.43 g/mL of lung that has breathed out and lies under the heart (Theilmann et al., J Magn Reson Imaging 30:527, 2009;
Bankier et al., J Magn Reson Imaging 20:495, 2004)."""
LUNG_T2_BY_WATER, LUNG_T2_BY_INFLATION = 0.7, 0.3
"""Exponents of T2 of lung over its water and over its density at the same water. In oedema 1/T2 follows 1/water (Magn
Reson Med 8:450, 1988), here less than in proportion; from inspiration to expiration T2 rises by 8 % as density rises by
27 % (Olsson and Hockings, PLoS ONE 11:e0166879, 2016)."""
LUNG_MOST = 0.5
"""Density of lung in g/mL that nothing exceeds, however far breathed out, wet and dependent: half of the air is gone
from lung of twice the water that is in a healthy one (0.27 (0.03) at residual volume, Theilmann et al., 2009)."""
LUNG_T2_SPAN = (1.0, 2.2)
"""T2 of lung over the table's: near half of a lung's mass is blood (ICRP Publication 89, 2002), most of it in vessels
too small to be drawn, and its T2 is five times that of the tissue."""


def patient_tissues(patient: Patient, field_t: float) -> dict[Tissue, TissueProperties]:
    """Return the tissues of one patient: the table's, spread by :data:`RELAXATION_SPREAD` and the spans."""
    rng = np.random.default_rng([patient.seed, 400])
    spans = FAT_T2_SPAN, LUNG_SPAN, LUNG_T2_SPAN
    fat_t2, lung, lung_t2 = (float(np.exp(rng.uniform(*np.log(span)))) for span in spans)
    t = patient.thorax
    lung_t2 *= t.lung_water**LUNG_T2_BY_WATER * t.lung_density**LUNG_T2_BY_INFLATION
    own = {}
    for tissue, entry in TISSUES[field_t].items():
        t1, t2, density = np.exp(RELAXATION_SPREAD * np.clip(rng.normal(size=3), -2, 2))
        t1_s = float(entry.t1_s * t1)
        t2 *= {Tissue.FAT: fat_t2, Tissue.LUNG: lung_t2}.get(tissue, 1.0)
        if tissue is Tissue.LUNG:
            density *= _lung_share(patient, lung * density * entry.density) * lung
        own[tissue] = replace(
            entry, t1_s=t1_s, t2_s=min(float(entry.t2_s * t2), t1_s), density=min(1.2, float(entry.density * density))
        )
    return own


def _lung_share(patient: Patient, density: float) -> float:
    """Return by how much a patient's lung is thinned out so that it stays below :data:`LUNG_MOST` everywhere.

    What the patient's breath-hold and lung water multiply the density by, and how much the densest place exceeds the
    mean, is drawn with the body (:mod:`simulate.patient.thorax`).
    """
    mean, most = density * patient.thorax.lung_density * patient.thorax.lung_water, LUNG_MOST / MOST_OVER_MEAN
    return float((1 + (mean / most) ** 4) ** -0.25)


def coarse_points(patient: Patient, geometry: Geometry, slice_index: int, step_mm: float = _COARSE_MM) -> Tensor:
    """Return stack coordinates (x, y, z) in mm on a coarse grid whose corners are the slice's: (y, x, 3) float32."""
    _, rows, columns = geometry.shape
    _, dy, dx = geometry.spacing_mm
    j = torch.linspace(0, rows - 1, max(4, math.ceil(rows * dy / step_mm)), dtype=torch.float64)
    i = torch.linspace(0, columns - 1, max(4, math.ceil(columns * dx / step_mm)), dtype=torch.float64)
    index = torch.stack(torch.meshgrid(j, i, indexing="ij"), -1).flip(-1)
    at = torch.from_numpy(stack_affine(patient, geometry))
    return (index @ at[:3, :2].T + at[:3, 2] * slice_index + at[:3, 3]).float()


def refined(field: Tensor, matrix: tuple[int, int]) -> Tensor:
    """Interpolate a smooth (n, y, x) real field between its corners to (n, rows, columns)."""
    fine: Tensor = interpolate(field[None], size=matrix, mode="bicubic", align_corners=True)[0]
    return fine


def off_resonance(patient: Patient, points: Tensor, field_t: float, seed: int = 0) -> Tensor:
    """Return what shimming left of the main field's error, in Hz, at stack coordinates (..., 3): a smooth random field.

    Phenomenological: a random field of 130 mm wavelength and :data:`FIELD_SPREAD_HZ`, a gradient of a third of it per
    60 mm, and an error of the centre frequency.
    """
    spread = FIELD_SPREAD_HZ * field_t / 1.5
    rng = np.random.default_rng([patient.seed, 401, seed])
    waves = Waves((patient.seed, 402, seed), 130.0, 10)
    slope = torch.from_numpy(rng.normal(0, spread / 3 / 60, 3).astype(np.float32))
    return spread * waves(points) + points @ slope + float(rng.normal(0, 0.4 * spread))


def through_plane_mm_s(patient: Patient, state: BodyState, z_mm: float) -> float:
    """Return the mean speed of blood through a short-axis plane of the left ventricle, in mm/s.

    The change of the volume below the plane over the cavity's area, both of half an ellipsoid, in the time that blood
    takes to pass a slice (:data:`_PASSAGE_S`): brightness does not follow what is faster.
    """
    step = _PASSAGE_S / 2 / patient.rr_s
    rate = (filling(patient.rhythm, state.phase + step) - filling(patient.rhythm, state.phase - step)) / (2 * step)
    left = patient.left
    height = min(1.0, max(0.0, z_mm / left.length_mm))
    base_mm2 = 1.5 * left.edv_ml * 1e3 / left.length_mm
    speed = left.edv_ml * 1e3 * left.ef * rate / patient.rr_s / base_mm2 * (1 - height)
    return math.hypot(_SLOWEST_MM_S, state.stroke * speed)


class MagnetSignals:
    """Signals of a patient in a scanner: a source of signals for :class:`simulate.patient.anatomy.PatientBody`.

    Parameters
    ----------
    patient, geometry
        Who lies there, and the stack.
    sequence
        Flip angle, TR, TE and field strength.
    fresh
        Share of inflowing blood that has seen no pulse.
    seed
        Of the fields; those of one patient and seed are the same in every slice.
    tissues
        Properties by tissue; those of :func:`patient_tissues` by default.
    """

    def __init__(
        self, patient: Patient, geometry: Geometry, sequence: BalancedSequence, *, fresh: float = 0.3, seed: int = 0,
        tissues: Mapping[Tissue, TissueProperties] | None = None,
    ) -> None:  # fmt: skip
        self.patient, self.geometry, self.sequence = patient, geometry, sequence
        self._fresh, self._seed = fresh, seed
        self._tissues = dict(tissues) if tissues is not None else patient_tissues(patient, sequence.field_t)
        self._tilt = float(np.random.default_rng([patient.seed, 403, seed]).normal(0, 0.03))
        self._still: tuple[int, Tensor] | None = None

    def __call__(self, slice_index: int, state: BodyState) -> Tensor:
        """Return (N_TISSUES, y, x) complex64."""
        if self._still is None or self._still[0] != slice_index:
            self._still = slice_index, self._at_rest(slice_index)
        signals = self._still[1].clone()
        for tissue in (Tissue.ARTERIAL_BLOOD, Tissue.VENOUS_BLOOD):
            signals[tissue] *= self.brightening(slice_index, state, tissue)
        return signals

    def brightening(self, slice_index: int, state: BodyState, tissue: Tissue = Tissue.ARTERIAL_BLOOD) -> float:
        """Return how much brighter blood that flows is in a slice than blood at rest."""
        at = stack_affine(self.patient, self.geometry)
        z = float(at[2, 2] * slice_index + at[2, 3])
        speed = torch.tensor(through_plane_mm_s(self.patient, state, z))
        thickness = self.geometry.slice_thickness_mm or self.geometry.spacing_mm[0]
        return float(inflow_factor(self.sequence, speed, thickness, tissue=tissue, fresh=self._fresh))

    def _at_rest(self, slice_index: int) -> Tensor:
        points = coarse_points(self.patient, self.geometry, slice_index)
        hz = off_resonance(self.patient, points, self.sequence.field_t, self._seed)
        b1 = transmit_map(points[..., 0], points[..., 1], field_t=self.sequence.field_t, tilt=self._tilt)
        signals = tissue_signals(self.sequence, hz, b1, tissues=self._tissues)
        matrix = self.geometry.shape[1], self.geometry.shape[2]
        return torch.complex(refined(signals.real, matrix), refined(signals.imag, matrix))


@dataclass(frozen=True)
class ChestArray:
    """Receive loops in rows on the front and the back of a chest.

    Parameters
    ----------
    n_coils
        Number of loops.
    radius_mm
        Their radius.
    gap_mm
        Their distance from the skin.
    seed
        Of small displacements.
    """

    n_coils: int = 16
    radius_mm: float = 55.0
    gap_mm: float = 10.0
    seed: int = 0

    def loops(self, patient: Patient) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return centre (mm) and inward normal of each loop in body coordinates (left, back, feet)."""
        rng = np.random.default_rng([self.seed, 410])
        t = patient.thorax
        a, b = t.half_width_mm + self.gap_mm, t.half_depth_mm + self.gap_mm
        n_rows = max(1, round(self.n_coils / 6))
        centre_feet = 25.0  # over the heart, not over the mitral plane
        found = []
        for row, members in enumerate(np.array_split(np.arange(self.n_coils), n_rows)):
            feet = centre_feet + (row - (n_rows - 1) / 2) * 1.5 * self.radius_mm
            front = -(-len(members) // 2)
            for side, count in ((-1.0, front), (1.0, len(members) - front)):
                for place in range(count):
                    angle = ((place + 0.5) / count - 0.5) * math.radians(120) + math.radians(12)
                    angle += 0.04 * rng.normal()
                    left, back = a * math.sin(angle), side * b * math.cos(angle)
                    inward = np.array([-left / a**2, -back / b**2, 0.0])
                    centre = np.array([left, back, feet + 0.05 * self.radius_mm * rng.normal()])
                    found.append((centre, inward / np.linalg.norm(inward)))
        return found

    def shading(self, patient: Patient, geometry: Geometry, slice_index: int) -> Tensor:
        """Return the root sum of squares of the loops' sensitivities, 1 at the heart: (y, x) float32.

        The main field runs along the body; a loop's sensitivity is the transverse field that it would make.
        """
        stack = coarse_points(patient, geometry, slice_index).double().numpy()
        rows, columns = stack.shape[:2]
        middle = np.array([[[0.0, 0.0, 0.5 * patient.left.length_mm]]])
        for_all = np.concatenate([stack.reshape(-1, 3), middle.reshape(1, 3)])
        body = for_all @ axes(patient) + mitral_centre(patient)
        power = np.zeros(len(body))
        for centre, normal in self.loops(patient):
            field = loop_field(body, centre, normal, self.radius_mm, segments=24, wire_mm=14.0)
            power += field[:, 0] ** 2 + field[:, 1] ** 2
        relative = np.sqrt(power[:-1] / power[-1]).reshape(1, rows, columns)
        fine = refined(torch.from_numpy(relative).float(), (geometry.shape[1], geometry.shape[2]))
        return fine[0].clamp_min(1e-3)
