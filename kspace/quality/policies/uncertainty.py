"""Stop when the networks agree, or disagree about what more spokes would not change. Nobody has calibrated it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kspace.quality.measures import MEASURES, TOLERATED, Tolerance, measured
from kspace.quality.policies.path import Uniform
from kspace.quality.policies.policy import Choice, stay
from kspace.quality.trajectory import Array
from kspace.quality.view import LAGS, View

_WHICH = [MEASURES.index(name) for name in TOLERATED]
_NORMAL = 1.645  # standard deviations to either side hold nine of ten normal errors


@dataclass(frozen=True)
class Uncertainty:
    """All slices end when 1.645 standard deviations of the samples' EF and volumes fit into the tolerance.

    Networks may disagree about a heart however long it is scanned: about where it ends at the base, for example. What
    the tolerance is about is how far a complete scan would be from this one. So the scan can end, too, when EF and
    volumes have settled: errors of images fall about as one over the scan time, so that what moved since an earlier
    decision foretells what is still to come, as ``moved * t_then / (t_now - t_then)``.

    Parameters
    ----------
    tolerance
        That the interval has to fit into.
    settled
        Share of the tolerance that may still be to come, in the worst of the measures and the two decisions before;
        None goes by the networks' agreement alone.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    settled: float | None = None
    name: str = "uncertainty"

    def __call__(self, view: View) -> Choice:
        """Decide."""
        found = measured(view.areas_mm2[0], view.spacing_mm)
        samples = measured(view.sample_areas_mm2, view.spacing_mm)[:, _WHICH]
        width = np.inf
        if len(samples) > 1:
            worst = float((_NORMAL * samples.std(0, ddof=1) / self.tolerance.limits(found)).max())
            width = np.inf if np.isnan(worst) else worst
        onward = Uniform()(view)
        if width <= 1:
            return stay(view, f"the networks agree to {width:.2g} of the tolerance", reached=True)
        differ = f"the networks differ by {width:.2g} times the tolerance"
        coming = self._to_come(view, found)
        if self.settled is not None and coming <= self.settled:
            return stay(view, f"{differ}, but more spokes would change no more than {coming:.2g} of it", reached=True)
        if not onward.any():
            return stay(view, "time is up")
        return Choice(onward, differ)

    def _to_come(self, view: View, found: Array) -> float:
        """Return what EF and volumes are still expected to move, in units of the tolerance."""
        if view.steps.min() < LAGS:
            return np.inf
        before = measured(view.areas_mm2[1:], view.spacing_mm)
        moved = np.abs(found - before)[:, _WHICH] / self.tolerance.limits(found)
        now, then = (float(view.score("spokes_per_frame", lag).mean()) for lag in (0, LAGS - 1))
        worst = float(moved.max()) * then / (now - then) if now > then else np.inf
        return np.inf if np.isnan(worst) else worst
