from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import UsageError
from simulate.events import (
    BreathHold,
    BreathHoldFails,
    BulkRotation,
    BulkShift,
    DroppedSpokes,
    EcgJitter,
    EctopicBeat,
    Event,
    FreeBreathing,
    Mistriggering,
    Spike,
)

TIMES = np.linspace(0, 30, 3001)


def test_a_breath_hold_drifts():
    np.testing.assert_allclose(BreathHold(drift_mm_s=0.2).displacement_mm(TIMES), 0.2 * TIMES)


def test_free_breathing_rests_at_end_expiration():
    regular = FreeBreathing(amplitude_mm=10, rate_hz=0.25, dwell=2, variability=0)
    wave = regular.displacement_mm(TIMES)
    np.testing.assert_allclose(wave, 10 * np.sin(math.pi * TIMES / 4) ** 4, atol=1e-9)
    assert (wave < 2).mean() > 0.45  # most of a breath near end-expiration
    assert (wave > 8).mean() < 0.25


@settings(deadline=None, max_examples=30)
@given(
    amplitude=st.floats(1, 30),
    rate=st.floats(0.1, 0.6),
    dwell=st.integers(1, 4),
    variability=st.floats(0, 0.3),
    started=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_breaths_join_smoothly_and_do_not_depend_on_what_is_asked(
    amplitude: float, rate: float, dwell: int, variability: float, started: float, seed: int
):
    event = FreeBreathing(0.0, amplitude, rate, dwell, variability, started, seed)
    wave = event.displacement_mm(TIMES)
    assert wave[0] == pytest.approx(0, abs=1e-9)
    # No faster than the steepest and shortest breath allows.
    fastest = 1.75 * amplitude * math.pi * dwell * rate / (1 - 2.5 * variability)
    assert np.abs(np.diff(wave)).max() <= fastest * 0.01 + 1e-9
    np.testing.assert_allclose(event.displacement_mm(TIMES[:700]), wave[:700])
    np.testing.assert_allclose(event.displacement_mm(TIMES[2000:]), wave[2000:])


def test_each_breath_is_a_little_different():
    one, other = (FreeBreathing(seed=seed).displacement_mm(TIMES) for seed in (1, 2))
    assert np.abs(one - other).max() > 1
    steady = FreeBreathing(variability=0)
    assert steady.displacement_mm(TIMES).max() == pytest.approx(12, abs=0.01)


def test_a_failed_hold_is_deeper_than_quiet_breathing():
    assert BreathHoldFails(5.0).amplitude_mm > FreeBreathing().amplitude_mm
    assert BreathHoldFails(5.0).name == "BreathHoldFails"


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Event, {"at_s": -1.0}),
        (Event, {"at_s": math.nan}),
        (BreathHold, {"drift_mm_s": math.inf}),
        (FreeBreathing, {"amplitude_mm": 100.0}),
        (FreeBreathing, {"rate_hz": 0.0}),
        (FreeBreathing, {"dwell": 0}),
        (FreeBreathing, {"variability": 0.9}),
        (FreeBreathing, {"seed": -1}),
        (BulkShift, {"shift_mm": (1.0, 2.0)}),
        (BulkShift, {"shift_mm": (1.0, 2.0, math.nan)}),
        (BulkShift, {"shift_mm": (500.0, 0.0, 0.0)}),
        (BulkShift, {"duration_s": -1.0}),
        (BulkRotation, {"rotation_rad": 5.0}),
        (EctopicBeat, {"prematurity": 0.1}),
        (EctopicBeat, {"stroke": 0.0}),
        (Mistriggering, {"missed": 1.5}),
        (Mistriggering, {"at_s": 3.0, "stop_s": 2.0}),
        (EcgJitter, {"sd_s": 1.0}),
        (Spike, {"readout": 0.7}),
        (Spike, {"size": -1.0}),
        (DroppedSpokes, {"at_s": 1.0, "stop_s": 0.5}),
    ],
)
def test_events_that_make_no_sense_are_refused(kind: type[Event], wrong: dict[str, Any]):
    with pytest.raises(UsageError):
        kind(**wrong)
