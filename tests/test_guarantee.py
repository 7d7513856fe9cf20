from __future__ import annotations

import pytest

from bench.guarantee import MODELS, study


@pytest.mark.parametrize("name", MODELS)
def test_the_promise_is_kept_in_nine_of_ten_calibrations(name: str) -> None:
    kept = study(name, 0.1, patients=20_000, calibrations=200, per_calibration=100, others=500)["learn-then-test"]
    assert kept.exceeded <= 0.1 + 0.04  # 0.04 is two standard errors of 200 calibrations
    assert kept.unproven < 0.2


def test_intervals_that_are_calibrated_in_each_round_break_it() -> None:
    kept = study("noisy scores", 0.1, patients=20_000, calibrations=30, per_calibration=100)
    assert kept["per round"].exceeded > 0.5
