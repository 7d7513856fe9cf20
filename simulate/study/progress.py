"""What a person sees while a study runs, on stderr: how many patients are safe, and when it may end."""

from __future__ import annotations

import sys
import time
from collections import deque
from typing import Any, Self

from simulate.study.store import Finished

_RECENT = 12  # patients whose pace is looked at: the machine may be shared
_ENOUGH = 3  # before which nothing is foretold
_EVERY_S = 15.0  # between two lines where there is no terminal


class StudyProgress:
    """Counts patients and tells the time that is left.

    Parameters
    ----------
    known
        Patients that were there.
    total
        Patients that are wanted.
    """

    def __init__(self, known: int, total: int) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self.done, self.total = known, total
        self._moments: deque[float] = deque([time.monotonic()], maxlen=_RECENT + 1)
        self._bar: Any = None
        self._task: Any = None
        self._said = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            self._bar = Progress(
                TextColumn("patients"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
                console=self._console,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("getting the first ones ready", total=self.total, completed=self.done)
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def patient(self, finished: Finished) -> None:
        """Tell that a patient is safe."""
        self.done += 1
        now = time.monotonic()
        self._moments.append(now)
        words = f"{finished.core_s:.0f} s of a core each, {self.left()}"
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, description=words)
        elif now - self._said >= _EVERY_S or self.done == self.total:
            self._said = now
            print(f"{self.done} of {self.total} patients; {words}", file=sys.stderr, flush=True)

    def left(self) -> str:
        """Return the time that is left in words, from the pace of the last patients and how much it varied."""
        gaps = [later - earlier for earlier, later in zip(self._moments, list(self._moments)[1:], strict=False)]
        remaining = self.total - self.done
        if remaining <= 0:
            return "none left"
        if len(gaps) < _ENOUGH:
            return "too early to say how long"
        mean = sum(gaps) / len(gaps)
        spread = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / len(gaps) ** 0.5
        low, high = (remaining * max(0.0, mean + sign * 1.64 * spread) for sign in (-1, 1))
        return f"{in_words(low)} to {in_words(high)} left at the pace of the last {len(gaps)}"


def in_words(seconds: float) -> str:
    """Return a duration as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
