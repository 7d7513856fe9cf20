"""What stored trajectories say: all policies on the same patients, in seconds, as often as one likes.

Predictors are fitted on one part of the patients, thresholds are calibrated on a second, and a third is judged; each
patient's part follows from its number (:func:`simulate.study.protocol.part_of`), so that nobody is in two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
from pydantic import JsonValue
from scipy.stats import beta

from kspace.errors import InputError
from kspace.quality.calibration import Promise, Walk, prove, walk_rule
from kspace.quality.family import ORACLE, Family, Outcome, make_family, outcomes
from kspace.quality.features import CURVE_FEATURES, STATE_FEATURES
from kspace.quality.figures import auroc, correlation, expected_calibration_error
from kspace.quality.measures import MEASURES, Tolerance
from kspace.quality.policies.policy import excess_at, measured_at, reference_of
from kspace.quality.predictors import DICES, FitOptions, mean_dice, slice_rows, state_rows
from kspace.quality.trajectory import Array, Trajectory
from simulate.study.protocol import Part

LEAST_PATIENTS = {Part.FIT: 6, Part.CALIBRATION: 10, Part.TEST: 3}
"""Of each part; with fewer there is nothing to fit, to calibrate or to judge."""
_BIOMARKERS = ("lv_ef_percent", "lv_edv_ml", "lv_esv_ml", "lv_mass_g", "rv_edv_ml", "rv_ef_percent")
_BOOTSTRAP = 400
_BAND = (5, 95)


@dataclass(frozen=True)
class Question:
    """What a study is asked; see :class:`~kspace.quality.calibration.Promise`."""

    tolerance: Tolerance = field(default_factory=Tolerance)
    promise: Promise = field(default_factory=Promise)
    fixed_seconds: tuple[float, ...] = (2.0, 4.0, 7.0)


@dataclass(frozen=True)
class Row:
    """One policy on all test patients.

    Parameters
    ----------
    policy
        Its name.
    patients
        How many.
    seconds, seconds_quartiles
        Scan time per slice: mean over slices, and its quartiles over slices of all patients.
    spokes_per_frame
        At the stop, mean over slices.
    errors
        Mean absolute error of each biomarker: points of EF, percent of volumes and of mass.
    missed
        Patients out of tolerance.
    violation, violation_interval
        Their share, and its 90 % interval (Clopper and Pearson).
    acceleration
        Harmonic mean over patients of the cap over the patient's scan time.
    over_oracle
        Scan time over the oracle's.
    """

    policy: str
    patients: int
    seconds: float
    seconds_quartiles: tuple[float, float]
    spokes_per_frame: float
    errors: Mapping[str, float]
    missed: int
    violation: float
    violation_interval: tuple[float, float]
    acceleration: float
    over_oracle: float


@dataclass(frozen=True)
class Curve:
    """A mean over patients when all slices end together, with its band (5 to 95 % of bootstrapped means)."""

    name: str
    unit: str
    mean: Array
    low: Array
    high: Array


@dataclass(frozen=True)
class Splits:
    """The guarantee over random calibration and test parts of the patients that nothing was fitted on.

    Parameters
    ----------
    repeats, calibration, test
        How many splits, of how many patients.
    mean, sd
        Of the share of test patients that miss.
    sd_by_chance
        That finite test parts alone would give at that mean.
    above
        Share of splits in which more test patients miss than alpha allows.
    seconds
        Mean scan time per slice.
    """

    repeats: int
    calibration: int
    test: int
    mean: float
    sd: float
    sd_by_chance: float
    above: float
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """A study's answer; all of it about synthetic patients.

    Parameters
    ----------
    question, family
        What was asked, and the policies that were fitted for it.
    patients
        Of each part.
    seconds
        Of the steps.
    rows
        One a policy.
    outcomes
        By policy, one a test patient.
    test
        The test patients.
    curves
        Against seconds, of test patients.
    control
        Figures of quality control on test patients.
    splits
        None where there are too few patients.
    """

    question: Question
    family: Family
    patients: Mapping[Part, int]
    seconds: Array
    rows: tuple[Row, ...]
    outcomes: Mapping[str, Sequence[Outcome]]
    test: tuple[Trajectory, ...]
    curves: tuple[Curve, ...]
    control: Mapping[str, float]
    splits: Splits | None

    def record(self) -> dict[str, object]:
        """Return what a machine may want to read."""
        return {
            "synthetic": True, "tolerance": self.question.tolerance.describe(), "alpha": self.question.promise.alpha,
            "confidence": self.question.promise.confidence, "promise": self.family.calibration.promise(),
            "patients": {part.value: count for part, count in self.patients.items()},
            "policies": [asdict(row) for row in self.rows],
            "curves": [{"name": c.name, "unit": c.unit, "seconds": self.seconds.tolist(), "mean": c.mean.tolist(),
                        "low": c.low.tolist(), "high": c.high.tolist()} for c in self.curves],
            "quality_control": dict(self.control),
            "random_splits": None if self.splits is None else asdict(self.splits),
        }  # fmt: skip


def split(trajectories: Sequence[Trajectory]) -> dict[Part, list[Trajectory]]:
    """Return the patients of each part, by what their records say."""
    parts: dict[Part, list[Trajectory]] = {part: [] for part in Part}
    for one in trajectories:
        try:
            parts[Part(one.facts["part"])].append(one)
        except (KeyError, ValueError):
            raise InputError(f"{one.patient} is of no part of a study", expected="a trajectory of a study") from None
    return parts


def evaluate(
    trajectories: Sequence[Trajectory],
    facts: Mapping[str, JsonValue],
    question: Question | None = None,
    *,
    date: str = "2000-01-01",
) -> Evaluation:
    """Fit, calibrate and judge all policies on stored trajectories.

    Parameters
    ----------
    trajectories
        Of a study's patients, who say which part they are in.
    facts
        Of the protocol, for the card of the calibrated rule: :meth:`~simulate.study.store.Store.card_facts`.
    question
        Tolerance, risk, and fixed times to compare with.
    date
        For the card.

    Raises
    ------
    InputError
        When a part has too few patients.
    """
    question = question or Question()
    parts = split(trajectories)
    for part, least in LEAST_PATIENTS.items():
        if len(parts[part]) < least:
            raise InputError(
                f"{len(parts[part])} patients for {part.value}", expected=f"at least {least}",
                hint="Go on with the study: of eleven patients three fit, five calibrate and three test",
            )  # fmt: skip
    family = make_family(
        parts[Part.FIT], parts[Part.CALIBRATION], cohort=f"{len(trajectories)} virtual patients, all synthetic",
        protocol=facts, date=date, options=FitOptions(tolerance=question.tolerance),
        promise=question.promise, fixed_seconds=question.fixed_seconds,
    )  # fmt: skip
    test = parts[Part.TEST]
    found = outcomes(family, test)
    oracle_s = float(np.mean([o.stopped.mean_seconds for o in found[ORACLE]]))
    return Evaluation(
        question, family, {part: len(people) for part, people in parts.items()}, test[0].seconds,
        tuple(_row(name, rows, test, oracle_s) for name, rows in found.items()), found, tuple(test),
        _curves(test), _control(family, test), _splits(family, parts[Part.CALIBRATION] + test, question.promise),
    )  # fmt: skip


def biomarker_errors(outcome: Outcome) -> dict[str, float]:
    """Return the absolute error of each biomarker: points of EF, percent of all else."""
    errors = {}
    for name in _BIOMARKERS:
        which = MEASURES.index(name)
        off = abs(float(outcome.found[which] - outcome.reference[which]))
        errors[name] = off if name.endswith("percent") else 100 * off / float(outcome.reference[which])
    return errors


def exact_interval(count: int, n: int, share: float = 0.9) -> tuple[float, float]:
    """Return the interval of a binomial share (Clopper and Pearson, Biometrika 26:404, 1934)."""
    tail = (1 - share) / 2
    low = float(beta.ppf(tail, count, n - count + 1)) if count else 0.0
    high = float(beta.ppf(1 - tail, count + 1, n - count)) if count < n else 1.0
    return low, high


def _row(name: str, rows: Sequence[Outcome], patients: Sequence[Trajectory], oracle_s: float) -> Row:
    seconds = np.concatenate([row.stopped.seconds for row in rows])
    spokes = [
        one.scores["spokes_per_frame"][row.stopped.steps - 1, np.arange(one.n_slices)]
        for row, one in zip(rows, patients, strict=True)
    ]
    errors = [biomarker_errors(row) for row in rows]
    missed = sum(row.missed for row in rows)
    cap = float(patients[0].seconds[-1])
    by_patient = np.array([row.stopped.mean_seconds for row in rows])
    low, high = np.quantile(seconds, (0.25, 0.75))
    return Row(
        name, len(rows), float(seconds.mean()), (float(low), float(high)), float(np.concatenate(spokes).mean()),
        {key: float(np.nanmean([error[key] for error in errors])) for key in _BIOMARKERS},
        missed, missed / len(rows), exact_interval(missed, len(rows)),
        float(1 / np.mean(by_patient / cap)), float(by_patient.mean() / oracle_s),
    )  # fmt: skip


def _curves(patients: Sequence[Trajectory]) -> tuple[Curve, ...]:
    image = np.array([one.truth_scores["heart_nrmse"].mean(1) for one in patients])
    dice = np.array([np.nanmean([np.nanmean(one.truth_scores[name], 1) for name in DICES], 0) for one in patients])
    which = MEASURES.index("lv_ef_percent")
    ef = np.array(
        [
            [
                abs(measured_at(one, np.full(one.n_slices, step))[which] - reference_of(one)[which])
                for step in range(1, one.n_steps + 1)
            ]
            for one in patients
        ]
    )
    return (
        _curve("Image error in the heart", "%", 100 * image),
        _curve("1 - Dice", "%", 100 * (1 - dice)),
        _curve("Error of EF", "points", ef),
    )


def _curve(name: str, unit: str, values: Array) -> Curve:
    """Return the mean of (patient, step) values with its bootstrapped band; patients are drawn, not steps."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(values), (_BOOTSTRAP, len(values)))
    means = np.nanmean(values[drawn], axis=1)
    low, high = np.nanpercentile(means, _BAND, axis=0)
    return Curve(name, unit, np.nanmean(values, 0), low, high)


