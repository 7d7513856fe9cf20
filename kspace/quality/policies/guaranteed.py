"""Stop at the first state whose predicted error is small enough, with a limit that was proven on whole patients."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kspace.quality.correction import Correction
from kspace.quality.features import STATE_FEATURES, error_features, state_features
from kspace.quality.linear import LinearModel
from kspace.quality.measures import Tolerance, measured
from kspace.quality.policies.path import Path
from kspace.quality.policies.policy import Choice, stay
from kspace.quality.shift import ShiftGuard
from kspace.quality.trajectory import Array
from kspace.quality.view import View


@dataclass(frozen=True)
class Guaranteed:
    """One rule for the whole patient: where time goes, how large the error looks, and when that is small enough.

    Parameters
    ----------
    path
        Says which slices are scanned next.
    error
        Predicts the logarithm of the largest error of what would be reported now, in units of the tolerance, from
        :data:`~kspace.quality.features.ERROR_FEATURES`.
    limit
        Of it; None never stops before the cap. Nothing needs to be right about the prediction for the promise to hold:
        the limit is proven with it, errors and all.
    because
        Why, where the limit is None.
    guard
        Finds scans that are unlike those that the rule was calibrated on: they run to the cap.
    tolerance
        Of the promise.
    correction
        Of the LV's volumes: the promise is about corrected ones.
    """

    path: Path
    error: LinearModel
    limit: float | None
    guard: ShiftGuard | None = None
    tolerance: Tolerance = field(default_factory=Tolerance)
    correction: Correction = field(default_factory=Correction)
    name: str = "guaranteed"
    because: str = "nothing was proven at this tolerance and risk"

    def score(self, view: View) -> float:
        """Return the predicted error of a state; infinite where the scan is unlike the calibration cohort."""
        return self._score(state_features(view, self.tolerance))

    def measure(self, view: View) -> Array:
        """Return the (measure,) that the scan would report if it ended now."""
        found = measured(view.areas_mm2[0], view.spacing_mm)
        return self.correction(found, state_features(view, self.tolerance), self.tolerance)

    def _score(self, features: Array) -> float:
        if not np.isfinite(features[STATE_FEATURES.index("ef")]):
            return np.inf  # without an LV there is nothing that could be within tolerance
        if self.guard is not None and self.guard.distance(features) > self.guard.limit:
            return np.inf
        return float(self.error(error_features(features)))

    def __call__(self, view: View) -> Choice:
        """Decide."""
        features = state_features(view, self.tolerance)
        score = self._score(features)
        chosen = error_features(features)
        predicted = float(np.exp(self.error(chosen)))
        if self.limit is not None and score <= self.limit:
            reason = f"the largest error is predicted to be {predicted:.2g} of the tolerance, which is enough"
            return stay(view, reason, reached=True)
        held = f"held back by a predicted error of {predicted:.2g} of the tolerance: {self.error.foremost(chosen)}"
        if self.guard is not None and (distance := self.guard.distance(features)) > self.guard.limit:
            held = (
                f"unlike the calibration cohort by {distance:.1f} > {self.guard.limit:.1f} standard deviations, "
                f"most of all in {self.guard.foremost(features)}: the scan runs to the cap"
            )
        elif self.limit is None:
            held = f"{self.because}: the scan runs to the cap"
        onward = self.path(view)
        return Choice(onward, held) if onward.any() else stay(view, f"time is up; {held}")
