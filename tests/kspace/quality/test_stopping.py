from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kspace.errors import UsageError
from kspace.quality.judge import Decision, Score, Verdict
from kspace.quality.stopping import FixedRule, QualityRule


def verdict(seconds: float, *values: float) -> Verdict:
    names = ("prediction_error", "image_change", "third")
    return Verdict(seconds, tuple(Score(n, v, 0.1, n) for n, v in zip(names, values, strict=False)))


GOOD, BAD, UNKNOWN = 0.05, 0.2, math.nan


def history(*values: float, step: float = 1.0) -> list[Verdict]:
    return [verdict(step * (number + 1), value) for number, value in enumerate(values)]


# Quality


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((GOOD,), Decision(False, "good, but before the floor of 2 s")),
        ((BAD, GOOD), Decision(False, "good; waiting for the next step to confirm it")),
        ((GOOD, GOOD), Decision(True, "good enough 2 steps in a row", reached=True)),
        ((BAD, BAD, GOOD, GOOD), Decision(True, "good enough 2 steps in a row", reached=True)),
        ((GOOD, BAD, GOOD), Decision(False, "good; waiting for the next step to confirm it")),
        ((GOOD, BAD), Decision(False, "held back by prediction error 0.2 > 0.1")),
        ((UNKNOWN,), Decision(False, "held back by prediction error (not known yet)")),
        ((GOOD, UNKNOWN), Decision(False, "held back by prediction error (not known yet)")),
        ((BAD,) * 5, Decision(True, "time is up; held back by prediction error 0.2 > 0.1")),
        ((UNKNOWN,) * 5, Decision(True, "time is up; held back by prediction error (not known yet)")),
        ((BAD,) * 4 + (GOOD,), Decision(True, "time is up; the last step was good, but not yet confirmed")),
        ((BAD,) * 3 + (GOOD, GOOD), Decision(True, "good enough 2 steps in a row", reached=True)),
    ],
)
def test_every_course_has_its_decision(values: tuple[float, ...], expected: Decision) -> None:
    assert QualityRule(min_seconds=2, max_seconds=5, in_a_row=2)(history(*values)) == expected


def test_one_step_may_be_enough() -> None:
    rule = QualityRule(min_seconds=0, max_seconds=5, in_a_row=1)
    assert rule(history(GOOD)) == Decision(True, "good enough at this step", reached=True)


def test_all_scores_have_to_be_good_and_all_that_are_not_are_named() -> None:
    rule = QualityRule(min_seconds=1, max_seconds=5)
    held = rule([verdict(1, GOOD, GOOD, GOOD), verdict(2, BAD, GOOD, UNKNOWN)])
    assert held == Decision(False, "held back by prediction error 0.2 > 0.1 and third (not known yet)")
    assert rule([verdict(1, GOOD, GOOD, GOOD), verdict(2, GOOD, GOOD, GOOD)]).reached


def test_without_judges_it_goes_on_to_the_cap_and_says_why() -> None:
    rule = QualityRule(min_seconds=1, max_seconds=3)
    for seconds in (0.5, 2.0):
        assert rule([verdict(seconds)]) == Decision(False, "nothing was judged")
    assert rule([verdict(1), verdict(2), verdict(3)]) == Decision(True, "time is up; nothing was judged")


def test_the_floor_counts_and_not_the_steps() -> None:
    rule = QualityRule(min_seconds=2, max_seconds=5)
    early = history(GOOD, GOOD, GOOD, step=0.5)
    assert rule(early) == Decision(False, "good, but before the floor of 2 s")
    assert rule([*early, verdict(2.0, GOOD)]).reached


def test_rounding_of_the_clock_costs_no_step() -> None:
    rule = QualityRule(min_seconds=2, max_seconds=5)
    assert rule([verdict(1.0, GOOD), verdict(1.9999999, GOOD)]).reached
    assert rule([verdict(4.0, BAD), verdict(4.9999999, BAD)]).stop
    assert FixedRule(5)([verdict(4.9999999, BAD)]).stop


def test_a_floor_at_the_cap_is_a_fixed_time_with_an_opinion() -> None:
    rule = QualityRule(min_seconds=3, max_seconds=3)
    assert not rule(history(GOOD, GOOD)).stop
    assert rule(history(GOOD, GOOD, GOOD)) == Decision(True, "good enough 2 steps in a row", reached=True)


@given(
    values=st.lists(st.sampled_from([GOOD, BAD, UNKNOWN]), min_size=1, max_size=12),
    floor=st.floats(0, 6),
    length=st.floats(0.1, 6),
    in_a_row=st.integers(1, 4),
)
def test_no_decision_breaks_the_rules(values: list[float], floor: float, length: float, in_a_row: int) -> None:
    rule = QualityRule(floor, floor + length, in_a_row)
    decision = rule(history(*values))
    assert decision.reason
    if decision.reached:
        assert decision.stop
        assert len(values) >= floor - 1e-6
        assert values[-in_a_row:] == [GOOD] * in_a_row
    elif decision.stop:
        assert len(values) >= floor + length - 1e-6
    else:
        assert len(values) < floor + length


@pytest.mark.parametrize(("floor", "cap"), [(-1, 5), (6, 5), (0, 0), (math.nan, 5), (1, math.nan)])
def test_senseless_times_are_refused(floor: float, cap: float) -> None:
    with pytest.raises(UsageError, match="0 <= floor <= cap, cap above 0"):
        QualityRule(floor, cap)


@pytest.mark.parametrize("in_a_row", [0, -1])
def test_at_least_one_step_has_to_pass(in_a_row: int) -> None:
    with pytest.raises(UsageError, match="at least one"):
        QualityRule(in_a_row=in_a_row)


# A fixed time


def test_a_fixed_time_ends_whatever_the_quality() -> None:
    rule = FixedRule(3)
    assert rule(history(GOOD, GOOD)) == Decision(False, "a fixed time goes on")
    for value in (GOOD, BAD, UNKNOWN):
        assert rule(history(value, value, value)) == Decision(True, "the fixed time is over", reached=False)
    assert rule([verdict(3)]).stop


@pytest.mark.parametrize("seconds", [0, -1, math.nan])
def test_a_fixed_time_is_positive(seconds: float) -> None:
    with pytest.raises(UsageError, match="cap above 0"):
        FixedRule(seconds)