def _control(family: Family, patients: Sequence[Trajectory]) -> dict[str, float]:
    """Return how good quality control without a truth is, on all states of test patients that a scan may pass."""
    predictors = family.predictors
    states = state_rows(patients, family.tolerance, [family.calibration.rule.path])
    within = states.errors("lv_ef_percent") <= family.tolerance.ef_points
    said = predictors.ef_within(states.features)
    rules = [STATE_FEATURES.index(name) for name in CURVE_FEATURES]
    baseline = predictors.curve_rules(states.features[:, rules])
    missed = family.tolerance.excess(states.found, states.reference) > 1
    rows = slice_rows(patients)
    known = np.isfinite(mean_dice(rows))
    predicted = np.mean([predictors.dice[name](rows.features) for name in DICES], axis=0)
    return {
        "auroc_ef_within": auroc(said, within),
        "auroc_ef_within_curve_rules": auroc(baseline, within),
        "ece_ef_within": expected_calibration_error(said, within),
        "auroc_missed": auroc(predictors.missed(states.features), missed),
        "ece_missed": expected_calibration_error(predictors.missed(states.features), missed),
        "correlation_dice": correlation(predicted[known], mean_dice(rows)[known]),
        "correlation_image_error": correlation(
            np.exp(predictors.heart_nrmse(rows.features)), rows.truth["heart_nrmse"]
        ),
        "states": float(len(within)), "share_ef_within": float(within.mean()),
    }  # fmt: skip


