"""Stop when a conformal interval fits into the tolerance: calibrated in every round by itself, or over all of them.

In each round the interval is a predicted size of the error times a factor. Per round (Wen et al., ECCV 2024) the factor
covers nine of ten calibration patients in that round, and the coverage is lost at a round that the data chose; jointly
(Wen et al., arXiv 2511.13533) one factor covers them in all rounds at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from kspace.errors import ShapeError, UsageError
from kspace.quality.features import state_features
from kspace.quality.linear import LinearModel
from kspace.quality.measures import Tolerance
from kspace.quality.policies.path import Uniform
from kspace.quality.policies.policy import Choice, stay
from kspace.quality.trajectory import Array
from kspace.quality.view import View


@dataclass(frozen=True)
class Conformal:
    """All slices go on together until the interval fits.

    Parameters
    ----------
    model
        Predicts the logarithm of the largest error in units of the tolerance, from
        :data:`~kspace.quality.features.STATE_FEATURES`.
    factors
        Of the predicted error, one for each step.
    tolerance
        Of the features.
    name
        ``per-round conformal`` or ``joint``.
    """

    model: LinearModel
    factors: tuple[float, ...]
    name: str
    tolerance: Tolerance = field(default_factory=Tolerance)

    def __call__(self, view: View) -> Choice:
        """Decide."""
        if len(self.factors) != view.n_steps:
            raise ShapeError("the factors", (len(self.factors),), f"({view.n_steps},), one for each step")
        width = (
            float(np.exp(self.model(state_features(view, self.tolerance)))) * self.factors[int(view.steps.max()) - 1]
        )
        if width <= 1:
            return stay(view, f"the interval is {width:.2g} of the tolerance", reached=True)
        onward = Uniform()(view)
        if not onward.any():
            return stay(view, "time is up")
        return Choice(onward, f"the interval is {width:.2g} times the tolerance")


def per_round_limits(errors: Array, predicted: Array, alpha: float) -> tuple[float, ...]:
    """Return a factor for each round that covers all but alpha of the patients there.

    Parameters
    ----------
    errors, predicted
        (patient, round) largest errors in units of the tolerance, and what was predicted.
    alpha
        Share of patients that need not be covered.
    """
    return tuple(_quantile(ratio, alpha) for ratio in (errors / predicted).T)


def joint_limit(errors: Array, predicted: Array, alpha: float) -> tuple[float, ...]:
    """Return one factor, for each round the same, that covers all but alpha of the patients in all rounds at once."""
    factor = _quantile((errors / predicted).max(1), alpha)
    return (factor,) * int(errors.shape[1])


def _quantile(values: Array, alpha: float) -> float:
    if not 0 < alpha < 1:
        raise UsageError(f"a risk of {alpha:g}", expected="a number between 0 and 1")
    rank = int(np.ceil((len(values) + 1) * (1 - alpha)))
    return float(np.sort(values)[rank - 1]) if rank <= len(values) else np.inf
