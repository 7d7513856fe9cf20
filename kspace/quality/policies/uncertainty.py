"""Stop when the networks agree: the width of an interval that nobody has calibrated."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kspace.quality.measures import MEASURES, TOLERATED, Tolerance, measured
from kspace.quality.policies.path import Uniform
from kspace.quality.policies.policy import Choice, stay
from kspace.quality.view import View

_WHICH = [MEASURES.index(name) for name in TOLERATED]
_NORMAL = 1.645  # standard deviations to either side hold nine of ten normal errors


@dataclass(frozen=True)
class Uncertainty:
    """All slices end when 1.645 standard deviations of the samples' EF and volumes fit into the tolerance.

    Parameters
    ----------
    tolerance
        That the interval has to fit into.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
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
        if not onward.any():
            return stay(view, "time is up")
        return Choice(onward, f"the networks differ by {width:.2g} times the tolerance")
