"""Small predictors fitted on label-free features: ridge regression, logistic regression, probabilities made honest.

With some tens of patients to learn from, whose states hang together, a penalised linear model of well-chosen logarithms
is what can be fitted; it fits into a few lines of JSON and anyone can read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from scipy.optimize import isotonic_regression

from kspace.errors import InputError, ShapeError
from kspace.quality.trajectory import Array

Kind = Literal["number", "probability"]
_CLIP = 4.0  # standard deviations: a feature further out says no more than that it is far out
_NEWTON_STEPS = 30


class LinearModel(BaseModel):
    """A linear function of standardised features, through a logistic curve if it is a probability.

    Parameters
    ----------
    target
        What it predicts.
    kind
        ``number`` or ``probability``.
    features
        Their names, in order.
    mean, scale
        Of each feature where it was fitted; where a feature is NaN the mean is taken for it.
    weights, bias
        Of the standardised features.
    knots, levels
        Where given, a non-decreasing piecewise linear curve from the raw probability to the calibrated one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    target: str
    kind: Kind
    features: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float
    knots: tuple[float, ...] = ()
    levels: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> LinearModel:
        n = len(self.features)
        if not len(self.mean) == len(self.scale) == len(self.weights) == n or min(self.scale, default=1) <= 0:
            raise ValueError(f"{n} features need as many means, positive scales and weights")
        if len(self.knots) != len(self.levels) or list(self.knots) != sorted(self.knots):
            raise ValueError("knots do not ascend, or are not as many as levels")
        return self

    def standardised(self, features: Array) -> Array:
        """Return features (..., feature) over their spread, clipped; 0 where they are not known."""
        return _standardised(features, np.array(self.mean), np.array(self.scale))

    def raw(self, features: Array) -> Array:
        """Return the linear function (...) of features (..., feature): of a probability, its logit.

        Raises
        ------
        ShapeError
            When there are more or fewer features.
        """
        if features.shape[-1] != len(self.features):
            raise ShapeError(f"the features of {self.target}", features, f"(..., {len(self.features)})")
        value: Array = self.standardised(features) @ np.array(self.weights) + self.bias
        return value

    def __call__(self, features: Array) -> Array:
        """Predict (...) from features (..., feature); raises as :meth:`raw`."""
        value = self.raw(features)
        if self.kind == "number":
            return value
        value = _logistic(value)
        return np.interp(value, self.knots, self.levels) if self.knots else value

    def foremost(self, features: Array) -> str:
        """Return in words the feature of (feature,) that raises the prediction most."""
        parts = self.standardised(features) * np.array(self.weights)
        return self.features[int(parts.argmax())].replace("_", " ")


def fit(
    target: str,
    features: Array,
    values: Array,
    names: Sequence[str],
    patients: NDArray[Any],
    *,
    kind: Kind = "number",
    penalties: Sequence[float] = (1.0, 10.0, 100.0, 1000.0),
    folds: int = 5,
) -> LinearModel:
    """Fit a predictor; what it is worth is judged, and probabilities are calibrated, on patients left out in turn.

    Parameters
    ----------
    target
        What it predicts.
    features
        (row, feature).
    values
        (row,) numbers, or 0 and 1. Rows in which they are NaN are left out.
    names
        Of the features.
    patients
        (row,) whose row it is: folds never part a patient. Every patient weighs the same.
    kind
        ``number``: least squares. ``probability``: maximum likelihood, and then an isotonic curve.
    penalties
        Of the squared weights, in rows; that with the best prediction of patients left out is taken.
    folds
        How often patients are left out.

    Raises
    ------
    InputError
        When there are not two patients with known values.
    """
    known = np.isfinite(values)
    features, values, patients = features[known], values[known].astype(np.float64), np.asarray(patients)[known]
    unique, who = np.unique(patients, return_inverse=True)
    if len(unique) < 2:
        raise InputError(f"{len(unique)} patients to learn {target} from", expected="two at least, better fifty")
    importance = 1.0 / np.bincount(who)[who]
    importance *= len(importance) / importance.sum()
    solve = _ridge if kind == "number" else _logistic_regression
    fold = who % min(folds, len(unique))
    left_out, losses = [], []
    for penalty in penalties:
        predicted = np.empty_like(values)
        for number in range(int(fold.max()) + 1):
            train, test = fold != number, fold == number
            mean, scale = _spread_of(features[train])
            weights, bias = solve(
                _standardised(features[train], mean, scale), values[train], importance[train], penalty
            )
            predicted[test] = _standardised(features[test], mean, scale) @ weights + bias
        left_out.append(predicted)
        losses.append(float((importance * _loss(predicted, values, kind)).sum()))
    best = int(np.argmin(losses))
    mean, scale = _spread_of(features)
    weights, bias = solve(_standardised(features, mean, scale), values, importance, penalties[best])
    knots, levels = _isotonic(_logistic(left_out[best]), values, importance) if kind == "probability" else ((), ())
    return LinearModel(
        target=target, kind=kind, features=tuple(names), mean=tuple(mean.tolist()), scale=tuple(scale.tolist()),
        weights=tuple(weights.tolist()), bias=float(bias), knots=knots, levels=levels,
    )  # fmt: skip


