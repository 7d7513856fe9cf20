from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspace.errors import UsageError
from kspace.quality.learn_then_test import allowed_misses, fixed_sequence, p_value, upper_bound


@given(n=st.integers(1, 60), alpha=st.floats(0.02, 0.5), level=st.floats(0.01, 0.5))
def test_the_p_value_is_valid_at_the_edge(n: int, alpha: float, level: float) -> None:
    """At a risk of exactly alpha a p-value is at most u in at most a share u of cases, summed over all outcomes."""
    misses = np.arange(n + 1)
    chance = np.array([math.comb(n, k) * alpha**k * (1 - alpha) ** (n - k) for k in misses])
    assert chance[p_value(misses, n, alpha) <= level].sum() <= level + 1e-9


def test_five_misses_of_a_hundred_prove_ten_percent_and_six_do_not() -> None:
    assert allowed_misses(100, 0.10, 0.90) == 5
    assert allowed_misses(10, 0.10, 0.90) == -1


def test_the_sequence_ends_at_the_first_candidate_that_is_not_proven() -> None:
    losses = np.zeros((100, 4), dtype=bool)
    losses[:30, 2] = True  # the last would pass again, and must not be reached
    assert fixed_sequence(losses, 0.1, 0.9) == 1
    losses[:30, 0] = True
    assert fixed_sequence(losses, 0.1, 0.9) is None


def test_the_upper_bound_inverts_the_test() -> None:
    bound = upper_bound(5, 100, 0.9)
    assert float(p_value(5, 100, bound)) == pytest.approx(0.1, abs=1e-6)
    assert upper_bound(4, 4, 0.9) == 1


@pytest.mark.parametrize(("alpha", "confidence"), [(0.0, 0.9), (0.1, 1.0), (math.nan, 0.9)])
def test_risks_and_confidences_that_make_no_sense_are_refused(alpha: float, confidence: float) -> None:
    with pytest.raises(UsageError):
        fixed_sequence(np.zeros((5, 2), dtype=bool), alpha, confidence)
