"""Rules that end the scan of a slice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kspace.errors import UsageError
from kspace.quality.judge import Decision, Verdict

_SLACK_S = 1e-6


@dataclass(frozen=True)
class QualityRule:
    """Stop when all scores have been good enough several times in a row, between a floor and a cap.

    Parameters
    ----------
    min_seconds
        Never stop earlier.
    max_seconds
        Never go on longer.
    in_a_row
        How many successive steps must pass: one alone may be luck.
    """

    min_seconds: float = 2.0
    max_seconds: float = 12.0
    in_a_row: int = 2

    def __post_init__(self) -> None:
        _check(self.min_seconds, self.max_seconds)
        if self.in_a_row < 1:
            raise UsageError(f"{self.in_a_row} steps in a row", expected="at least one")

    def __call__(self, history: Sequence[Verdict]) -> Decision:
        """Decide after a step."""
        now = history[-1]
        recent = history[-self.in_a_row :]
        good = len(recent) == self.in_a_row and all(v.scores and not v.held_back_by for v in recent)
        if good and now.seconds >= self.min_seconds - _SLACK_S:
            times = "at this step" if self.in_a_row == 1 else f"{self.in_a_row} steps in a row"
            return Decision(True, f"good enough {times}", reached=True)
        if now.seconds >= self.max_seconds - _SLACK_S:
            return Decision(True, f"time is up; {_held_back(now)}")
        if now.held_back_by or not now.scores:
            return Decision(False, _held_back(now))
        if now.seconds < self.min_seconds - _SLACK_S:
            return Decision(False, f"good, but before the floor of {self.min_seconds:g} s")
        return Decision(False, "good; waiting for the next step to confirm it")


@dataclass(frozen=True)
class FixedRule:
    """Stop after a fixed time, whatever the quality: the scan of today."""

    max_seconds: float = 12.0

    def __post_init__(self) -> None:
        _check(0.0, self.max_seconds)

    def __call__(self, history: Sequence[Verdict]) -> Decision:
        """Decide after a step."""
        done = history[-1].seconds >= self.max_seconds - _SLACK_S
        return Decision(done, "the fixed time is over" if done else "a fixed time goes on", reached=False)


def _check(min_seconds: float, max_seconds: float) -> None:
    if not 0 <= min_seconds <= max_seconds or max_seconds <= 0:
        raise UsageError(
            f"a floor of {min_seconds:g} s and a cap of {max_seconds:g} s", expected="0 <= floor <= cap, cap above 0"
        )


def _held_back(verdict: Verdict) -> str:
    held = verdict.held_back_by
    if not verdict.scores:
        return "nothing was judged"
    if not held:
        return "the last step was good, but not yet confirmed"
    return "held back by " + " and ".join(
        f"{score.name.replace('_', ' ')} {score.value:.3g} > {score.limit:.3g}"
        if score.value == score.value
        else f"{score.name.replace('_', ' ')} (not known yet)"
        for score in held
    )
