"""A stopping rule with its promise: how it was calibrated, on whom, for which protocol, and what it may be used for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from kspace.errors import InputError
from kspace.formats.files import atomic_text, existing_file, one_line
from kspace.quality.correction import Correction
from kspace.quality.features import state_features
from kspace.quality.learn_then_test import fixed_sequence, upper_bound
from kspace.quality.linear import LinearModel
from kspace.quality.measures import MEASURES, Tolerance
from kspace.quality.policies.guaranteed import Guaranteed
from kspace.quality.policies.path import Path as ScanPath
from kspace.quality.policies.path import Uniform, WhereItGains, walk
from kspace.quality.policies.policy import reference_of
from kspace.quality.predictors import Predictors, StateRows, state_rows
from kspace.quality.shift import ShiftGuard, fit_guard
from kspace.quality.trajectory import Array, Trajectory
from kspace.quality.view import Steps, view_of

LIMITS: Array = np.linspace(-4.0, 3.0, 141)
"""Candidate limits of the predicted error's logarithm, from the most careful on: errors of 0.02 to 20 tolerances, as in
learning it. They do not depend on the patients that limits are proven on."""
MAX_BYTES = 1024 * 1024
_HINT = "Reinstall Spokewise, or calibrate again"


@dataclass(frozen=True)
class Walk:
    """A patient on the rule's path, from the first decision to the cap.

    Parameters
    ----------
    states
        (state, slice) steps.
    seconds
        (state,) scan time per slice.
    scores
        (state,) logarithms of predicted errors.
    excess
        (state,) largest error in units of the tolerance.
    """

    states: list[Steps]
    seconds: Array
    scores: Array
    excess: Array

    def stop(self, limit: float | None) -> int:
        """Return the first state whose score is at or below a limit, else the last."""
        if limit is None:
            return len(self.scores) - 1
        low = np.flatnonzero(self.scores[:-1] <= limit)
        return int(low[0]) if len(low) else len(self.scores) - 1

    def stops(self, limits: Array) -> NDArray[np.int64]:
        """Return the (limit,) states at which ascending limits stop."""
        lowest = np.minimum.accumulate(self.scores[:-1]) if len(self.scores) > 1 else np.array([])
        # The first state at or below a limit is the first at which the lowest score so far is.
        first = np.searchsorted(-lowest, -limits, side="left")
        return np.minimum(first, len(self.scores) - 1)


def walk_rule(rule: Guaranteed, trajectory: Trajectory, *, first: int = 1) -> Walk:
    """Follow a rule's path to the cap, scoring every state by what is known there."""
    states = walk(rule.path, trajectory, first=first)
    views = [view_of(trajectory, steps) for steps in states]
    return Walk(
        states,
        np.array([view.mean_seconds for view in views]),
        np.array([rule.score(view) for view in views]),
        rule.tolerance.excess(np.array([rule.measure(view) for view in views]), reference_of(trajectory)),
    )


