"""Take out of volumes what too few spokes do to them: a bias that label-free features foretell.

Networks draw the cavity too small in images of few spokes, by an amount that falls as spokes come in. What is known of
a state foretells it, so that a scan which ends early can report what a complete one would have found. A volume is
corrected only where that brought patients nearer who had no part in the fit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from kspace.quality.features import STATE_FEATURES
from kspace.quality.linear import LinearModel, fit
from kspace.quality.measures import MEASURES, Tolerance
from kspace.quality.trajectory import Array

CORRECTED = ("lv_edv_ml", "lv_esv_ml")
"""The EF follows from them."""
_EDV, _ESV, _EF = (MEASURES.index(name) for name in (*CORRECTED, "lv_ef_percent"))
_MOST = 4.0  # tolerances: a single lost heart must not bend the fit
_GAIN = 0.1  # of the mean absolute error of patients left out
_PENALTIES = (10.0, 100.0, 1000.0)


class Correction(BaseModel):
    """What to take off the LV's volumes.

    Parameters
    ----------
    models
        Of each of :data:`CORRECTED`, where it is corrected: its signed error in units of what the tolerance allows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    models: dict[str, LinearModel] = {}

    def __call__(self, found: Array, features: Array, tolerance: Tolerance) -> Array:
        """Return corrected measures (..., measure) of states with features (..., feature)."""
        errors = {name: model(features) for name, model in self.models.items()}
        return corrected(found, errors, tolerance)


def corrected(found: Array, errors: dict[str, Array], tolerance: Tolerance) -> Array:
    """Return measures (..., measure) without the errors that are expected of volumes, in units of what is allowed."""
    limits = tolerance.limits(found)
    better = found.copy()
    for place, (name, which) in enumerate(zip(CORRECTED, (_EDV, _ESV), strict=True)):
        if name in errors:
            share = np.clip(errors[name], -_MOST, _MOST)
            better[..., which] = np.maximum(found[..., which] - share * limits[..., 1 + place], 0.1 * found[..., which])
    better[..., _ESV] = np.minimum(better[..., _ESV], better[..., _EDV])
    edv = better[..., _EDV]
    stroke = edv - better[..., _ESV]
    better[..., _EF] = 100 * np.divide(stroke, edv, out=np.full_like(edv, np.nan), where=edv > 0)
    return better


def fit_correction(
    features: Array, found: Array, reference: Array, patients: NDArray[Any], tolerance: Tolerance, *, folds: int = 5
) -> tuple[Correction, Array]:
    """Learn the bias of volumes.

    Parameters
    ----------
    features
        (row, feature) of :data:`~kspace.quality.features.STATE_FEATURES`.
    found, reference
        (row, measure) at the state, and of the complete scan.
    patients
        (row,) whose.
    tolerance
        Gives the unit.
    folds
        How often patients are left out.

    Returns
    -------
    The correction, and the measures (row, measure) corrected by fits without their own patient: what a new patient's
    are like, to learn the risk from.
    """
    unique, who = np.unique(patients, return_inverse=True)
    folds = min(folds, len(unique))
    limits = tolerance.limits(reference)
    models, left_out = {}, {}
    for place, (name, which) in enumerate(zip(CORRECTED, (_EDV, _ESV), strict=True)):
        error = np.clip((found[:, which] - reference[:, which]) / limits[:, 1 + place], -_MOST, _MOST)
        if len(unique) < 4 or not np.isfinite(error).any():
            continue
        guess = np.zeros(len(error))
        for number in range(folds):
            test = who % folds == number
            guess[test] = _fit(name, features[~test], error[~test], patients[~test])(features[test])
        if np.nanmean(np.abs(error - guess)) < (1 - _GAIN) * np.nanmean(np.abs(error)):
            models[name], left_out[name] = _fit(name, features, error, patients), guess
    return Correction(models=models), corrected(found, left_out, tolerance)


def _fit(name: str, features: Array, error: Array, patients: NDArray[Any]) -> LinearModel:
    return fit(f"error_{name}", features, error, STATE_FEATURES, patients, penalties=_PENALTIES)
