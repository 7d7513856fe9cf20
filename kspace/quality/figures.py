"""Figures that judge judges: AUROC, expected calibration error, correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from kspace.errors import ShapeError
from kspace.quality.trajectory import Array


def auroc(scores: Array, labels: NDArray[Any]) -> float:
    """Return the chance that a positive has a higher score than a negative, ties counting half; NaN without both."""
    positive = _checked(scores, labels).astype(bool)
    n_positive, n_negative = int(positive.sum()), int((~positive).sum())
    if not n_positive or not n_negative:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def expected_calibration_error(probabilities: Array, labels: NDArray[Any], bins: int = 10) -> float:
    """Return how far what was said is from what came true, mean over bins of equal width (Guo et al., ICML 2017)."""
    came = _checked(probabilities, labels).astype(np.float64)
    which = np.minimum((probabilities * bins).astype(int), bins - 1)
    total = 0.0
    for number in range(bins):
        inside = which == number
        if inside.any():
            total += inside.mean() * abs(float(probabilities[inside].mean() - came[inside].mean()))
    return total


def correlation(predicted: Array, true: Array) -> float:
    """Return Pearson's correlation of what is known of both; NaN where one does not vary."""
    known = np.isfinite(predicted) & np.isfinite(_checked(predicted, true))
    one, other = predicted[known], true[known]
    if len(one) < 2 or one.std() == 0 or other.std() == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def _checked(values: Array, others: NDArray[Any]) -> NDArray[Any]:
    if values.ndim != 1 or values.shape != others.shape:
        raise ShapeError("what is compared", others, f"{values.shape}")
    return others
