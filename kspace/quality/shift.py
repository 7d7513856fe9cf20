"""Is a scan like those that a rule was calibrated on? A promise holds for patients of the same kind only.

Of each scan the distance (Mahalanobis) of its label-free features from those of the cohort at the same scan time is
taken. For one scan it is compared with the distances of calibration patients, for a cohort the distribution of every
feature is compared with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator
from scipy.stats import ks_2samp

from kspace.quality.features import STATE_FEATURES
from kspace.quality.trajectory import Array

WATCHED = (
    "log_prediction_error",
    "log_image_change",
    "log_entropy",
    "log_flip_risk",
    "log_disagreement",
    "betti_errors",
    "distrusted_share",
    "log_spokes_per_frame",
    "stroke_mismatch",
    "wall_variation",
    "curve_roughness",
    "log_edv",
    "ef",
    "log_slices",
)
"""Features that tell what kind of patient and scanner it is."""
_WHICH = [STATE_FEATURES.index(name) for name in WATCHED]
_TIME = STATE_FEATURES.index("log_seconds")
_SHRINKAGE = 0.2  # of the covariance towards its diagonal: there are some tens of patients


class ShiftGuard(BaseModel):
    """How features of the cohort lie at any scan time, and from which distance on a scan is not like them.

    Parameters
    ----------
    at_zero, per_log_second
        (feature,) of :data:`WATCHED`: mean at one second per slice, and its change with the logarithm of time.
    scale
        (feature,) standard deviation around it.
    whitening
        (feature, feature): times it, standardised deviations have unit covariance.
    limit
        On the distance. It comes from the patients that the rule was fitted on, not from those that it is calibrated
        on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    at_zero: tuple[float, ...]
    per_log_second: tuple[float, ...]
    scale: tuple[float, ...]
    whitening: tuple[tuple[float, ...], ...]
    limit: float

    @model_validator(mode="after")
    def _fits(self) -> ShiftGuard:
        n = len(WATCHED)
        shapes = {len(self.at_zero), len(self.per_log_second), len(self.scale), len(self.whitening)}
        if shapes | {len(row) for row in self.whitening} != {n} or min(self.scale) <= 0 or self.limit <= 0:
            raise ValueError(f"not {n} features with positive scales and a positive limit")
        return self

    def deviations(self, features: Array) -> Array:
        """Return the (..., watched) deviations of state features (..., feature), in standard deviations."""
        expected = np.array(self.at_zero) + features[..., _TIME, None] * np.array(self.per_log_second)
        off = (features[..., _WHICH] - expected) / np.array(self.scale)
        return np.where(np.isfinite(off), off, 0.0)

    def distance(self, features: Array) -> float:
        """Return the root mean square of the whitened deviations: about 1 for a patient of the cohort."""
        white = self.deviations(features) @ np.array(self.whitening)
        return float(np.sqrt((white**2).mean()))

    def foremost(self, features: Array) -> str:
        """Return the name of the feature that is furthest off, in words."""
        worst = int(np.abs(self.deviations(features)).argmax())
        return WATCHED[worst].removeprefix("log_").replace("_", " ")


def fit_guard(features: Array, patients: NDArray[Any], *, outside: float = 0.02, folds: int = 5) -> ShiftGuard:
    """Learn how a cohort lies.

    Parameters
    ----------
    features
        (row, feature) of :data:`~kspace.quality.features.STATE_FEATURES`: states of patients.
    patients
        (row,) whose.
    outside
        Share of patients of the same kind that may be called different at some state; what sets the limit is how far
        patients lie from a fit without them.
    """
    unique, who = np.unique(patients, return_inverse=True)
    furthest = np.zeros(len(unique))
    for number in range(min(folds, len(unique))):
        test = who % folds == number
        guard = _fit(features[~test]) if bool((~test).any()) else _fit(features)
        for row in np.flatnonzero(test):
            furthest[who[row]] = max(furthest[who[row]], guard.distance(features[row]))
    return _fit(features).model_copy(update={"limit": float(np.quantile(furthest, 1 - outside))})


def _fit(features: Array) -> ShiftGuard:
    values, time = features[:, _WHICH], features[:, _TIME]
    zero, slope, scale = np.zeros(len(WATCHED)), np.zeros(len(WATCHED)), np.ones(len(WATCHED))
    off = np.zeros_like(values)
    for column in range(len(WATCHED)):
        known = np.isfinite(values[:, column])
        if known.sum() < 3:
            continue
        spread = time[known] - time[known].mean()
        level = float(values[known, column].mean())
        steep = float(spread @ (values[known, column] - level)) / max(float(spread @ spread), 1e-12)
        zero[column], slope[column] = level - steep * float(time[known].mean()), steep
        rest = values[known, column] - zero[column] - steep * time[known]
        # A feature that never moves in the cohort must not make everyone else a stranger by a hair's breadth.
        scale[column] = max(float(rest.std()), 0.05)
        off[known, column] = rest / scale[column]
    covariance = (1 - _SHRINKAGE) * np.corrcoef(off.T + 1e-9 * np.eye(len(WATCHED), len(off))) \
        + _SHRINKAGE * np.eye(len(WATCHED))  # fmt: skip
    values_, vectors = np.linalg.eigh(np.nan_to_num(covariance))
    whitening = vectors / np.sqrt(np.maximum(values_, 0.05))
    return ShiftGuard(
        at_zero=tuple(zero.tolist()), per_log_second=tuple(slope.tolist()), scale=tuple(scale.tolist()),
        whitening=tuple(tuple(row) for row in whitening.tolist()), limit=1.0,
    )  # fmt: skip


@dataclass(frozen=True)
class CohortShift:
    """Whether a cohort is of another kind.

    Parameters
    ----------
    p
        Of "both cohorts are of the same kind": the smallest Kolmogorov-Smirnov p-value of all features and the
        distance, times their number (Bonferroni).
    foremost
        The feature that tells.
    """

    p: float
    foremost: str

    def fires(self, level: float = 0.05) -> bool:
        """Return whether the cohort is called different; one of the same kind is in a share ``level`` of cases."""
        return self.p <= level


def cohort_shift(guard: ShiftGuard, calibration: Array, judged: Array) -> CohortShift:
    """Compare a cohort with the one of the calibration.

    Parameters
    ----------
    guard
        Of the calibration.
    calibration, judged
        (patient, feature) state features, one state of each patient, at the same scan time.
    """
    tested: Sequence[tuple[str, Array, Array]] = [
        ("distance", np.array([guard.distance(row) for row in calibration]),
         np.array([guard.distance(row) for row in judged])),
        *((name, calibration[:, which], judged[:, which]) for name, which in zip(WATCHED, _WHICH, strict=True)),
    ]  # fmt: skip
    found = {}
    for name, one, other in tested:
        one, other = one[np.isfinite(one)], other[np.isfinite(other)]
        if len(one) and len(other):
            found[name] = float(ks_2samp(one, other).pvalue)
    foremost = min(found, key=lambda name: found[name])
    return CohortShift(min(1.0, found[foremost] * len(found)), foremost.removeprefix("log_").replace("_", " "))


def scan_p_value(guard: ShiftGuard, calibration: Array, judged: Array) -> float:
    """Return the conformal p-value of one scan: the share of calibration patients, itself counted, as far out as it.

    Parameters
    ----------
    guard
        Fitted on other patients than these.
    calibration
        (patient, feature), one state of each.
    judged
        (feature,).
    """
    own = guard.distance(judged)
    return (1 + sum(guard.distance(row) >= own for row in calibration)) / (len(calibration) + 1)
