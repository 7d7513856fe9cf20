"""Sums of one slice that keep up with its ECG: spokes are put where they belong as beats become known."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kspace.equations import NormalEquations
from kspace.gating import assign_frames
from kspace.recon.method import Method
from kspace.scan import RadialScan, concatenate

_SAME_TRUST = 0.1  # less of a change is not worth moving a spoke


class GatedEquations:
    """Normal equations of one slice that keep up with its ECG.

    Before the first R wave and after the last one, spokes are gated with the usual RR interval. As more beats become
    known, those of them that turn out to belong to another phase are taken out of the sums and put where they belong.
    """

    def __init__(self, n_frames: int, method: Method) -> None:
        self.n_frames = n_frames
        self._method = method
        self._open: tuple[RadialScan, Tensor, Tensor] | None = None
        self._open_numbers = torch.zeros(0, dtype=torch.int64)
        self._count = 0
        self.equations: NormalEquations | None = None
        self.ecg_s = torch.zeros(0, dtype=torch.float64)

    def foresee(self, batch: RadialScan) -> Tensor:
        """Return the (spoke,) frames to which gating assigns a batch by what is known now."""
        return assign_frames(batch, self.n_frames)

    def add(self, batch: RadialScan, frame: Tensor, trust: Tensor | None = None) -> NormalEquations:
        """Add whitened spokes that were assigned to frames by :meth:`foresee`; return the sums.

        Parameters
        ----------
        batch, frame
            The spokes, and the (spoke,) frame of each.
        trust
            (spoke,) in [0, 1] of all spokes so far, those of the batch last; ones by default. Of the earlier ones, that
            of spokes counts which were gated before their beat was known.
        """
        if self.equations is None:
            self.equations = NormalEquations(
                batch.matrix,
                self.n_frames,
                batch.n_coils,
                density=self._method.density,
                device=batch.samples.device,
            )
        count = self._count + batch.n_spokes
        trust_all = torch.ones(count) if trust is None else trust
        trust_new = trust_all[self._count :]
        numbers = torch.arange(self._count, count)
        batch_all, frame_all, kept = batch, frame, trust_new
        if self._open is not None:
            old, frame_old, trust_old = self._open
            known = replace(old, ecg_s=batch.ecg_s)
            frame_now = assign_frames(known, self.n_frames)
            trust_now = trust_all[self._open_numbers]
            moved = (frame_now != frame_old) | ((trust_now - trust_old).abs() > _SAME_TRUST)
            if bool(moved.any()):
                some = known.select(moved)
                self.equations.remove(some.samples, some.positions, frame_old[moved], trust_old[moved])
                self.equations.add(some.samples, some.positions, frame_now[moved], trust_now[moved])
            batch_all, frame_all = concatenate([known, batch]), torch.cat((frame_now, frame))
            kept = torch.cat((torch.where(moved, trust_now, trust_old), trust_new))
            numbers = torch.cat((self._open_numbers, numbers))
        self.equations.add(batch.samples, batch.positions, frame, trust_new)
        self._open, self._count, self.ecg_s = None, count, batch.ecg_s
        if batch.frame is None and batch.ecg_s.numel():
            open_ = (batch_all.time_s < batch.ecg_s[0]) | (batch_all.time_s >= batch.ecg_s[-1])
            if bool(open_.any()):
                self._open = batch_all.select(open_), frame_all[open_], kept[open_]
                self._open_numbers = numbers[open_]
        return self.equations
