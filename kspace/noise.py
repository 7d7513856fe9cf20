"""The noise level, where the file does not say it."""

from __future__ import annotations

import math

import torch

from kspace.errors import InputError
from kspace.scan import RadialScan


def noise_std(scan: RadialScan, *, outer: float = 0.05) -> float:
    """Return the standard deviation of the complex noise of one sample.

    A whitened scan knows it: one. Otherwise it is read off the outermost samples of the spokes, where a heart leaves
    little but noise: the median magnitude of a circular Gaussian is sqrt(ln 2) standard deviations. What signal is left
    there makes it an upper estimate.

    Parameters
    ----------
    scan
        The spokes; with an identity covariance where they are whitened.
    outer
        Share of the readout, half at either end, that is taken for noise.
    """
    if scan.noise_covariance is not None:
        return math.sqrt(float(scan.noise_covariance.diagonal().real.mean()))
    if scan.n_spokes == 0:
        raise InputError("there are no spokes to read the noise from", expected="at least one")
    n = max(1, round(scan.n_readout * outer / 2))
    ends = torch.cat((scan.samples[..., :n], scan.samples[..., -n:]), dim=-1)
    return float(ends.abs().median()) / math.sqrt(math.log(2))
