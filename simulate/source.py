"""What the acquisition loop scans: a stack of slices that give spokes as time goes by."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from kspace.errors import InputError
from kspace.scan import Geometry, RadialScan

SLACK_S = 5e-7
"""Half a microsecond: the instants of a file have been rounded."""


class SliceStream(Protocol):
    """One slice under the scanner. Time starts at 0 with its first spoke."""

    def acquire(self, seconds: float) -> RadialScan:
        """Measure for so many seconds more; where no spoke falls into them, for a multiple that reaches the next one.

        Returns
        -------
        The new spokes, with the R waves up to now. Empty only when the source has no more.
        """
        ...

    def truth(self, n_frames: int) -> Tensor | None:
        """Return the (frame, y, x) magnitude that a perfect scan would show, or None where nobody knows it."""
        ...


class SpokeSource(Protocol):
    """A stack of slices to scan."""

    @property
    def description(self) -> str:
        """What is scanned, in words."""
        ...

    @property
    def synthetic(self) -> bool:
        """Whether the spokes are simulated and not measured."""
        ...

    @property
    def geometry(self) -> Geometry:
        """The reconstruction grid of the stack."""
        ...

    @property
    def rr_s(self) -> float:
        """Mean RR interval in seconds."""
        ...

    @property
    def n_frames(self) -> int | None:
        """Number of frames where the source fixes it; None where gating is free to choose."""
        ...

    def open_slice(self, index: int) -> SliceStream:
        """Start the scan of one slice."""
        ...


@dataclass(frozen=True)
class Replay:
    """Spokes that were measured before, given out again as time goes by.

    Parameters
    ----------
    scan
        All spokes of all slices.
    """

    scan: RadialScan

    synthetic: bool = False

    @property
    def description(self) -> str:
        """What is scanned, in words."""
        return self.scan.source or "measured spokes"

    @property
    def geometry(self) -> Geometry:
        """The reconstruction grid of the stack."""
        return self.scan.geometry

    @property
    def rr_s(self) -> float:
        """Mean RR interval in seconds; 1 where no ECG was recorded."""
        beats = self.scan.ecg_s.diff()
        return float(beats.median()) if beats.numel() else 1.0

    @property
    def n_frames(self) -> int | None:
        """Number of frames where the file fixes it."""
        return None if self.scan.frame is None else int(self.scan.frame.max()) + 1

    def open_slice(self, index: int) -> SliceStream:
        """Start the replay of one slice."""
        chosen = self.scan.select_slice(index)
        if chosen.n_spokes == 0:
            raise InputError(f"slice {index} has no spokes", expected="spokes in every slice that is to be scanned")
        return _ReplayedSlice(chosen)


class _ReplayedSlice:
    def __init__(self, scan: RadialScan) -> None:
        start = scan.time_s[0]
        self._scan = replace(scan, time_s=scan.time_s - start, ecg_s=scan.ecg_s - start)
        self._now = 0.0
        self._given = 0

    def acquire(self, seconds: float) -> RadialScan:
        self._now = next_stop(self._now, seconds, self._next_s())
        last = int(torch.searchsorted(self._scan.time_s, self._now - SLACK_S))
        batch = self._scan.select(slice(self._given, last))
        self._given = last
        # The first R wave is known from the start: without it, spokes before it could not be gated at all.
        ecg_s = self._scan.ecg_s
        return replace(batch, ecg_s=ecg_s[: max(1, int((ecg_s <= self._now).sum()))])

    def _next_s(self) -> float | None:
        return float(self._scan.time_s[self._given]) if self._given < self._scan.n_spokes else None

    def truth(self, n_frames: int) -> Tensor | None:
        return None


def next_stop(now_s: float, seconds: float, next_s: float | None) -> float:
    """Return when a step ends: after so many seconds, or a multiple of them that lies beyond the next spoke."""
    if not seconds > 0:
        raise InputError(f"cannot measure for {seconds} s", expected="a positive number of seconds")
    now_s += seconds
    while next_s is not None and next_s >= now_s - SLACK_S:
        now_s += seconds * (math.floor((next_s + SLACK_S - now_s) / seconds) + 1)
    return now_s
