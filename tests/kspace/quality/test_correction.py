from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kspace.quality.correction import Correction, corrected, fit_correction
from kspace.quality.measures import MEASURES, Tolerance, measured
from kspace.quality.policies import Uniform
from kspace.quality.predictors import StateRows, state_rows
from kspace.quality.trajectory import Trajectory
from tests.kspace.quality.trajectories import random_trajectory

TOLERANCE = Tolerance()
EDV, ESV, EF = (MEASURES.index(name) for name in ("lv_edv_ml", "lv_esv_ml", "lv_ef_percent"))


def _biased(seed: int, bias: float) -> Trajectory:
    """Return a patient whose cavity is drawn too small, by less and less."""
    one = random_trajectory(seed, noise=0.05)
    shrink = np.ones((one.n_steps, 1, 3, 1))
    shrink[:, 0, 0, 0] -= bias / one.seconds
    return replace(one, areas_mm2=one.areas_mm2 * shrink, sample_areas_mm2=one.sample_areas_mm2 * shrink[:, None])


def _rows(bias: float, seeds: range) -> StateRows:
    return state_rows([_biased(seed, bias) for seed in seeds], TOLERANCE, [Uniform()])


def test_a_bias_that_falls_with_time_is_taken_out_of_new_patients() -> None:
    known, new = _rows(0.25, range(20)), _rows(0.25, range(50, 60))
    correction, left_out = fit_correction(known.features, known.found, known.reference, known.patients, TOLERANCE)
    better = correction(new.found, new.features, TOLERANCE)
    before, after = (np.abs(x[:, EDV] - new.reference[:, EDV]).mean() for x in (new.found, better))
    assert after < 0.5 * before
    assert TOLERANCE.excess(better, new.reference).mean() < TOLERANCE.excess(new.found, new.reference).mean()
    # What the fit was worth without their own patient is what it is worth for new ones.
    own = np.abs(left_out[:, EDV] - known.reference[:, EDV]).mean()
    assert own == pytest.approx(after, rel=0.5)


def test_where_there_is_no_bias_next_to_nothing_is_done() -> None:
    rows, new = _rows(0.0, range(20)), _rows(0.0, range(50, 60))
    correction, _ = fit_correction(rows.features, rows.found, rows.reference, rows.patients, TOLERANCE)
    better = correction(new.found, new.features, TOLERANCE)
    before, after = (TOLERANCE.excess(x, new.reference).mean() for x in (new.found, better))
    assert after <= 1.1 * before


def test_the_ef_follows_from_corrected_volumes() -> None:
    one = random_trajectory(1)
    found = measured(one.reference_areas_mm2, one.spacing_mm)
    better = corrected(found, {"lv_edv_ml": np.array(-1.0)}, TOLERANCE)
    assert better[EDV] == pytest.approx(found[EDV] + TOLERANCE.limits(found)[1])
    assert better[EF] == pytest.approx(100 * (better[EDV] - better[ESV]) / better[EDV])
    np.testing.assert_array_equal(Correction()(found, np.zeros(0), TOLERANCE)[EDV], found[EDV])
    upside_down = corrected(found, {"lv_esv_ml": np.array(-40.0), "lv_edv_ml": np.array(40.0)}, TOLERANCE)
    assert 0 < upside_down[ESV] <= upside_down[EDV]
