from __future__ import annotations

import numpy as np

from kspace.quality.features import STATE_FEATURES
from kspace.quality.shift import WATCHED, cohort_shift, fit_guard, scan_p_value

TIME = STATE_FEATURES.index("log_seconds")


def _cohort(n: int, rng: np.random.Generator, *, states: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return states of patients whose features hang together and drift with time."""
    kind = rng.normal(size=(n, 1, len(STATE_FEATURES)))
    rows = kind + 0.3 * rng.normal(size=(n, states, len(STATE_FEATURES)))
    rows[..., TIME] = np.log(np.arange(1, states + 1))
    rows[..., 5] -= rows[..., TIME]
    return rows.reshape(-1, len(STATE_FEATURES)), np.repeat(np.arange(n), states)


def test_patients_of_the_same_kind_are_seldom_called_different_and_strangers_are() -> None:
    rng = np.random.default_rng(0)
    guard = fit_guard(*_cohort(60, rng))
    same, strange = _cohort(200, rng)[0], _cohort(200, rng)[0]
    strange[:, STATE_FEATURES.index(WATCHED[3])] += 12
    assert np.mean([guard.distance(row) > guard.limit for row in same]) < 0.06
    assert np.mean([guard.distance(row) > guard.limit for row in strange]) > 0.9
    assert guard.foremost(strange[0]) == WATCHED[3].removeprefix("log_").replace("_", " ")


def test_p_values_of_the_same_kind_are_valid() -> None:
    rng = np.random.default_rng(1)
    guard = fit_guard(*_cohort(40, rng))
    p = []
    for _ in range(60):
        calibration = _cohort(30, rng, states=1)[0]
        p += [scan_p_value(guard, calibration, row) for row in _cohort(4, rng, states=1)[0]]
    assert np.mean(np.array(p) <= 0.1) < 0.16


def test_a_cohort_of_another_kind_is_told_from_one_of_the_same() -> None:
    rng = np.random.default_rng(2)
    guard = fit_guard(*_cohort(60, rng))
    # Both cohorts anew each time: alarms against one and the same calibration come together.
    same = [cohort_shift(guard, *(_cohort(n, rng, states=1)[0] for n in (60, 40))).fires() for _ in range(50)]
    calibration = _cohort(60, rng, states=1)[0]
    shifted = []
    for _ in range(20):
        other = _cohort(40, rng, states=1)[0]
        other[:, STATE_FEATURES.index("log_edv")] += 1.2
        shifted.append(cohort_shift(guard, calibration, other))
    assert np.mean(same) <= 0.12
    assert np.mean([one.fires() for one in shifted]) > 0.9
    assert shifted[0].foremost in {"edv", "distance"}
