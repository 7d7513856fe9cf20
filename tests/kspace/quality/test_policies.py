from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from kspace.errors import InputError, ShapeError, UsageError
from kspace.quality.calibration import (
    LIMITS,
    StoppingCalibration,
    calibrate_rule,
    losses,
    read_calibration,
    walk_rule,
    write_calibration,
)
from kspace.quality.measures import Tolerance
from kspace.quality.policies import (
    Conformal,
    Fixed,
    Policy,
    TwoClassifiers,
    Uncertainty,
    Uniform,
    WhereItGains,
    joint_limit,
    oracle,
    per_round_limits,
    run,
)
from kspace.quality.policies.path import walk
from kspace.quality.policies.policy import excess_at
from kspace.quality.predictors import Predictors, fit_predictors
from kspace.quality.trajectory import Trajectory
from kspace.quality.view import view_of
from tests.kspace.quality.trajectories import random_trajectory

NOISE = 0.12


@cache
def cohort() -> tuple[Trajectory, ...]:
    return tuple(random_trajectory(seed, noise=NOISE) for seed in range(46))


@cache
def predictors() -> Predictors:
    return fit_predictors(cohort()[:16], "synthetic")


@cache
def calibration() -> StoppingCalibration:
    return calibrate_rule(
        "guaranteed", predictors(), cohort()[:16], cohort()[16:46], cohort="synthetic", protocol={"matrix": 96},
        date="2026-11-25",
    )  # fmt: skip


POLICIES: dict[str, Callable[[], Policy]] = {
    "fixed": lambda: Fixed(2.0),
    "two classifiers": lambda: TwoClassifiers(predictors().image_good, predictors().segmentation_good),
    "uncertainty": Uncertainty,
    "uncertainty, settled": lambda: Uncertainty(settled=0.25),
    "conformal": lambda: Conformal(predictors().excess, (1.5,) * 8, "joint"),
    "guaranteed": lambda: calibration().rule,
}