class StoppingCalibration(BaseModel):
    """A calibrated stopping rule, with its card.

    Parameters
    ----------
    name
        Of the rule.
    date
        Of the calibration, YYYY-MM-DD.
    cohort
        In words: who the patients were, and how much of it is synthetic.
    protocol
        Facts of the scan that the promise depends on; :meth:`misfits` compares them.
    tolerance
        EF points, volume percent, millilitres; see :class:`~kspace.quality.measures.Tolerance`.
    alpha, confidence
        The promise: the risk is at most ``alpha``, with this confidence over calibration cohorts.
    n_fit, n_calibration
        Patients that predictors were fitted on, and others that the limit was proven on.
    limit
        Of the logarithm of the predicted error in units of the tolerance; None where nothing could be proven, and every
        scan runs to the cap.
    misses, misses_at_cap
        Of the calibration patients, stopped by the rule, and scanned to the cap.
    mean_seconds
        Per slice, of calibration patients stopped by the rule.
    half_widths
        Of an interval about each of :data:`~kspace.quality.measures.MEASURES` at the stop, in its own unit: it holds
        the complete scan's value in all but ``alpha`` of the calibration patients (split conformal). None where there
        are too few of them.
    share
        Of the gain, see :class:`~kspace.quality.policies.path.WhereItGains`; 1 keeps slices together.
    first
        Steps of a slice before the first decision.
    lv_error, error, guard, correction
        What the rule is made of.
    reference_features
        (patient, feature) of calibration patients at the first decision, for
        :func:`~kspace.quality.shift.cohort_shift`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    cohort: Annotated[str, Field(min_length=1, max_length=4000)]
    protocol: dict[str, JsonValue]
    tolerance: tuple[float, float, float]
    alpha: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    n_fit: Annotated[int, Field(ge=2)]
    n_calibration: Annotated[int, Field(ge=1)]
    limit: float | None
    misses: Annotated[int, Field(ge=0)]
    misses_at_cap: Annotated[int, Field(ge=0)]
    mean_seconds: Annotated[float, Field(gt=0)]
    half_widths: dict[str, float | None]
    share: Annotated[float, Field(gt=0, le=1)]
    first: Annotated[int, Field(ge=1)]
    lv_error: LinearModel
    error: LinearModel
    guard: ShiftGuard
    correction: Correction
    reference_features: list[list[float | None]]

    @property
    def rule(self) -> Guaranteed:
        """The policy."""
        path: ScanPath = Uniform() if self.share == 1 else WhereItGains(self.lv_error, self.share)
        return Guaranteed(
            path, self.error, self.limit, self.guard, Tolerance(*self.tolerance), self.correction, name=self.name
        )

    def promise(self) -> str:
        """Return what is promised, in words."""
        kept = Tolerance(*self.tolerance).describe()
        if self.limit is None:
            bound = upper_bound(self.misses_at_cap, self.n_calibration, self.confidence)
            return (
                f"Nothing is promised: {self.misses_at_cap} of {self.n_calibration} calibration patients miss the "
                f"tolerance ({kept}) even at the cap, where the risk is at most {100 * bound:.0f} %"
            )
        return (
            f"{kept} of what a complete scan gives, in all but {100 * self.alpha:g} % of patients like those of the "
            f"calibration, with {100 * self.confidence:g} % confidence"
        )

    def misfits(self, protocol: Mapping[str, object]) -> tuple[str, ...]:
        """Return in words in which facts a scan's protocol differs from that of the calibration."""
        return tuple(
            f"{name.replace('_', ' ')} is {protocol.get(name, 'not known')} and not {value}"
            for name, value in self.protocol.items()
            if not _same(protocol.get(name), value)
        )


def _same(one: object, other: object) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return bool(np.isclose(one, other, rtol=1e-3))
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


@dataclass(frozen=True)
class Promise:
    """What is asked of a rule.

    Parameters
    ----------
    alpha
        Largest risk of a miss.
    confidence
        That the risk is not larger, over calibration cohorts.
    """

    alpha: float = 0.10
    confidence: float = 0.90


def uncalibrated_rule(
    predictors: Predictors, fitted_on: Sequence[Trajectory], *, share: float = 0.8, first: int = 1
) -> Guaranteed:
    """Return the rule whose limit is still to be proven; all of it comes from the patients it is fitted on."""
    path: ScanPath = Uniform() if share == 1 else WhereItGains(predictors.lv_error, share)
    rows: StateRows = state_rows(fitted_on, predictors.kept, [path], first=first)
    guard = fit_guard(rows.features, rows.patients)
    return Guaranteed(path, predictors.error, None, guard, predictors.kept, predictors.correction)


def prove(walks: Sequence[Walk], promise: Promise) -> float | None:
    """Return the largest limit that can be proven on patients that the rule was not fitted on; None where none can."""
    lost = losses(walks)
    last = fixed_sequence(lost, promise.alpha, promise.confidence)
    # The first candidate is the cap: by itself it is nothing that a limit could be.
    return None if last is None else -np.inf if last == 0 else float(LIMITS[last - 1])


def losses(walks: Sequence[Walk]) -> NDArray[np.bool_]:
    """Return (patient, candidate) whether each misses: at the cap first, then stopped by each of :data:`LIMITS`."""
    return np.array([np.concatenate([[w.excess[-1] > 1], w.excess[w.stops(LIMITS)] > 1]) for w in walks])


