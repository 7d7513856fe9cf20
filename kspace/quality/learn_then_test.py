"""Choose a threshold so that a risk is kept with confidence, whatever the distribution: Learn-then-Test.

Every candidate threshold is a hypothesis "the risk exceeds alpha", tested with an exact binomial p-value on calibration
patients; candidates are tested in an order fixed beforehand, from the most careful on, until one is not rejected
(fixed-sequence testing). So the chance of choosing a threshold whose risk exceeds alpha is at most 1 - confidence
(Angelopoulos et al., arXiv 2110.01052). A patient is one draw: stopping times, rounds and slices do not enter, and
neither does it matter whether the risk grows with the threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta, binom

from kspace.errors import UsageError
from kspace.quality.trajectory import Array


def p_value(misses: NDArray[Any] | int, n: int, alpha: float) -> Array:
    """Return the probability of so few misses among n patients, or fewer, if the risk were alpha.

    Under "the risk exceeds alpha" it is at most u with probability at most u: the exact binomial test.
    """
    _check(n, alpha)
    tail: Array = np.asarray(binom.cdf(misses, n, alpha), dtype=np.float64)
    return tail


def upper_bound(misses: int, n: int, confidence: float) -> float:
    """Return the Clopper-Pearson upper bound of a risk of which so many misses were seen."""
    _check(n, confidence)
    return 1.0 if misses >= n else float(beta.ppf(confidence, misses + 1, n - misses))


def fixed_sequence(losses: NDArray[np.bool_], alpha: float, confidence: float) -> int | None:
    """Return the last candidate of the run of candidates, from the first on, that are all proven.

    Parameters
    ----------
    losses
        (patient, candidate): whether a patient's scan, stopped by the candidate, misses. Candidates in the order in
        which they are tested; neither they nor their order may depend on these patients.
    alpha
        The risk not to be exceeded.
    confidence
        With which probability over calibration patients it is not.

    Returns
    -------
    None where not even the first is proven.
    """
    _check(len(losses), confidence)
    proven = p_value(losses.sum(0), len(losses), alpha) <= 1 - confidence
    length = len(proven) if proven.all() else int(proven.argmin())
    return length - 1 if length else None


def allowed_misses(n: int, alpha: float, confidence: float) -> int:
    """Return how many of n patients may miss for a threshold to be proven; -1 where n is too small for any."""
    return int(np.count_nonzero(p_value(np.arange(n + 1), n, alpha) <= 1 - confidence)) - 1


def _check(n: int, share: float) -> None:
    if n < 1:
        raise UsageError("a calibration on nobody", expected="at least one patient")
    if not 0 < share < 1:
        raise UsageError(f"a risk or confidence of {share:g}", expected="a number between 0 and 1")
