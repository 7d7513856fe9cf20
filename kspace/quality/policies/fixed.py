"""The scan of today: so many seconds, whatever they show."""

from __future__ import annotations

from dataclasses import dataclass

from kspace.errors import UsageError
from kspace.quality.policies.policy import Choice, stay
from kspace.quality.view import View

_SLACK_S = 1e-6


@dataclass(frozen=True)
class Fixed:
    """Every slice ends after the same time.

    Parameters
    ----------
    seconds
        Of each slice.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise UsageError(f"a fixed time of {self.seconds:g} s", expected="more than nothing")

    @property
    def name(self) -> str:
        """For tables."""
        return f"fixed {self.seconds:g} s"

    def __call__(self, view: View) -> Choice:
        """Decide."""
        short = (view.seconds < self.seconds - _SLACK_S) & ~view.at_cap
        return Choice(short, "a fixed time goes on") if short.any() else stay(view, "the fixed time is over")