def _scrambled_after(one: Trajectory, steps: np.ndarray) -> Trajectory:
    """Return the trajectory with everything made up that lies after the present step of each slice, and all truth."""
    rng = np.random.default_rng(0)
    future = np.arange(1, one.n_steps + 1)[:, None] > steps

    def other(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return np.where(mask, rng.uniform(0, 3000, values.shape), values)

    return replace(
        one,
        areas_mm2=other(one.areas_mm2, future[..., None, None]),
        sample_areas_mm2=other(one.sample_areas_mm2, future[:, None, :, None, None]),
        reference_areas_mm2=rng.uniform(0, 3000, one.reference_areas_mm2.shape),
        scores={name: other(values, future) for name, values in one.scores.items()},
        truth_scores={name: rng.random(values.shape) for name, values in one.truth_scores.items()},
    )


@pytest.mark.parametrize("name", POLICIES)
def test_no_policy_looks_ahead(name: str) -> None:
    """Whatever comes later, and whatever the truth is: the choices on the way to the stop stay what they were."""
    policy = POLICIES[name]()
    for one in cohort()[16:19]:
        stopped = run(policy, one)
        again = run(policy, _scrambled_after(one, stopped.steps))
        np.testing.assert_array_equal(again.steps, stopped.steps)
        assert again.choice.reason == stopped.choice.reason


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_ends_at_the_cap_at_the_latest_and_says_why(name: str) -> None:
    one = random_trajectory(99, noise=3.0)
    stopped = run(POLICIES[name](), one)
    assert stopped.steps.min() >= 1
    assert stopped.steps.max() <= one.n_steps
    assert stopped.choice.reason


def test_networks_that_will_always_differ_hold_up_no_scan_that_has_settled() -> None:
    """One network draws twice the ventricle; what is reported approaches the truth as 1 / t, as foretold."""
    one = random_trajectory(5, noise=0.0)
    away = 1 + 0.4 / one.seconds[:, None, None, None]
    samples = np.repeat(one.reference_areas_mm2[None, None], 2, axis=1) * np.array([1.0, 2.0])[:, None, None, None]
    apart = replace(
        one, areas_mm2=one.reference_areas_mm2[None] * away, sample_areas_mm2=np.repeat(samples, one.n_steps, axis=0)
    )
    assert not run(Uncertainty(), apart).choice.reached
    true = np.array([excess_at(apart, np.full(5, step), Tolerance()) for step in range(1, 9)])
    assert true[-1] > 0.5
    assert not run(Uncertainty(settled=0.5 * true[-1]), apart).choice.reached
    for settled in (1.2 * true[-1], 1.2 * true[4]):
        stopped = run(Uncertainty(settled=float(settled)), apart)
        step = int(stopped.steps[0])
        assert stopped.choice.reached
        assert true[step - 1] < 1.15 * settled
        assert true[step - 2] > 0.85 * settled
        assert "but more spokes would change no more than" in stopped.choice.reason


def test_a_fixed_time_is_that_time() -> None:
    assert run(Fixed(2.0), cohort()[0]).seconds.tolist() == [2.0] * 5
    assert run(Fixed(100.0), cohort()[0]).seconds.tolist() == [4.0] * 5
    with pytest.raises(UsageError):
        Fixed(0)


def test_a_view_holds_what_was_known_and_refuses_steps_that_are_not_there() -> None:
    one, steps = cohort()[0], np.array([1, 2, 3, 8, 5])
    view = view_of(one, steps)
    for index, step in enumerate(steps):
        np.testing.assert_array_equal(view.areas_mm2[0, index], one.areas_mm2[step - 1, index])
        np.testing.assert_array_equal(view.areas_mm2[1, index], one.areas_mm2[max(step - 2, 0), index])
        np.testing.assert_array_equal(view.sample_areas_mm2[:, index], one.sample_areas_mm2[step - 1, :, index])
        assert view.score("image_change")[index] == one.scores["image_change"][step - 1, index]
    assert np.isnan(view.score("entropy")).all()
    with pytest.raises(ShapeError):
        view_of(one, np.array([0, 1, 1, 1, 1]))


def test_time_goes_where_it_gains_and_every_path_ends_at_the_cap() -> None:
    one = cohort()[3]
    path = WhereItGains(predictors().lv_error, 0.6)
    states = walk(path, one)
    assert (states[-1] == one.n_steps).all()
    for before, after in pairwise(states):
        assert ((after - before) >= 0).all()
        chosen = after > before
        gains = path.gains(view_of(one, before))
        assert chosen.any()
        assert gains[chosen].min() >= gains[~chosen & (before < one.n_steps)].max(initial=0)
    np.testing.assert_array_equal(walk(WhereItGains(predictors().lv_error, 1.0), one), walk(Uniform(), one))


def test_the_oracle_is_within_tolerance_and_no_later_than_any_state_it_was_shown() -> None:
    tolerance = Tolerance()
    for one in cohort()[:10]:
        found = oracle(one, tolerance)
        uniform = [s for s in walk(Uniform(), one) if excess_at(one, s, tolerance) <= 1]
        if found.choice.reached:
            assert excess_at(one, found.steps, tolerance) <= 1
        assert not uniform or found.seconds.sum() <= one.seconds[uniform[0] - 1].sum() + 1e-9


def test_the_joint_interval_is_no_narrower_than_any_round_and_covers() -> None:
    rng = np.random.default_rng(0)
    errors, predicted = rng.lognormal(size=(200, 6)), np.ones((200, 6))
    per_round, joint = per_round_limits(errors, predicted, 0.1), joint_limit(errors, predicted, 0.1)
    assert all(one <= joint[0] for one in per_round)
    assert (errors.max(1) > joint[0]).mean() <= 0.1
    assert np.isinf(joint_limit(errors[:5], predicted[:5], 0.1)[0])  # too few patients prove nothing


def test_a_calibrated_rule_keeps_its_promise_on_its_own_patients_and_stops_early() -> None:
    card = calibration()
    assert card.limit is not None
    walks = [walk_rule(card.rule, one) for one in cohort()[16:46]]
    assert card.misses == sum(w.excess[w.stop(card.limit)] > 1 for w in walks)
    assert card.misses <= 0.1 * len(walks)
    assert card.mean_seconds < 4.0
    for one, walked in zip(cohort()[16:19], walks, strict=False):
        np.testing.assert_array_equal(run(card.rule, one).steps, walked.states[walked.stop(card.limit)])


def test_stops_at_all_limits_are_those_at_each() -> None:
    walked = walk_rule(calibration().rule, cohort()[20])
    assert walked.stops(LIMITS).tolist() == [walked.stop(float(limit)) for limit in LIMITS]
    lost = losses([walked])
    assert lost.shape == (1, len(LIMITS) + 1)
    assert lost[0, 0] == (walked.excess[-1] > 1)


def test_where_nothing_can_be_proven_the_scan_runs_to_the_cap_and_says_so() -> None:
    bad = [random_trajectory(seed, noise=1.5) for seed in range(200, 212)]
    card = calibrate_rule(
        "guaranteed", predictors(), cohort()[:16], bad, cohort="synthetic", protocol={}, date="2026-11-25"
    )
    assert card.limit is None
    assert "Nothing is promised" in card.promise()
    stopped = run(card.rule, cohort()[20])
    assert (stopped.steps == 8).all()
    assert "nothing was proven" in stopped.choice.reason


def test_a_scan_unlike_the_cohort_runs_to_the_cap_and_says_why() -> None:
    one = cohort()[20]
    # Volumes of a giant, with a right ventricle that ejects nothing.
    scale = np.array([30.0, 30.0, 30.0])[:, None] * np.where(np.arange(3)[:, None] == 2, 0.1, 1.0)
    strange = replace(one, areas_mm2=one.areas_mm2 * scale, sample_areas_mm2=one.sample_areas_mm2 * scale)
    stopped = run(calibration().rule, strange)
    assert (stopped.steps == one.n_steps).all()
    assert "unlike the calibration cohort" in stopped.choice.reason


def test_a_calibration_comes_back_from_its_file_and_a_wrong_one_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "rule.json"
    write_calibration(calibration(), path)
    assert read_calibration(path) == calibration()
    assert calibration().misfits({"matrix": 96}) == ()
    assert calibration().misfits({"matrix": 128}) == ("matrix is 128 and not 96",)
    path.write_text(path.read_text().replace('"alpha": 0.1', '"alpha": 1.1'))
    with pytest.raises(InputError, match="alpha"):
        read_calibration(path)


def test_nobody_is_fitted_on_and_calibrated_on() -> None:
    with pytest.raises(InputError, match="fitted on"):
        calibrate_rule(
            "x", predictors(), cohort()[:16], cohort()[15:40], cohort="synthetic", protocol={}, date="2026-11-25"
        )
