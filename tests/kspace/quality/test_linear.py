from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from kspace.errors import InputError, ShapeError
from kspace.quality.linear import LinearModel, fit

NAMES = ("a", "b", "c")


def _rows(n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, 3)), np.arange(n) // 8


def test_a_line_is_found_again() -> None:
    features, patients = _rows()
    features = features * [2.0, 5.0, 1.0] + [1.0, -3.0, 0.0]
    truth = 0.5 * features[:, 0] - 0.2 * features[:, 1] + 4
    model = fit("y", features, truth, NAMES, patients)
    assert np.abs(model(features) - truth).max() < 0.25
    assert np.corrcoef(model(features), truth)[0, 1] > 0.999


def test_probabilities_of_patients_left_out_are_honest() -> None:
    features, patients = _rows(1600)
    rng = np.random.default_rng(2)
    chance = 1 / (1 + np.exp(-2 * features[:, 0]))
    model = fit("y", features, (rng.random(1600) < chance).astype(float), NAMES, patients, kind="probability")
    fresh = rng.normal(size=(5000, 3))
    said, true = model(fresh), 1 / (1 + np.exp(-2 * fresh[:, 0]))
    assert np.abs(said - true).mean() < 0.05
    assert said.min() > 0
    assert said.max() < 1


def test_unknown_features_are_taken_for_the_mean_and_unknown_values_are_left_out() -> None:
    features, patients = _rows()
    values = features[:, 0].copy()
    values[::7] = np.nan
    features[::5, 1] = np.nan
    model = fit("y", features, values, NAMES, patients)
    unknown = model(np.array([0.3, np.nan, np.nan]))
    assert unknown == pytest.approx(model(np.array([0.3, model.mean[1], model.mean[2]])))


def test_what_does_not_fit_is_refused() -> None:
    features, patients = _rows()
    model = fit("y", features, features[:, 0], NAMES, patients)
    with pytest.raises(ShapeError):
        model(np.zeros(4))
    with pytest.raises(InputError, match="1 patients"):
        fit("y", features[:8], features[:8, 0], NAMES, patients[:8])
    with pytest.raises(ValidationError):
        LinearModel.model_validate({**model.model_dump(), "scale": (0.0, 1.0, 1.0)})


def test_the_foremost_feature_is_the_one_that_raises_most() -> None:
    features, patients = _rows()
    model = fit("y", features, features[:, 0] - features[:, 1], ("log_first", "b", "c"), patients)
    assert model.foremost(np.array([3.0, 1.0, 0.0])) == "log first"
    assert model.foremost(np.array([0.0, -3.0, 0.0])) == "b"
