"""All stopping policies, fitted and calibrated on the same patients, and what becomes of others under each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import JsonValue

from kspace.quality.calibration import Promise, StoppingCalibration, calibrate_rule
from kspace.quality.features import state_features
from kspace.quality.measures import Tolerance
from kspace.quality.policies.conformal import Conformal, joint_limit, per_round_limits
from kspace.quality.policies.fixed import Fixed
from kspace.quality.policies.oracle import oracle
from kspace.quality.policies.path import walk
from kspace.quality.policies.policy import Policy, Stopped, excess_at, measured_at, reference_of, run
from kspace.quality.policies.two_classifiers import TwoClassifiers
from kspace.quality.policies.uncertainty import Uncertainty
from kspace.quality.predictors import FitOptions, Predictors, fit_predictors
from kspace.quality.trajectory import Array, Trajectory
from kspace.quality.view import view_of

ORACLE = "oracle"


@dataclass(frozen=True)
class Family:
    """Policies that can be compared.

    Parameters
    ----------
    predictors
        Fitted on the first part of the patients.
    calibration
        Of the guaranteed rule, on the second.
    policies
        Every policy but the oracle, which is none: see :func:`outcomes`.
    """

    predictors: Predictors
    calibration: StoppingCalibration
    policies: tuple[Policy, ...]

    @property
    def tolerance(self) -> Tolerance:
        """That all of them are judged by."""
        return self.predictors.kept


@dataclass(frozen=True)
class Outcome:
    """What became of one patient under one policy.

    Parameters
    ----------
    patient, policy
        Names.
    stopped
        Where the scan ended.
    excess
        Largest error in units of the tolerance; above 1 the scan misses.
    found, reference
        (measure,) at the stop, as the policy reports them (the guaranteed rule corrects volumes), and of the complete
        scan: :data:`~kspace.quality.measures.MEASURES`.
    """

    patient: str
    policy: str
    stopped: Stopped
    excess: float
    found: Array
    reference: Array

    @property
    def missed(self) -> bool:
        """Whether the scan is out of tolerance."""
        return self.excess > 1


def make_family(
    fitted_on: Sequence[Trajectory],
    calibrated_on: Sequence[Trajectory],
    *,
    cohort: str,
    protocol: Mapping[str, JsonValue],
    date: str,
    options: FitOptions | None = None,
    promise: Promise | None = None,
    fixed_seconds: Sequence[float] = (),
    name: str = "guaranteed",
) -> Family:
    """Fit and calibrate all policies.

    Parameters
    ----------
    fitted_on, calibrated_on
        Different patients: predictors come from the first, thresholds with a promise from the second.
    cohort, protocol, date
        For the card of the guaranteed rule.
    options, promise
        Tolerance and risk; the usual ones by default.
    fixed_seconds
        Of fixed policies; the cap always is one.
    name
        Of the guaranteed rule's calibration.
    """
    options, promise = options or FitOptions(), promise or Promise()
    predictors = fit_predictors(fitted_on, cohort, options)
    calibration = calibrate_rule(
        name, predictors, fitted_on, calibrated_on, cohort=cohort, protocol=protocol, date=date, promise=promise,
        share=options.share, first=options.first,
    )  # fmt: skip
    errors, predicted = _rounds(predictors, calibrated_on)
    cap = float(calibrated_on[0].seconds[-1])
    policies: list[Policy] = [Fixed(seconds) for seconds in sorted({*fixed_seconds, cap})]
    policies += [
        TwoClassifiers(predictors.image_good, predictors.segmentation_good),
        Uncertainty(predictors.kept),
        Conformal(predictors.excess, per_round_limits(errors, predicted, promise.alpha), "per-round conformal",
                  predictors.kept),
        Conformal(predictors.excess, joint_limit(errors, predicted, promise.alpha), "joint", predictors.kept),
        calibration.rule,
    ]  # fmt: skip
    return Family(predictors, calibration, tuple(policies))


def _rounds(predictors: Predictors, patients: Sequence[Trajectory]) -> tuple[Array, Array]:
    """Return (patient, round) errors in units of the tolerance and what was predicted, slices all together."""
    tolerance = predictors.kept
    errors, predicted = [], []
    for one in patients:
        states = [np.full(one.n_slices, step) for step in range(1, one.n_steps + 1)]
        errors.append([excess_at(one, steps, tolerance) for steps in states])
        features = np.array([state_features(view_of(one, steps), tolerance) for steps in states])
        predicted.append(np.exp(predictors.excess(features)))
    return np.array(errors), np.array(predicted)


def outcomes(family: Family, patients: Sequence[Trajectory]) -> dict[str, list[Outcome]]:
    """Return what becomes of every patient under every policy, by the policy's name; the oracle is the last."""
    first, rule = family.calibration.first, family.calibration.rule
    found: dict[str, list[Outcome]] = {}
    for one in patients:
        reference = reference_of(one)
        stops = {policy.name: run(policy, one, first=first) for policy in family.policies}
        passed = [stopped.steps for stopped in stops.values()] + walk(rule.path, one, first=first)
        stops[ORACLE] = oracle(one, family.tolerance, first=first, also=passed, measure=rule.measure)
        for name, stopped in stops.items():
            drawn, better = measured_at(one, stopped.steps), rule.measure(view_of(one, stopped.steps))
            far, near = (float(family.tolerance.excess(x, reference)) for x in (drawn, better))
            # The oracle may report either.
            chosen = name == rule.name or (name == ORACLE and near < far)
            measures, excess = (better, near) if chosen else (drawn, far)
            found.setdefault(name, []).append(Outcome(one.patient, name, stopped, excess, measures, reference))
    return found
