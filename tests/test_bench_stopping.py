from __future__ import annotations

import numpy as np
import pytest

from bench.stopping import split_often
from kspace.quality.calibration import Promise, Walk


def _walk(rng: np.random.Generator) -> Walk:
    """A patient whose score foretells the error, but for noise."""
    excess = rng.lognormal(0.6, 0.4) / np.arange(1, 9)
    return Walk(
        [np.array([k]) for k in range(1, 9)], np.arange(1.0, 9), 2 * np.log(excess) + rng.normal(0, 1, 8), excess
    )


@pytest.mark.parametrize("alpha", [0.1, 0.2])
def test_random_splits_keep_the_risk_and_spread_no_more_than_is_explained(alpha: float) -> None:
    rng = np.random.default_rng(0)
    found = split_often([_walk(rng) for _ in range(150)], Promise(alpha), splits=60)
    assert found.mean_risk <= alpha
    assert found.proven > 0.9
    assert found.mean_seconds < 8
    assert found.calibration + found.test == 150
    assert found.sd < 1.5 * found.explained_sd
    assert found.binomial_sd == pytest.approx(np.sqrt(found.mean_risk * (1 - found.mean_risk) / found.test))


def test_where_scores_know_nothing_scans_run_to_the_cap() -> None:
    rng = np.random.default_rng(1)
    walks = [
        Walk(w.states, w.seconds, rng.normal(-3, 1, 8), np.where(np.arange(8) < 7, 2.0, 0.5))
        for w in (_walk(rng) for _ in range(100))
    ]
    found = split_often(walks, Promise(0.1), splits=20)
    assert found.mean_risk <= 0.1
    assert found.mean_seconds > 7
