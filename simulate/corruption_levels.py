"""The corruptions of the studies: ten kinds, each mild, medium and severe, as events of a scan of a few seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kspace.errors import UsageError
from simulate.events import (
    BreathHold,
    BreathHoldFails,
    BulkRotation,
    BulkShift,
    DroppedSpokes,
    EcgJitter,
    EctopicBeat,
    Event,
    FalseTrigger,
    MissedTrigger,
    Spike,
)

KINDS = ("swapped", "mistrigger", "ectopic", "jitter", "drift", "fails", "shift", "rotate", "spike", "dropped")
SEVERITIES = ("mild", "medium", "severe")

SWAPPED = (0.05, 0.15, 0.30)
"""Share of spokes sorted into another frame at random."""
JITTER_S = (0.03, 0.06, 0.09)
DRIFT_MM_S = (0.5, 0.8, 1.5)
FAILS_MM = (5.0, 10.0, 20.0)
SHIFT_MM = (2.0, 5.0, 10.0)
TURN_DEGREES = (2.0, 5.0, 10.0)
SPIKES = ((0.01, 0.1), (0.03, 0.5), (0.10, 2.0))
"""Share of spokes, and size over the largest sample."""
DROPPED_S = (0.05, 0.2, 0.6)


@dataclass(frozen=True)
class Corruption:
    """One kind at one severity.

    Parameters
    ----------
    kind, severity
        Of :data:`KINDS` and :data:`SEVERITIES`.
    seed
        Of when and where.
    """

    kind: str
    severity: str
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.severity not in SEVERITIES:
            raise UsageError(f"{self.severity} {self.kind}", expected=f"{SEVERITIES} and one of {', '.join(KINDS)}")

    @property
    def level(self) -> int:
        """0, 1 or 2."""
        return SEVERITIES.index(self.severity)

    def events(self, seconds: float, rr_s: float, tr_s: float, *, readout_share: float = 0.25) -> tuple[Event, ...]:
        """Return what happens in a scan of so many seconds; nothing for ``swapped``, which is :meth:`swap`.

        Moves and failures begin between a half and three quarters of the scan, so that most of it shows the first
        state.

        Parameters
        ----------
        seconds, rr_s, tr_s
            Of the scan, a beat and a spoke.
        readout_share
            Spikes lie within this share of the readout from its centre.
        """
        rng = np.random.default_rng([self.seed, KINDS.index(self.kind), self.level])
        level = self.level
        late = float(rng.uniform(0.5, 0.75) * seconds)
        angle = float(rng.uniform(0, 2 * math.pi))
        if self.kind == "mistrigger":
            at = [(float(rng.uniform(0.15, 0.45)) + n) * rr_s for n in (1, 3)]
            false: list[Event] = [FalseTrigger(min(at[n], 0.9 * seconds)) for n in range(1 if level == 0 else 2)]
            missed: list[Event] = [MissedTrigger(2.0 * rr_s + 0.3 * rr_s)] if level == 2 else []
            return (*false, *missed)
        if self.kind == "ectopic":
            early = (0.75, 0.6, 0.5)[level]
            first = float(rng.uniform(0.25, 0.5) * seconds)
            beats = [first] if level < 2 else [first, min(first + 2.5 * rr_s, 0.9 * seconds)]
            return tuple(EctopicBeat(at, prematurity=early) for at in beats)
        if self.kind == "jitter":
            return (EcgJitter(sd_s=JITTER_S[level], seed=self.seed),)
        if self.kind == "drift":
            return (BreathHold(drift_mm_s=-DRIFT_MM_S[level]),)
        if self.kind == "fails":
            return BreathHold(), BreathHoldFails(late, amplitude_mm=FAILS_MM[level], seed=self.seed)
        if self.kind == "shift":
            x, y = SHIFT_MM[level] * math.cos(angle), SHIFT_MM[level] * math.sin(angle)
            return (BulkShift(late, (x, y, 0.0)),)
        if self.kind == "rotate":
            return (BulkRotation(late, math.radians(TURN_DEGREES[level]) * (1 if angle < math.pi else -1)),)
        if self.kind == "spike":
            share, size = SPIKES[level]
            spokes = rng.choice(int(seconds / tr_s), max(1, round(share * seconds / tr_s)), replace=False)
            return tuple(
                Spike(float(n) * tr_s, size, float(rng.uniform(-readout_share, readout_share))) for n in sorted(spokes)
            )
        if self.kind == "dropped":
            start = float(rng.uniform(0.2, 0.7) * seconds)
            return (DroppedSpokes(start, start + DROPPED_S[level]),)
        return ()

    def swap(self, frame: Tensor, n_frames: int) -> Tensor:
        """Return the (spoke,) frames with some exchanged for another at random where the kind is ``swapped``."""
        if self.kind != "swapped" or n_frames < 2:
            return frame
        generator = torch.Generator().manual_seed(self.seed * 31 + self.level)
        chosen = torch.rand(len(frame), generator=generator) < SWAPPED[self.level]
        by = torch.randint(1, n_frames, frame.shape, generator=generator)
        return torch.where(chosen, (frame + by) % n_frames, frame)


def every_corruption(seed: int, kinds: Sequence[str] = KINDS) -> list[Corruption]:
    """Return all kinds at all severities."""
    return [Corruption(kind, severity, seed) for kind in kinds for severity in SEVERITIES]
