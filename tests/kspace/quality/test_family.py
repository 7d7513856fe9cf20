from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from kspace.quality.family import ORACLE, Family, make_family, outcomes
from kspace.quality.features import SLICE_FEATURES, STATE_FEATURES, slice_features, state_features
from kspace.quality.figures import auroc, correlation
from kspace.quality.measures import Tolerance
from kspace.quality.policies import Uniform
from kspace.quality.predictors import Predictors, mean_dice, slice_rows, state_rows
from kspace.quality.trajectory import Trajectory
from kspace.quality.view import view_of
from tests.kspace.quality.trajectories import random_trajectory


@cache
def patients() -> tuple[Trajectory, ...]:
    return tuple(random_trajectory(seed, noise=0.15) for seed in range(70))


@cache
def family() -> Family:
    return make_family(
        patients()[:24], patients()[24:58], cohort="synthetic", protocol={}, date="2026-11-25", fixed_seconds=(2.0,)
    )


def test_predictors_foretell_patients_they_have_not_seen() -> None:
    predictors, test = family().predictors, patients()[58:]
    rows = slice_rows(test)
    assert correlation(predictors.dice["dice_lv"](rows.features), rows.truth["dice_lv"]) > 0.6
    assert correlation(predictors.heart_ssim(rows.features), rows.truth["heart_ssim"]) > 0.6
    good = mean_dice(rows) >= 0.9
    assert auroc(predictors.segmentation_good(rows.features), good) > 0.8
    states = state_rows(test, Tolerance(), [Uniform()])
    assert auroc(predictors.missed(states.features), Tolerance().excess(states.found, states.reference) > 1) > 0.6


def test_predictors_come_back_from_json() -> None:
    predictors = family().predictors
    assert Predictors.model_validate_json(predictors.model_dump_json()) == predictors


def test_every_policy_has_an_outcome_for_every_patient_and_none_is_shorter_than_the_oracle_when_within() -> None:
    found = outcomes(family(), patients()[58:])
    assert set(found) == {
        "fixed 2 s", "fixed 4 s", "two classifiers", "uncertainty", "per-round conformal", "joint", "guaranteed",
        ORACLE,
    }  # fmt: skip
    for name, rows in found.items():
        assert [row.patient for row in rows] == [one.patient for one in patients()[58:]]
        for row, floor in zip(rows, found[ORACLE], strict=True):
            assert row.missed or row.stopped.mean_seconds >= floor.stopped.mean_seconds - 1e-9, name
    assert {row.stopped.mean_seconds for row in found["fixed 2 s"]} == {2.0}


def test_features_are_as_many_as_their_names_and_know_nothing_of_nothing() -> None:
    view = view_of(patients()[0], np.ones(5))
    state, slices = state_features(view, Tolerance()), slice_features(view)
    assert state.shape == (len(STATE_FEATURES),)
    assert slices.shape == (5, len(SLICE_FEATURES))
    assert np.isnan(state[STATE_FEATURES.index("change_ef")])  # at the first step
    assert np.isnan(state[STATE_FEATURES.index("log_entropy")])  # which nobody gave
    assert np.isfinite(state[STATE_FEATURES.index("spread_ef")])


def test_a_state_is_measured_in_units_of_the_tolerance() -> None:
    view = view_of(patients()[0], np.full(5, 4))
    one = state_features(view, Tolerance(5, 5, 0))
    other = state_features(view, Tolerance(10, 10, 0))
    which = STATE_FEATURES.index("spread_ef")
    assert np.exp(one[which]) - 0.01 == pytest.approx(2 * (np.exp(other[which]) - 0.01))
