"""The interface between reconstruction, judges and the rule that stops the scan.

After each step of a scan the loop gathers the :class:`Evidence`: what was measured, what was reconstructed, and how
well the previous reconstruction foresaw the newest spokes. Every :class:`Judge` turns it into :class:`Score` objects.
A :class:`StoppingRule` reads the history of scores of the slice and decides. A judge that needs a network, a
segmentation or a calibration is one more class with the same call; the loop does not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from kspace.scan import Geometry, RadialScan


@dataclass(frozen=True)
class Evidence:
    """All that may be known of a slice after a step of its scan. Nothing in it comes from the simulated truth.

    Parameters
    ----------
    seconds
        Scan time of this slice so far.
    newest
        The spokes of this step, whitened, not yet seen by ``previous``.
    newest_frame
        (spoke,) int64, the frame to which gating assigned each of them.
    predicted
        (spoke, coil, readout), what ``previous`` says that ``newest`` should have been; None at the first step.
    image
        (frame, y, x) complex, the reconstruction with the newest spokes in it.
    previous
        (frame, y, x) complex, the reconstruction of the step before; None at the first step.
    spokes_per_frame
        (frame,) number of spokes that each frame rests on by now.
    maps
        (coil, y, x) complex, coil sensitivities.
    noise_std
        Standard deviation of the complex noise of one whitened sample; None where it is not known.
    geometry
        The reconstruction grid of this slice.
    """

    seconds: float
    newest: RadialScan
    newest_frame: Tensor
    predicted: Tensor | None
    image: Tensor
    previous: Tensor | None
    spokes_per_frame: Tensor
    maps: Tensor
    noise_std: float | None
    geometry: Geometry


@dataclass(frozen=True)
class Score:
    """One number that a judge gives, and whether it is good enough.

    Parameters
    ----------
    name
        A short key, unique among the judges: a column of ``decisions.csv``.
    value
        The number; NaN where it cannot be told yet.
    limit
        The value at or below which it is good enough.
    label
        What it is, in words, for reports.
    """

    name: str
    value: float
    limit: float
    label: str

    @property
    def passed(self) -> bool:
        """Whether the value is good enough; a NaN never is."""
        return self.value <= self.limit


@runtime_checkable
class Judge(Protocol):
    """Anything that turns evidence into scores. It may keep state of its own; the loop makes one judge per slice."""

    def __call__(self, evidence: Evidence) -> Sequence[Score]:
        """Judge one step."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What was found after one step: the scores, and the scan time that they rest on."""

    seconds: float
    scores: tuple[Score, ...]

    @property
    def held_back_by(self) -> tuple[Score, ...]:
        """The scores that are not yet good enough."""
        return tuple(score for score in self.scores if not score.passed)


@dataclass(frozen=True)
class Decision:
    """Whether the slice is finished, and why, in words that a person at the console understands.

    Parameters
    ----------
    stop
        Whether the scan of this slice ends here.
    reason
        Why it ends, or what holds it back.
    reached
        Whether the slice ended because the quality was reached, and not because time was up.
    """

    stop: bool
    reason: str
    reached: bool = False


class StoppingRule(Protocol):
    """Anything that decides on the history of a slice's verdicts, oldest first; the last one is of this moment."""

    def __call__(self, history: Sequence[Verdict]) -> Decision:
        """Decide after a step."""
        ...
