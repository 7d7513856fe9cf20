"""A policy for a whole stack with what goes along: who draws, when decisions are taken, and what is promised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from kspace.errors import UsageError
from kspace.quality.calibration import StoppingCalibration, shipped_calibrations
from kspace.quality.features import state_features
from kspace.quality.measures import MEASURES, Tolerance, measured, without_islands
from kspace.quality.policies import Policy, Uncertainty
from kspace.quality.shift import scan_p_value
from kspace.quality.view import View
from kspace.volume_curves import VolumeCurves
from simulate.acquisition import LoopOptions
from simulate.source import SpokeSource
from simulate.stack_judge import SegmenterDrawer, StackDrawer
from simulate.stack_loop import StackResult

_UNITS = {"ml": "mL", "percent": "%", "g": "g"}
_SHOWN = 3  # differences of protocol
# By settling alone 2 of 47 virtual patients of a study ended out of tolerance, after 6.7 s; at 0.35, 7 of them.
_SETTLED = 0.25
_TOLD = ("lv_ef_percent", "lv_edv_ml", "lv_esv_ml")


@dataclass(frozen=True)
class StackPolicy:
    """How a whole stack is decided on.

    Parameters
    ----------
    policy
        Decides.
    draw
        Draws the stack at every decision.
    times
        Scan times of a slice at which decisions are taken; the last is the cap.
    calibration
        Of the policy, where it has one.
    misfits
        In what the scan differs from the protocol of the calibration, in words: where there is any, no guarantee
        applies.
    """

    policy: Policy
    draw: StackDrawer
    times: tuple[float, ...]
    calibration: StoppingCalibration | None = None
    misfits: tuple[str, ...] = ()

    @property
    def promise(self) -> str:
        """What is promised, or why nothing is, as a sentence without a full stop."""
        if self.calibration is None:
            return "No guarantee applies: the policy is not calibrated"
        if self.misfits:
            return f"No guarantee applies: {'; '.join(self.misfits)}"
        return self.calibration.promise()

    def record(self, result: StackResult) -> Mapping[str, Any]:
        """Return what goes into ``scan.json``: decision, promise, and the measures that the promise is about."""
        view, card = result.view, self.calibration
        fits = card is not None and not self.misfits
        found = card.rule.measure(view) if card is not None and fits else measured(view.areas_mm2[0], view.spacing_mm)
        unlike = card is not None and not self.misfits and _unlike(card, view)
        # The rule as a whole is proven, scans that ran to the cap with it; strangers are of no cohort that it was.
        applies = card is not None and not self.misfits and card.limit is not None and not unlike
        promise = "No guarantee applies: the scan is unlike those of the calibration" if unlike else self.promise
        widths = card.half_widths if card is not None and not self.misfits else {}
        covered = len(_curves(view).full_ends) < 2
        measures = {
            name: _interval(float(value), widths.get(name)) if covered and not np.isnan(value) else None
            for name, value in zip(MEASURES, found, strict=True)
        }
        p = None
        if card is not None and not self.misfits:
            p = _likeness(card, view)
        return {
            "policy": self.policy.name,
            "reached": result.choice.reached,
            "reason": result.choice.reason,
            "seconds_per_slice": view.mean_seconds,
            "promise": promise,
            "promise_applies": applies,
            "likeness_p": p,
            "measured": measures,
            "said": _sentences(promise, result, measures),
        }


def _curves(view: View) -> VolumeCurves:
    return VolumeCurves(torch.from_numpy(without_islands(view.areas_mm2[0])).transpose(0, 1), view.spacing_mm)


def _interval(value: float, width: float | None) -> dict[str, float | None]:
    if width is None:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": max(value - width, 0.0), "high": value + width}


def _likeness(card: StoppingCalibration, view: View) -> float:
    """Return the conformal p-value of "this scan is like those of the calibration", by how far out its features are.

    It compares with calibration patients at the first decision: the guard takes the scan time out of the features.
    """
    own = state_features(view, Tolerance(*card.tolerance))
    others = np.array([[np.nan if v is None else v for v in row] for row in card.reference_features])
    return scan_p_value(card.guard, others, own)


def _unlike(card: StoppingCalibration, view: View) -> bool:
    return card.guard.distance(state_features(view, Tolerance(*card.tolerance))) > card.guard.limit


def _sentences(promise: str, result: StackResult, measures: Mapping[str, Any]) -> list[str]:
    ended = "ended early" if result.choice.reached else "ran to the cap"
    told = []
    for name in _TOLD:
        found = measures[name]
        if found is not None:
            side, kind, unit = name.split("_")
            reach = "" if found["low"] is None else f" ({found['low']:.0f} to {found['high']:.0f})"
            told.append(f"{side.upper()}{kind.upper()} {found['value']:.0f}{reach} {_UNITS[unit]}")
    return [
        f"The stack {ended} after {result.view.mean_seconds:.2g} s per slice: {result.choice.reason}.",
        f"At that moment it measured {', '.join(told)}."
        if told
        else "Base and apex, or the heart, are not in the stack.",
        f"{promise}.",
    ]


def uncertainty_policy(step_s: float, min_seconds: float, max_seconds: float) -> StackPolicy:
    """Return the uncalibrated policy: the scan ends when the networks agree on EF and volumes, or these settled."""
    return StackPolicy(
        Uncertainty(settled=_SETTLED), SegmenterDrawer(), decision_times(step_s, min_seconds, max_seconds)
    )


def guaranteed_policy(
    card: StoppingCalibration, draw: StackDrawer, times: tuple[float, ...], protocol: Mapping[str, object]
) -> StackPolicy:
    """Return a calibrated rule for a scan; where the scan is not of its protocol, it runs to the cap and says why.

    Parameters
    ----------
    card
        The rule.
    draw
        Draws the stack; it has to be what the calibration's patients were drawn by for the promise to hold.
    times
        Of decisions.
    protocol
        What is known of the scan, to be compared with the card's.
    """
    misfits = card.misfits(protocol)
    rule = card.rule
    if misfits:
        more = f" and {len(misfits) - _SHOWN} further differences" if len(misfits) > _SHOWN else ""
        misfits = (f"this is not the protocol of the calibration: {', '.join(misfits[:_SHOWN])}{more}",)
        rule = replace(rule, limit=None, guard=None, because=misfits[0])
    return StackPolicy(rule, draw, times, card, misfits)


def guaranteed_scan(source: SpokeSource, options: LoopOptions, slices: Sequence[int]) -> StackPolicy:
    """Return the shipped rule for a source that was set up without it.

    Raises
    ------
    UsageError
        When no rule is shipped.
    """
    card = shipped_calibration()
    times = card.protocol.get("seconds")
    scanner = getattr(source, "options", None)
    facts: dict[str, object] = {
        "matrix": max(source.geometry.shape[1:]),
        "field_of_view_mm": max(source.geometry.shape[1:]) * source.geometry.spacing_mm[2],
        "frames": source.n_frames or options.n_frames,
        "n_slices": len(slices),
        "n_coils": None if scanner is None else scanner.n_coils,
        "tr_ms": None if scanner is None else scanner.tr_s * 1e3,
        "method": options.method.name,
    }
    steps = tuple(float(str(t)) for t in times) if isinstance(times, list) else decision_times(0.5, 1.0, 12.0)
    return guaranteed_policy(card, SegmenterDrawer(), steps, facts)


def decision_times(step_s: float, min_seconds: float, max_seconds: float) -> tuple[float, ...]:
    """Return the times from the floor to the cap, both of them in; the last step may be longer by a half."""
    first = max(min_seconds, min(step_s, max_seconds))
    count = max(int((max_seconds - first) / step_s + 0.5), 0)
    times = [first + number * step_s for number in range(count)]
    return tuple(round(t, 9) for t in [*times, max_seconds] if t <= max_seconds)


def shipped_calibration(name: str | None = None) -> StoppingCalibration:
    """Return a calibration that comes with the package, the first by default.

    Raises
    ------
    UsageError
        When there is none, or none of that name.
    """
    every = shipped_calibrations()
    for one in every:
        if name in (None, one.name):
            return one
    known = ", ".join(one.name for one in every) or "none: calibrate one with a study"
    raise UsageError(f"there is no calibrated stopping rule{'' if name is None else f' {name!r}'}", expected=known)
