"""Quality control without a truth: what of images, labels and biomarkers is predicted from label-free features.

Fitted on stored trajectories of patients who take part in nothing else: neither in the calibration of a stopping rule
nor in a test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from kspace.quality.correction import Correction, fit_correction
from kspace.quality.features import (
    CURVE_FEATURES,
    ERROR_FEATURES,
    SLICE_FEATURES,
    STATE_FEATURES,
    error_features,
    slice_features,
    state_features,
)
from kspace.quality.linear import Kind, LinearModel, fit
from kspace.quality.measures import MEASURES, Tolerance
from kspace.quality.policies.path import Path, Uniform, WhereItGains, walk
from kspace.quality.policies.policy import measured_at, reference_of
from kspace.quality.trajectory import Array, Trajectory
from kspace.quality.view import view_of
from kspace.segment.segmentation import FOREGROUND, Structure

_LV = FOREGROUND.index(Structure.LV)
_LEAST_ML, _LEAST_SHARE, _MOST_TOLERANCES = 0.05, 0.02, 20.0
DICES = ("dice_lv", "dice_myocardium", "dice_rv")
ERRORS = ("lv_ef_percent", "lv_edv_ml", "lv_esv_ml", "lv_mass_g")
"""Biomarkers whose error is predicted."""


@dataclass(frozen=True)
class Good:
    """What is called good of a slice, for the classifiers.

    Parameters
    ----------
    nrmse
        Of the heart's region, at most.
    dice
        Mean over structures, against labels on the fully sampled truth, at least.
    """

    nrmse: float = 0.10
    dice: float = 0.90


class Predictors(BaseModel):
    """All predictors of one fit, with where they come from.

    Parameters
    ----------
    heart_nrmse, heart_ssim
        Logarithm of the NRMSE, and SSIM, of a slice's heart.
    dice
        Of :data:`DICES`.
    image_good, segmentation_good
        Probabilities of what :class:`Good` says.
    lv_error
        Logarithm of the error of a slice's LV volume at end-diastole and end-systole, mL: where time gains.
    errors
        Logarithms of the errors of :data:`ERRORS`, in their own units.
    ef_within, missed
        Probabilities that the EF's tolerance is kept, and that any part of it is not.
    correction
        Of the LV's volumes.
    excess
        Logarithm of the largest error in units of the tolerance.
    error
        The same of corrected volumes, from :data:`~kspace.quality.features.ERROR_FEATURES`: what a stopping rule goes
        by. How large the error was tells more than whether it was too large.
    curve_rules
        ``ef_within`` from plausibility of volume curves alone: the baseline.
    tolerance
        EF points, volume percent and millilitres; see :class:`~kspace.quality.measures.Tolerance`.
    patients
        That they were fitted on.
    cohort
        In words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    heart_nrmse: LinearModel
    heart_ssim: LinearModel
    dice: dict[str, LinearModel]
    image_good: LinearModel
    segmentation_good: LinearModel
    lv_error: LinearModel
    errors: dict[str, LinearModel]
    ef_within: LinearModel
    missed: LinearModel
    correction: Correction
    excess: LinearModel
    error: LinearModel
    curve_rules: LinearModel
    tolerance: tuple[float, float, float]
    patients: int
    cohort: str

    @property
    def kept(self) -> Tolerance:
        """The tolerance that they know of."""
        return Tolerance(*self.tolerance)


@dataclass(frozen=True)
class SliceRows:
    """Slices at states, one a row.

    Parameters
    ----------
    features
        (row, feature) of :data:`~kspace.quality.features.SLICE_FEATURES`.
    patients
        (row,) index of the patient.
    truth
        (row,) of each truth score, and ``lv_error_ml``.
    """

    features: Array
    patients: NDArray[np.int64]
    truth: dict[str, Array]


@dataclass(frozen=True)
class StateRows:
    """Patients at states, one a row.

    Parameters
    ----------
    features
        (row, feature) of :data:`~kspace.quality.features.STATE_FEATURES`.
    patients
        (row,) index of the patient.
    seconds
        (row,) scan time per slice.
    found, reference
        (row, measure) at the state, and of the complete scan.
    """

    features: Array
    patients: NDArray[np.int64]
    seconds: Array
    found: Array
    reference: Array

    def errors(self, name: str) -> Array:
        """Return the (row,) absolute errors of a biomarker in its own unit."""
        which = MEASURES.index(name)
        off: Array = np.abs(self.found[:, which] - self.reference[:, which])
        return off


def slice_rows(trajectories: Sequence[Trajectory], *, first: int = 1) -> SliceRows:
    """Return every slice of every patient after every step."""
    features, patients = [], []
    truth: dict[str, list[Array]] = {}
    for number, one in enumerate(trajectories):
        lv = one.reference_areas_mm2[:, _LV]
        ends = [int(lv.sum(0).argmax()), int(lv.sum(0).argmin())]
        off = np.abs(one.areas_mm2[:, :, _LV] - lv)[..., ends].mean(-1) * one.spacing_mm / 1000
        for step in range(first, one.n_steps + 1):
            features.append(slice_features(view_of(one, np.full(one.n_slices, step))))
            patients.append(np.full(one.n_slices, number, dtype=np.int64))
            known = {**one.truth_scores, "lv_error_ml": off}
            for name, values in known.items():
                truth.setdefault(name, []).append(values[step - 1])
    return SliceRows(
        np.concatenate(features), np.concatenate(patients), {k: np.concatenate(v) for k, v in truth.items()}
    )


