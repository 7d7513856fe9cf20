from dataclasses import replace

import numpy as np
import pytest

from simulate.body import BodyState
from simulate.patient.cardiac_cycle import emptiness, filling, timing, twisting
from simulate.patient.population import draw_patient


@pytest.mark.parametrize("rate", [40, 65, 90, 130])
def test_the_curve_starts_full_is_empty_at_end_systole_and_closes(rate: float) -> None:
    rhythm = draw_patient(3, heart_rate_bpm=rate).rhythm
    t = timing(rhythm)
    phases = np.linspace(0, 1, 2001)[:-1]
    curve = np.array([filling(rhythm, float(p)) for p in phases])
    assert curve[0] == 1.0
    assert filling(rhythm, 1 - 1e-9) == pytest.approx(1.0, abs=1e-6)
    assert curve.min() == pytest.approx(0.0, abs=1e-9)
    assert t.end_systole - 0.02 <= phases[curve < 1e-6][0] <= t.end_systole
    assert curve.max() <= 1 + 1e-9
    assert np.abs(np.diff(curve)).max() < 0.01  # no jumps


def test_the_volume_stands_still_while_all_valves_are_shut() -> None:
    rhythm = draw_patient(4, heart_rate_bpm=60).rhythm
    t = timing(rhythm)
    for low, high in ((0.0, t.opening), (t.end_systole, t.relaxed)):
        values = [filling(rhythm, p) for p in np.linspace(low, high, 20)]
        assert np.ptp(values) < 1e-9


def test_filling_is_rapid_then_slow_then_rapid_again() -> None:
    rhythm = draw_patient(4, heart_rate_bpm=55).rhythm
    t = timing(rhythm)

    def rate(phase: float) -> float:
        return (filling(rhythm, phase + 1e-4) - filling(rhythm, phase - 1e-4)) / 2e-4

    early, slow, kick = rate((t.relaxed + t.early_end) / 2), rate((t.early_end + t.kick) / 2), rate((t.kick + 1) / 2)
    assert early > 4 * slow
    assert kick > 2 * slow
    assert slow >= 0


def test_a_faster_heart_loses_diastole_and_keeps_systole() -> None:
    slow, fast = (draw_patient(4, heart_rate_bpm=rate).rhythm for rate in (55, 100))
    lengths = []
    for rhythm in (slow, fast):
        t, rr = timing(rhythm), 60 / rhythm.heart_rate_bpm
        lengths.append((t.end_systole * rr, (1 - t.end_systole) * rr))
    assert lengths[1][0] > 0.7 * lengths[0][0]
    assert lengths[1][1] < 0.5 * lengths[0][1]


def test_a_premature_beat_ejects_less_to_the_same_volume() -> None:
    patient = draw_patient(6)
    t = timing(patient.rhythm)
    assert emptiness(patient, BodyState(phase=0.0, stroke=0.6)) == pytest.approx(0.4)
    assert emptiness(patient, BodyState(phase=t.end_systole, stroke=0.6)) == pytest.approx(1.0)


def test_twist_peaks_at_end_systole_and_unwinds_before_filling_ends() -> None:
    rhythm = replace(draw_patient(6).rhythm, heart_rate_bpm=60.0)
    t = timing(rhythm)
    assert twisting(rhythm, 0.0) == 0.0
    assert twisting(rhythm, t.end_systole) == pytest.approx(1.0)
    assert twisting(rhythm, t.relaxed) < 0.95
    assert twisting(rhythm, t.early_end) == pytest.approx(0.0, abs=1e-9)