def _splits(
    family: Family, patients: Sequence[Trajectory], promise: Promise, repeats: int = 500, least_test: int = 10
) -> Splits | None:
    """Calibrate on random parts of the patients and judge on the rest, over and over."""
    n_test = max(least_test, round(0.375 * len(patients)))
    if len(patients) < 3 * least_test:
        return None
    walks: list[Walk] = [walk_rule(family.calibration.rule, one) for one in patients]
    rng = np.random.default_rng(0)
    rates, seconds = [], []
    for _ in range(repeats):
        order = rng.permutation(len(walks))
        judged, calibrating = order[:n_test], order[n_test:]
        limit = prove([walks[k] for k in calibrating], promise)
        stops = [(walks[k], walks[k].stop(limit)) for k in judged]
        rates.append(float(np.mean([walk.excess[at] > 1 for walk, at in stops])))
        seconds.append(float(np.mean([walk.seconds[at] for walk, at in stops])))
    mean = float(np.mean(rates))
    return Splits(
        repeats, len(patients) - n_test, n_test, mean, float(np.std(rates)),
        float(np.sqrt(mean * (1 - mean) / n_test)), float(np.mean(np.array(rates) > promise.alpha)),
        float(np.mean(seconds)),
    )  # fmt: skip


def excess_by_step(one: Trajectory, tolerance: Tolerance) -> Array:
    """Return (step,) the largest error in units of the tolerance when all slices end together."""
    return np.array([excess_at(one, np.full(one.n_slices, step), tolerance) for step in range(1, one.n_steps + 1)])