def calibrate_rule(
    name: str,
    predictors: Predictors,
    fitted_on: Sequence[Trajectory],
    calibrated_on: Sequence[Trajectory],
    *,
    cohort: str,
    protocol: Mapping[str, JsonValue],
    date: str,
    promise: Promise | None = None,
    share: float = 0.8,
    first: int = 1,
) -> StoppingCalibration:
    """Calibrate a rule and write its card.

    Raises
    ------
    InputError
        When a patient is in both parts.
    """
    promise = promise or Promise()
    both = {one.patient for one in fitted_on} & {one.patient for one in calibrated_on}
    if both:
        raise InputError(f"{sorted(both)[0]} was fitted on", expected="other patients to calibrate on")
    rule = uncalibrated_rule(predictors, fitted_on, share=share, first=first)
    walks = [walk_rule(rule, one, first=first) for one in calibrated_on]
    limit = prove(walks, promise)
    stops = [w.stop(limit) for w in walks]
    early = [view_of(one, np.full(one.n_slices, first)) for one in calibrated_on]
    features = [state_features(view, predictors.kept).tolist() for view in early]
    assert rule.guard is not None
    return StoppingCalibration(
        name=name, date=date, cohort=cohort, protocol=dict(protocol), tolerance=predictors.tolerance,
        alpha=promise.alpha, confidence=promise.confidence, n_fit=len(fitted_on), n_calibration=len(calibrated_on),
        limit=None if limit is None else max(limit, _NEVER),
        misses=sum(bool(w.excess[s] > 1) for w, s in zip(walks, stops, strict=True)),
        misses_at_cap=sum(bool(w.excess[-1] > 1) for w in walks),
        mean_seconds=float(np.mean([w.seconds[s] for w, s in zip(walks, stops, strict=True)])),
        half_widths=_half_widths(
            [rule.measure(view_of(one, w.states[s])) for one, w, s in zip(calibrated_on, walks, stops, strict=True)],
            [reference_of(one) for one in calibrated_on], promise.alpha,
        ),
        share=share, first=first, lv_error=predictors.lv_error, error=predictors.error, guard=rule.guard,
        correction=predictors.correction,
        reference_features=[[v if np.isfinite(v) else None for v in row] for row in features],
    )  # fmt: skip


def _half_widths(found: Sequence[Array], reference: Sequence[Array], alpha: float) -> dict[str, float | None]:
    errors = np.sort(np.nan_to_num(np.abs(np.array(found) - np.array(reference)), nan=np.inf), axis=0)
    rank = int(np.ceil((len(errors) + 1) * (1 - alpha)))
    if rank > len(errors):
        return dict.fromkeys(MEASURES)
    return {
        name: float(width) if np.isfinite(width) else None
        for name, width in zip(MEASURES, errors[rank - 1], strict=True)
    }


_NEVER = -1e6  # a limit that no score reaches


def read_calibration(path: Path) -> StoppingCalibration:
    """Read and check a calibration.

    Raises
    ------
    InputError
        When it is none.
    """
    existing_file(path, "the calibration of a stopping rule")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"{path} has {path.stat().st_size} bytes", expected=f"at most {MAX_BYTES}", hint=_HINT)
    try:
        return StoppingCalibration.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{path} cannot be read ({one_line(where)}: {one_line(first['msg'])})",
            expected="the calibration of a stopping rule", hint=_HINT,
        ) from error  # fmt: skip


def write_calibration(calibration: StoppingCalibration, path: Path) -> None:
    """Write it as JSON, beside and renamed."""
    atomic_text(path, calibration.model_dump_json(indent=1) + "\n")


FOLDER = Path(__file__).parent / "calibrations"
"""Where the shipped calibrations lie."""


def shipped_calibrations(folder: Path | None = None) -> tuple[StoppingCalibration, ...]:
    """Return the calibrations that come with the package, by name."""
    folder = FOLDER if folder is None else folder
    return tuple(read_calibration(path) for path in sorted(folder.glob("*.json")))
