"""The heartbeat as curves over its phase: how full the ventricles are, and how far they are twisted.

Intervals follow the heart rate: systole shortens a little, diastole a lot (Weissler et al., Circulation 37:149, 1968;
Chung et al., Am J Physiol Heart Circ Physiol 287:H2003, 2004). Phase 0 is end-diastole, at the R wave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulate.body import BodyState
from simulate.patient.parameters import Patient, Rhythm

_Q_TO_R_S = 0.04
_ATRIAL_S = 0.15  # duration of the atrial kick


def ramp(x: float) -> float:
    """Rise from 0 to 1 over [0, 1] with two continuous derivatives."""
    x = min(1.0, max(0.0, x))
    return x * x * x * (10 + x * (6 * x - 15))


@dataclass(frozen=True)
class Timing:
    """Instants of one regular beat, as phases in [0, 1]."""

    opening: float
    """The aortic valve opens; the volume is constant before."""
    end_systole: float
    """The ventricle is smallest."""
    relaxed: float
    """The mitral valve opens; the volume is constant since end-systole."""
    early_end: float
    """Rapid filling is over; diastasis begins."""
    kick: float
    """The atrium begins to contract; its push ends at phase 1."""


def timing(rhythm: Rhythm) -> Timing:
    """Return the instants of a regular beat as phases.

    Electromechanical systole is 546 - 2.1 HR ms from the Q wave (Weissler et al., Circulation 37:149, 1968). Relaxation
    takes 130 ms of a beat of 680 ms where the left bundle branch is blocked (Xiao et al., Br Heart J 66:443, 1991).
    """
    rr = 60.0 / rhythm.heart_rate_bpm
    systole = 0.546 - 0.0021 * rhythm.heart_rate_bpm - _Q_TO_R_S + rhythm.systole_offset_s
    systole = min(systole, 0.62 * rr)
    relaxed = systole + min(rhythm.relaxation_s, 0.2 * rr)
    early = min(rhythm.early_s, 0.75 * (rr - relaxed))
    kick = rr - min(_ATRIAL_S, 0.6 * (rr - relaxed))
    return Timing(rhythm.contraction_s / rr, systole / rr, relaxed / rr, (relaxed + early) / rr, kick / rr)


def filling(rhythm: Rhythm, phase: float) -> float:
    """Return the share of the stroke volume that is in the ventricle: 1 at phase 0, 0 at end-systole."""
    t, p = timing(rhythm), phase % 1.0
    ejected = ramp(max(0.0, (p - t.opening) / (t.end_systole - t.opening)) ** 0.9)
    early_share = 1 - rhythm.atrial_share - rhythm.diastasis_share
    early = early_share * ramp((p - t.relaxed) / (t.early_end - t.relaxed))
    middle = 0.5 * (t.relaxed + t.early_end)
    drift = rhythm.diastasis_share * ramp((p - middle) / (1 - middle))
    kick = rhythm.atrial_share * ramp((p - t.kick) / (1 - t.kick))
    return 1 - ejected + early + drift + kick


def twisting(rhythm: Rhythm, phase: float) -> float:
    """Return the share of the end-systolic twist: it unwinds early, ahead of filling (Notomi, Circulation 2008)."""
    t, p = timing(rhythm), phase % 1.0
    wound = ramp((p - 0.5 * t.opening) / (t.end_systole - 0.5 * t.opening))
    unwound = ramp((p - t.end_systole) / (t.early_end - t.end_systole))
    return wound - unwound


def emptiness(patient: Patient, state: BodyState) -> float:
    """Return how far the heart has contracted from end-diastole: 0 full, 1 at the end-systole of a regular beat.

    A beat that was less filled (``state.stroke`` below 1) starts from a smaller volume and ends at the same one.
    """
    return 1.0 - float(np.clip(state.stroke, 0.0, 1.5)) * filling(patient.rhythm, state.phase)