def state_rows(
    trajectories: Sequence[Trajectory], tolerance: Tolerance, paths: Sequence[Path], *, first: int = 1
) -> StateRows:
    """Return every patient at every state that the paths pass."""
    features, patients, seconds, found, reference = [], [], [], [], []
    for number, one in enumerate(trajectories):
        complete = reference_of(one)
        for path in paths:
            for steps in walk(path, one, first=first):
                view = view_of(one, steps)
                features.append(state_features(view, tolerance))
                patients.append(number)
                seconds.append(view.mean_seconds)
                found.append(measured_at(one, steps))
                reference.append(complete)
    return StateRows(np.array(features), np.array(patients), np.array(seconds), np.array(found), np.array(reference))


@dataclass(frozen=True)
class FitOptions:
    """How predictors are fitted.

    Parameters
    ----------
    tolerance
        That ``missed`` is about.
    good
        Of the classifiers.
    share
        Of the gain, in the path on which patients' states lie; see
        :class:`~kspace.quality.policies.path.WhereItGains`.
    first
        Steps of a slice before the first decision.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    good: Good = field(default_factory=Good)
    share: float = 0.8
    first: int = 1


def fit_predictors(trajectories: Sequence[Trajectory], cohort: str, options: FitOptions | None = None) -> Predictors:
    """Fit all predictors on the trajectories of some patients.

    Raises
    ------
    InputError
        When there are fewer than two patients, or truth scores are missing.
    """
    options = options or FitOptions()
    rows = slice_rows(trajectories, first=options.first)

    def on_slices(target: str, values: Array, *, probability: bool = False) -> LinearModel:
        kind: Kind = "probability" if probability else "number"
        return fit(target, rows.features, values, SLICE_FEATURES, rows.patients, kind=kind)

    dice = mean_dice(rows)
    lv_error = on_slices("log_lv_error_ml", np.log(rows.truth["lv_error_ml"] + _LEAST_ML))
    paths: list[Path] = [Uniform(), WhereItGains(lv_error, options.share)]
    states = state_rows(trajectories, options.tolerance, paths, first=options.first)

    def on_states(target: str, values: Array, *, probability: bool = False) -> LinearModel:
        kind: Kind = "probability" if probability else "number"
        return fit(target, states.features, values, STATE_FEATURES, states.patients, kind=kind)

    excess = options.tolerance.excess(states.found, states.reference)
    correction, better = fit_correction(
        states.features, states.found, states.reference, states.patients, options.tolerance
    )
    off = np.log(np.clip(options.tolerance.excess(better, states.reference), _LEAST_SHARE, _MOST_TOLERANCES))
    within = (states.errors("lv_ef_percent") <= options.tolerance.ef_points).astype(np.float64)
    rules = [STATE_FEATURES.index(name) for name in CURVE_FEATURES]
    return Predictors(
        heart_nrmse=on_slices("log_heart_nrmse", np.log(rows.truth["heart_nrmse"])),
        heart_ssim=on_slices("heart_ssim", rows.truth["heart_ssim"]),
        dice={name: on_slices(name, rows.truth[name]) for name in DICES},
        image_good=on_slices("image_good", _flag(rows.truth["heart_nrmse"] <= options.good.nrmse,
                                                 rows.truth["heart_nrmse"]), probability=True),
        segmentation_good=on_slices("segmentation_good", _flag(dice >= options.good.dice, dice), probability=True),
        lv_error=lv_error,
        errors={name: on_states(f"log_{name}", np.log(states.errors(name) + _LEAST_SHARE)) for name in ERRORS},
        ef_within=on_states("ef_within", within, probability=True),
        missed=on_states("missed", (excess > 1).astype(np.float64), probability=True),
        correction=correction,
        excess=on_states("log_excess", np.log(np.clip(excess, _LEAST_SHARE, _MOST_TOLERANCES))),
        error=fit("log_error", error_features(states.features), off, ERROR_FEATURES, states.patients),
        curve_rules=fit("ef_within", states.features[:, rules], within, CURVE_FEATURES, states.patients,
                        kind="probability"),
        tolerance=(options.tolerance.ef_points, options.tolerance.volume_percent, options.tolerance.volume_ml),
        patients=len(trajectories),
        cohort=cohort,
    )  # fmt: skip


def mean_dice(rows: SliceRows) -> Array:
    """Return the (row,) mean Dice over the structures that are there; NaN where none is."""
    stacked = np.stack([rows.truth[name] for name in DICES])
    known = np.isfinite(stacked)
    total = np.where(known, stacked, 0).sum(0)
    mean: Array = np.divide(total, known.sum(0), out=np.full(len(total), np.nan), where=known.any(0))
    return mean


def _flag(held: NDArray[np.bool_], values: Array) -> Array:
    return np.where(np.isfinite(values), held, np.nan)
