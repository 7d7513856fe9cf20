"""What the acquisition loop scans: a stack of slices that give spokes as time goes by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from kspace.errors import InputError
from kspace.scan import Geometry, RadialScan


class SliceStream(Protocol):
    """One slice under the scanner. Time starts at 0 with its first spoke."""

    def acquire(self, seconds: float) -> RadialScan:
        """Measure for so many seconds more.

        Returns
        -------
        The new spokes, with the R waves up to now. Empty when the source has no more.
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
        self._now += seconds
        # Half a microsecond: the instants of a file have been rounded.
        last = int(torch.searchsorted(self._scan.time_s, torch.tensor(self._now - 5e-7, dtype=torch.float64)))
        batch = self._scan.select(slice(self._given, last))
        self._given = last
        return replace(batch, ecg_s=self._scan.ecg_s[self._scan.ecg_s <= self._now])

    def truth(self, n_frames: int) -> Tensor | None:
        return None
