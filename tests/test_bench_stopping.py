from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from bench.stopping import split_often
from bench.stored import parts_of
from kspace.quality.calibration import Promise, Walk, calibrate_rule, shipped_calibrations, walk_rule
from kspace.quality.predictors import fit_predictors
from simulate.protocol_scan import protocol_scan


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


def test_the_shipped_calibration_is_that_of_the_stored_study_and_of_the_shipped_networks(tmp_path: Path) -> None:
    """New weights or another rule without a new calibration would leave a promise that nobody has proven."""
    stored = tmp_path / "study"
    shutil.copytree(Path(__file__).parents[1] / "bench" / "data" / "study", stored)
    parts, (card,) = parts_of(stored), shipped_calibrations()
    again = calibrate_rule(
        card.name, fit_predictors(parts.fit, parts.cohort), parts.fit, parts.calibration, cohort=parts.cohort,
        protocol=parts.protocol, date=card.date,
    )  # fmt: skip
    assert (again.limit, again.misses, again.misses_at_cap) == (pytest.approx(card.limit), card.misses, 0)
    assert again.mean_seconds == pytest.approx(card.mean_seconds)
    assert (card.n_fit, card.n_calibration) == (60, 100)
    assert card.limit is not None
    walks = [walk_rule(card.rule, one) for one in parts.test]
    assert sum(bool(w.excess[w.stop(card.limit)] > 1) for w in walks) == 4  # as the docs say
    assert protocol_scan(card, 0).together.misfits == ()