def _spread_of(features: Array) -> tuple[Array, Array]:
    known = np.isfinite(features)
    count = np.maximum(known.sum(0), 1)
    filled = np.where(known, features, 0)
    mean = filled.sum(0) / count
    scale = np.sqrt((np.where(known, features - mean, 0) ** 2).sum(0) / count)
    return mean, np.where(scale > 1e-9, scale, 1.0)


def _standardised(features: Array, mean: Array, scale: Array) -> Array:
    return np.clip(np.where(np.isfinite(features), (features - mean) / scale, 0), -_CLIP, _CLIP)


def _logistic(values: Array) -> Array:
    curve: Array = 1 / (1 + np.exp(-np.clip(values, -30, 30)))
    return curve


def _loss(predicted: Array, values: Array, kind: Kind) -> Array:
    if kind == "number":
        return (predicted - values) ** 2
    share = np.clip(_logistic(predicted), 1e-6, 1 - 1e-6)
    return -(values * np.log(share) + (1 - values) * np.log(1 - share))


def _ridge(features: Array, values: Array, importance: Array, penalty: float) -> tuple[Array, float]:
    weighed = importance[:, None] * features
    mean_x, mean_y = weighed.sum(0) / importance.sum(), float((importance * values).sum() / importance.sum())
    normal = weighed.T @ features - importance.sum() * np.outer(mean_x, mean_x) + penalty * np.eye(features.shape[1])
    weights: Array = np.linalg.solve(normal, weighed.T @ values - importance.sum() * mean_x * mean_y)
    return weights, mean_y - float(mean_x @ weights)


def _logistic_regression(features: Array, values: Array, importance: Array, penalty: float) -> tuple[Array, float]:
    """Newton's method on the penalised likelihood; the bias is not penalised but for a trace that keeps it finite."""
    design = np.concatenate([features, np.ones((len(features), 1))], 1)
    lift = np.full(design.shape[1], penalty)
    lift[-1] = 1e-3
    weights = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        share = _logistic(design @ weights)
        slope = design.T @ (importance * (share - values)) + lift * weights
        curvature = (design.T * (importance * share * (1 - share))) @ design + np.diag(lift)
        step = np.linalg.solve(curvature, slope)
        weights = weights - step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if float(np.abs(step).max()) < 1e-8:
            break
    return weights[:-1], float(weights[-1])


def _isotonic(
    raw: Array, values: Array, importance: Array, pieces: int = 20
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return a non-decreasing curve through means of about equal weight.

    To each of them one row is added that is as good as all, so that nothing is said to be certain.
    """
    order = np.argsort(raw)
    parts = [part for part in np.array_split(order, pieces) if len(part)]
    x = np.array([np.average(raw[part], weights=importance[part]) for part in parts])
    weight = np.array([importance[part].sum() for part in parts])
    y = np.array([np.average(values[part], weights=importance[part]) for part in parts])
    level = isotonic_regression((y * weight + np.average(values, weights=importance)) / (weight + 1), weights=weight).x
    x, first = np.unique(x, return_index=True)
    return tuple(x.tolist()), tuple(np.clip(level[first], 0.0, 1.0).tolist())
