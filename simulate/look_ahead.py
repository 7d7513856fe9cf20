"""Spokes computed a while before they are asked for: one large transform is cheaper than several small ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from kspace.scan import RadialScan
from simulate.source import SLACK_S, next_stop

CHUNK_S = 2.0
"""Spokes are computed at least so many seconds at a time."""

_NOISE_SPOKES = 256  # drawn at a time, to spare memory


class LookAhead:
    """A stream of spokes, one every ``tr_s`` from 0 on.

    Parameters
    ----------
    tr_s
        Repetition time in seconds.
    compute
        Given the numbers of the first spoke and the one after the last, returns these spokes.
    """

    def __init__(self, tr_s: float, compute: Callable[[int, int], RadialScan]) -> None:
        self._tr_s, self._compute = tr_s, compute
        self._given = 0
        self._ahead: RadialScan | None = None
        self.now_s = 0.0

    def take(self, seconds: float) -> RadialScan:
        """Let so many seconds pass and return their spokes; see :meth:`simulate.source.SliceStream.acquire`."""
        self.now_s = next_stop(self.now_s, seconds, self._given * self._tr_s)
        last = math.ceil((self.now_s - SLACK_S) / self._tr_s)
        ahead = 0 if self._ahead is None else self._ahead.n_spokes
        if ahead < last - self._given:
            upto = max(last, self._given + round(CHUNK_S / self._tr_s))
            scan = self._compute(self._given + ahead, upto)
            self._ahead = scan if self._ahead is None or ahead == 0 else _join(self._ahead, scan)
        assert self._ahead is not None
        count = last - self._given
        batch = self._ahead.select(slice(0, count))
        self._ahead = self._ahead.select(slice(count, None))
        self._given = last
        return batch


def _join(first: RadialScan, second: RadialScan) -> RadialScan:
    return replace(
        second,
        samples=torch.cat((first.samples, second.samples)),
        positions=torch.cat((first.positions, second.positions)),
        time_s=torch.cat((first.time_s, second.time_s)),
        slice_index=torch.cat((first.slices, second.slices)),
    )


def add_noise(samples: Tensor, covariance: Tensor, generator: torch.Generator) -> None:
    """Add Gaussian noise of a (coil, coil) covariance to (spoke, coil, readout) samples, in place.

    The same generator gives the same noise however the spokes are batched.
    """
    n_spokes, n_coils, n_readout = samples.shape
    # torch draws in blocks of 16 numbers: only whole ones make the noise independent of how the spokes are batched.
    padded = -(-n_readout // 8) * 8
    factor = torch.linalg.cholesky(covariance.to(torch.complex128)).to(samples.dtype)
    for first in range(0, n_spokes, _NOISE_SPOKES):
        part = samples[first : first + _NOISE_SPOKES]
        white = torch.randn((len(part), n_coils, padded), dtype=samples.dtype, generator=generator)
        part += (factor @ white[..., :n_readout]).to(samples.device)
