"""A Gaussian model of how k-space lines change over the beat, and what it says of each line: without any training.

In a band of k-space the samples of all phases are taken for complex Gaussian, with one covariance over time, learnt
from the scan itself (as in k-t PCA; Pedersen et al., MRM 62:706, 2009). From the other phases of a line the model
foretells each phase, with a variance. A line that was measured at phase g fits what is foretold for g and not for its
own, and the ratio of the two likelihoods, in units of the noise, is how suspect it is. Where lines carry noise alone
all phases fit alike and the ratio says so. The same model fills in what is distrusted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from kspace.errors import ShapeError, UsageError

_LINE_EDGES = (2, 4, 8, 12, 18, 26, 36, 48)
_RANK_EDGES = (4, 8, 16, 32, 64)  # of a line's samples, strongest first
_SHRINKAGE = 50.0  # samples that the covariance of all bands together counts for in each
_COOLING = 0.3  # of the excess of the noise, from one round to the next
_BETTER = 0.4  # quantile of lines that are surely right
_TEMPER = 0.05  # of log ratios: what is foretold from wrong lines is wrong itself, and errs for a whole line together
_MOST = 0.6  # of lines that can be wrong
_TELLING = 20.0  # nats that phases of a line have to differ by to say something of the scan's share of wrong lines


@dataclass(frozen=True)
class LineModel:
    """What was learnt of a scan.

    Parameters
    ----------
    log_ratio
        (frame, line) float32, log likelihood of the line at another phase, any one, over that at its own.
    information
        (frame, line) float32, by how many nats other phases differ from what is foretold for the line on average.
    wrong
        (frame, line) float32, the probability that follows with the scan's own share of wrong lines.
    share
        Of wrong lines in the scan, among those that can tell.
    foretold
        (frame, line, readout) complex, the mean of the model given what is trusted.
    """

    log_ratio: Tensor
    information: Tensor
    wrong: Tensor
    share: float
    foretold: Tensor


def fit_lines(kspace: Tensor, noise_std: float, *, iterations: int = 10, wrong: Tensor | None = None) -> LineModel:
    """Fit the model to a scan by expectation and maximisation.

    Parameters
    ----------
    kspace
        (frame, line, readout) complex, centred in line and readout.
    noise_std
        Of a complex sample.
    iterations
        Rounds: what is foretold, which lines fit, what the covariance is.
    wrong
        (frame, line) probabilities, from elsewhere, that are kept; None learns them.

    Raises
    ------
    ShapeError
        When k-space is not (frame, line, readout) with three frames or more, or the probabilities are not of its lines.
    UsageError
        When the noise is not positive or there is no round.
    """
    if kspace.ndim != 3 or not kspace.is_complex() or len(kspace) < 3:
        raise ShapeError("k-space", kspace, "(frame, line, readout), complex, of 3 frames or more")
    if wrong is not None and wrong.shape != kspace.shape[:2]:
        raise ShapeError("the probabilities", wrong, f"(frame, line) = {tuple(kspace.shape[:2])}")
    if not noise_std > 0:
        raise UsageError(f"noise of {noise_std}", expected="a positive standard deviation")
    if iterations < 1:
        raise UsageError(f"{iterations} iterations", expected="1 or more")
    relative = (kspace / noise_std).to(torch.complex128)
    fit = _Fit(relative if wrong is None else without(relative, wrong.double()), wrong)
    for _ in range(iterations):
        fit.foretell()
        if wrong is None:
            fit.judge()
        fit.learn()
    fit.noise = torch.ones_like(fit.noise)
    fit.foretell()
    if wrong is None:
        fit.judge()
    else:
        fit.compare()
    foretold = (fit.whole() * noise_std).to(kspace.dtype)
    return LineModel(fit.log_ratio.float(), fit.information.float(), (1 - fit.trust).float(), fit.share, foretold)


def without(kspace: Tensor, wrong: Tensor) -> Tensor:
    """Return (frame, line, readout) with distrusted lines replaced, by degrees, by their average over trusted frames.

    A line that no frame can be trusted with is averaged over all of them.
    """
    trust = (1 - wrong).clamp_min(1e-6)[..., None]
    average = (trust * kspace).sum(0) / trust.sum(0)
    return torch.where(wrong[..., None] > 0, trust * kspace + (1 - trust) * average, kspace)


class _Fit:
    """Samples in units of the noise, the strongest of each line first, in parts (line, sample, frame).

    Samples that change alike share a covariance over time: those of a part in a band of lines.
    """

    def __init__(self, kspace: Tensor, wrong: Tensor | None) -> None:
        self.n_frames, self.n_lines, self.n_readout = kspace.shape
        self.line_band = _bands(self.n_lines, _LINE_EDGES).to(kspace.device)
        by_line = kspace.permute(1, 2, 0)
        strength = (by_line - by_line.mean(-1, keepdim=True)).abs().square().mean(-1)
        strength = avg_pool2d(strength[None], 3, 1, 1, count_include_pad=False)[0]
        self.order = strength.argsort(1, descending=True)[..., None].expand(by_line.shape)
        edges = [0, *(edge for edge in _RANK_EDGES if edge < self.n_readout), self.n_readout]
        ranked = by_line.gather(1, self.order)
        self.samples = [ranked[:, start:stop].contiguous() for start, stop in pairwise(edges)]
        self.share = 0.2
        start = torch.full((self.n_frames, self.n_lines), 1 - self.share, dtype=torch.float64, device=kspace.device)
        self.trust = start if wrong is None else 1 - wrong.to(start)
        if wrong is not None:
            self.share = float(wrong.mean())
        self.log_ratio = self.information = torch.zeros_like(self.trust)
        self.means = self.samples
        nothing = torch.zeros(self.n_lines, self.n_frames, self.n_frames, dtype=kspace.dtype, device=kspace.device)
        self.spread = [nothing] * len(self.samples)
        self.learn(first=True)

    def whole(self) -> Tensor:
        """Return the means as (frame, line, readout)."""
        ranked = torch.cat(self.means, 1)
        return torch.empty_like(ranked).scatter_(1, self.order, ranked).permute(2, 0, 1)

    def learn(self, *, first: bool = False) -> None:
        """Set the covariance over time of each class from what is known of its samples."""
        n, n_bands = self.n_frames, int(self.line_band.max()) + 1
        moments, counts = [], []
        for mean, spread in zip(self.means, self.spread, strict=True):
            outer = mean.mT @ mean.conj() + mean.shape[1] * spread
            moments.append(outer.new_zeros(n_bands, n, n).index_add_(0, self.line_band, outer))
            counts.append(mean.shape[1] * torch.bincount(self.line_band, minlength=n_bands))
        moment, count = torch.stack(moments), torch.stack(counts)[..., None, None]  # part, band, frame, frame
        power = moment.diagonal(dim1=-2, dim2=-1).real.sum(-1).clamp_min(1e-6)[..., None, None]
        shape = (moment / power).mean((0, 1))
        values, vectors = torch.linalg.eigh((moment + _SHRINKAGE * power / count * shape) / (count + _SHRINKAGE))
        if first:
            # Wrong lines, like noise, are spread over all directions: what the weaker half of them holds is taken off,
            # and counts as noise for a while.
            self.noise = values[..., : n // 2].mean(-1).clamp_min(1.0)
            values = values - self.noise[..., None]
        else:
            self.noise = 1 + (self.noise - 1) * _COOLING
        self.covariance = (vectors * values.clamp_min(1e-4)[..., None, :]) @ vectors.mH

    def foretell(self) -> None:
        """Set posterior covariance and mean of every sample over time, given trusted samples."""
        identity = torch.eye(self.n_frames, dtype=self.covariance.dtype, device=self.covariance.device)
        self.means, self.spread = [], []
        for number, samples in enumerate(self.samples):
            prior = self.covariance[number, self.line_band]
            precision = self._precision(number)
            # (C^-1 + D)^-1 = C - C S (1 + S C S)^-1 S C with S = D^(1/2), which inverts nothing small.
            root = precision.sqrt()[:, :, None]
            posterior = prior - (prior * root.mT) @ torch.linalg.solve(identity + root * prior * root.mT, root * prior)
            posterior = 0.5 * (posterior + posterior.mH)
            self.spread.append(posterior)
            self.means.append((samples * precision[:, None]) @ posterior.mT)

    def compare(self) -> None:
        """Set how well each line fits its own phase and any other one, as the other lines foretell them."""
        fit = self.trust.new_zeros(self.n_lines, self.n_frames, self.n_frames)  # line, frame, phase it is compared with
        gap = torch.zeros_like(fit)
        for number, (samples, mean, spread) in enumerate(zip(self.samples, self.means, self.spread, strict=True)):
            d = self._precision(number)
            diagonal = spread.diagonal(dim1=-2, dim2=-1).real
            left = (1 - d * diagonal).clamp_min(1e-6)
            # Without the line's own sample f: mean_g + P_gf d_f (mean_f - y_f) / (1 - d_f P_ff), and likewise P.
            step = spread.mT * (d / left)[..., None]  # line, f, g
            noise = self.noise[number, self.line_band][:, None]
            variance = noise + diagonal + diagonal.square() * d / left  # without the line itself
            own = mean - samples
            square = _distances(samples, mean, step, own)
            itself = square.diagonal(dim1=-2, dim2=-1)
            variance = (variance * self._excess(itself / (variance * samples.shape[1]))).maximum(noise)[..., None]
            fit -= square / variance
            foretold = mean + own * step.diagonal(dim1=-2, dim2=-1)[:, None]
            gap += _distances(foretold, mean, step, own) / variance
        chosen = fit.diagonal(dim1=-2, dim2=-1)
        elsewhere = fit.masked_fill(torch.eye(self.n_frames, dtype=torch.bool, device=fit.device), -torch.inf)
        self.log_ratio = (torch.logsumexp(elsewhere, -1) - math.log(self.n_frames - 1) - chosen).T
        self.information = gap.sum(-1).T / (self.n_frames - 1)

    def judge(self) -> None:
        """Set the share of wrong lines, from lines that can tell, and trust in each line."""
        self.compare()
        telling = self.information > _TELLING
        of_them = self.log_ratio[telling]
        self.share = min(float((of_them > 0).double().mean()) if of_them.numel() else 0.0, _MOST)
        self.trust = 1 - (_TEMPER * self.log_ratio + math.log(max(self.share, 1e-6) / (1 - self.share))).sigmoid()

    def _excess(self, missed: Tensor) -> Tensor:
        """Return (line, 1), by how much lines miss what is foretold for them against what the model expects.

        It is taken from (line, frame) of a band, from the better part, of which most are right.
        """
        bands = range(int(self.line_band.max()) + 1)
        of_band = torch.stack([torch.quantile(missed[self.line_band == band], _BETTER) for band in bands])
        excess: Tensor = of_band[self.line_band][:, None]
        return excess

    def _precision(self, number: int) -> Tensor:
        """Return the (line, frame) precisions of the samples of a band of readout."""
        precision: Tensor = self.trust.T / self.noise[number, self.line_band][:, None]
        return precision


def _distances(a: Tensor, mean: Tensor, step: Tensor, own: Tensor) -> Tensor:
    """Return (line, f, g) sums over samples of |a_f - mean_g - step_fg own_f|^2, by matrix products.

    ``a``, ``mean`` and ``own`` are (line, sample, frame), ``step`` is (line, f, g).
    """
    aa, oo, mm = (v.abs().square().sum(1) for v in (a, own, mean))
    across = (a.mH @ mean).conj()  # a_f conj(mean_g)
    along = (own.mH @ mean).conj()  # own_f conj(mean_g)
    itself = (a * own.conj()).sum(1)[..., None]  # a_f conj(own_f)
    cross = across + step.conj() * itself - step * along
    square: Tensor = aa[..., None] + mm[:, None, :] + step.abs().square() * oo[..., None] - 2 * cross.real
    return square


def _bands(n: int, edges: tuple[int, ...]) -> Tensor:
    """Return the band of each of n centred positions, counted from the centre without gaps."""
    away = (torch.arange(n) - n // 2).abs()
    band = torch.bucketize(away, torch.tensor(edges), right=True)
    counted: Tensor = torch.unique(band, return_inverse=True)[1]
    return counted
