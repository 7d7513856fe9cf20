from __future__ import annotations

import numpy as np
import pytest

from kspace.errors import ShapeError
from kspace.quality.figures import auroc, correlation, expected_calibration_error


def test_auroc_counts_pairs() -> None:
    scores, labels = np.array([0.1, 0.4, 0.35, 0.8, 0.4]), np.array([0, 0, 1, 1, 1])
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[labels == 1] for n in scores[labels == 0]]
    assert auroc(scores, labels) == pytest.approx(np.mean(pairs))
    assert np.isnan(auroc(scores, np.ones(5)))


def test_calibration_error_of_honest_and_of_boastful_probabilities() -> None:
    rng = np.random.default_rng(0)
    said = rng.random(20_000)
    came = rng.random(20_000) < said
    assert expected_calibration_error(said, came) < 0.02
    assert expected_calibration_error(np.full(1000, 0.9), np.arange(1000) % 2) == pytest.approx(0.4)


def test_correlation_leaves_out_what_is_not_known() -> None:
    one = np.array([1.0, 2.0, 3.0, np.nan, 9.0])
    assert correlation(one, np.array([2.0, 4.0, 6.0, 7.0, np.nan])) == pytest.approx(1)
    with pytest.raises(ShapeError):
        correlation(one, np.ones(3))
