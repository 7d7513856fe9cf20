"""Slow drift of phase and gain, and the phase that eddy currents give a spoke by its direction.

Each spoke's centre is compared with what the others say it should be (:class:`kspace.delays.CentralFit`): one complex
factor a spoke, common to all coils. A beating heart and breathing change the centre as well; so only what they cannot
do is taken out: changes in time slower than many beats, and a phase a cos(theta) + b sin(theta) of the spoke's angle.
Golden angles mix directions within a beat, which is why the heart hardly shows in the latter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kspace.central_fit import FEWEST_SPOKES, CentralFit
from kspace.coils import whiten
from kspace.delays import NO_DELAYS, GradientDelays
from kspace.errors import ShapeError
from kspace.scan import RadialScan

_ROUNDS = 4
_CERTAIN = 3.0  # standard errors


@dataclass(frozen=True)
class Drift:
    """By what the samples of each spoke were multiplied.

    Parameters
    ----------
    phase
        (spoke,) float64 radians.
    log_gain
        (spoke,) float64, the natural logarithm of the gain.
    cosine, sine
        Radians: the part of the phase that goes with the cosine and sine of the spoke's angle.
    """

    phase: Tensor
    log_gain: Tensor
    cosine: float
    sine: float

    def correct(self, scan: RadialScan) -> RadialScan:
        """Divide the drift out of a scan's samples.

        Raises
        ------
        ShapeError
            When the scan has another number of spokes.
        """
        if len(self.phase) != scan.n_spokes:
            raise ShapeError("the scan's spokes", scan.samples, f"({len(self.phase)}, coil, readout)")
        factor = torch.polar(torch.exp(-self.log_gain), -self.phase).to(scan.samples.dtype)
        return replace(scan, samples=scan.samples * factor[:, None, None])

    @property
    def found(self) -> bool:
        """Whether there is anything to take out."""
        return bool(self.phase.any() or self.log_gain.any())

    def record(self) -> dict[str, float]:
        """Return it as it goes into JSON: root mean squares over spokes, phases in radians, the gain as a share."""
        return {
            "phase_rad": float(self.phase.square().mean().sqrt()),
            "gain": float(self.log_gain.square().mean().sqrt()),
            "cosine_rad": self.cosine,
            "sine_rad": self.sine,
        }


def estimate_drift(
    scan: RadialScan, *, delays: GradientDelays = NO_DELAYS, radius: float = 4.0, shortest_s: float = 6.0
) -> Drift:
    """Estimate phase and gain drift.

    Parameters
    ----------
    scan
        Whitened spokes, in the order of their acquisition. Where frames or slices are fitted one by one, a drift from
        one to the next is the image's and stays.
    delays
        Gradient delays that the positions do not yet contain.
    radius
        Cycles per field of view up to which samples count.
    shortest_s
        Shortest period of what counts as slow: several beats.

    Returns
    -------
    The drift, of which each part is zero where it is below three standard errors. Drift has no absolute phase and
    gain: both average to nothing.

    Raises
    ------
    InputError
        When there are fewer than 8 spokes or no signal.
    """
    fit = CentralFit(scan, radius=radius)
    at = torch.tensor([delays.x, delays.y, delays.xy], dtype=torch.float64, device=scan.samples.device)
    seen = torch.sort(torch.cat(fit.groups)).values
    slow = _slow(scan.time_s[seen], shortest_s)
    angle = torch.stack((fit.direction[seen, 1], fit.direction[seen, 0]), dim=1)
    measured = fit.samples.clone()
    total = torch.zeros(len(seen), dtype=torch.complex128, device=scan.samples.device)
    # The images have taken up a part of the drift; without it they take up less of what is left.
    for _ in range(_ROUNDS):
        fit.samples[seen] = measured[seen] / torch.exp(total)[:, None, None]
        model = fit.predict(at)[seen]
        strength = (model.abs() ** 2).sum((1, 2))
        factor = (model.conj() * measured[seen]).sum((1, 2)) / strength.clamp_min(1e-300)
        factor = torch.where(factor.abs() > 0, factor, torch.ones_like(factor))
        gain = _explained(factor.abs().log(), slow, scan.time_s[seen])
        # From the mean phase on, so that no spoke is a turn away.
        turned = (factor * torch.exp(-1j * factor.sum().angle())).angle()
        harmonic, weights = _harmonic(turned, angle)
        phase = harmonic + _explained(turned - harmonic, slow, scan.time_s[seen])
        total = torch.complex(gain - gain.mean(), phase - phase.mean())
    everywhere = torch.zeros(scan.n_spokes, dtype=torch.complex128, device=scan.samples.device)
    everywhere[seen] = total
    return Drift(everywhere.imag, everywhere.real, float(weights[0]), float(weights[1]))


def drift_of_slices(scan: RadialScan) -> tuple[RadialScan, dict[int, Drift]]:
    """Take the drift out of every slice, each by itself: what changes from one slice to the next is the body's.

    Parameters
    ----------
    scan
        Spokes as they were received, of one or more slices, at positions that contain their gradient delays: a large
        delay can pass for a phase that goes with the direction.

    Returns
    -------
    The same spokes without it, and what was found in each slice. A slice of too few spokes has none.
    """
    white, found = whiten(scan), {}
    factor = torch.ones(scan.n_spokes, dtype=torch.complex128, device=scan.samples.device)
    for index in (int(i) for i in torch.unique(scan.slices)):
        part = white.select_slice(index)
        if int((part.samples.abs() > 0).flatten(1).any(1).sum()) < FEWEST_SPOKES:
            continue
        drift = estimate_drift(part)
        found[index] = drift
        factor[scan.slices == index] = torch.polar(torch.exp(-drift.log_gain), -drift.phase)
    return replace(scan, samples=scan.samples * factor.to(scan.samples.dtype)[:, None, None]), found


def describe_drift(found: Mapping[int, Drift]) -> str:
    """Say in a line what was found in the slices: the largest of each."""
    some = [drift.record() for drift in found.values() if drift.found]
    if not some:
        return "drift of phase and gain: none that is certain"
    phase, gain = (max(record[name] for record in some) for name in ("phase_rad", "gain"))
    return (
        f"drift taken out of {len(some)} of {len(found)} slices: of phase up to {phase:.3f} rad, of gain up to "
        f"{100 * gain:.1f} % (root mean squares over spokes)"
    )


def _slow(time_s: Tensor, shortest_s: float) -> Tensor:
    """Return (spoke, term) cosines in time of at least the shortest period, and a line where two periods fit in."""
    length = float(time_s[-1] - time_s[0])
    count = math.floor(2 * length / shortest_s)
    where = (time_s - time_s[0]) / max(length, 1e-12)
    waves = [torch.cos(math.pi * n * where) for n in range(1, count + 1)]
    if count >= 2:
        waves.append(where)
    return torch.stack(waves, dim=1) if waves else torch.zeros((len(time_s), 0), dtype=torch.float64)


def _explained(values: Tensor, basis: Tensor, time_s: Tensor) -> Tensor:
    """Return what the basis explains, zero where that is no more than the heart's own scatter would leave.

    The scatter is that of means over two seconds: beats follow each other, so that single spokes are not independent.
    """
    design = torch.cat((torch.ones_like(values)[:, None], basis.to(values)), dim=1)
    if design.shape[1] == 1:
        return torch.zeros_like(values)
    weights = torch.linalg.lstsq(design, values[:, None]).solution
    explained = (design @ weights)[:, 0]
    rest = values - explained
    block = torch.floor((time_s - time_s[0]) / 2.0).long()
    counts = torch.bincount(block).clamp_min(1).to(rest)
    means = torch.bincount(block, weights=rest) / counts
    error = float((means**2).mean()) * (design.shape[1] - 1) / max(len(means), 1)
    change = explained - explained.mean()
    return change if float((change**2).mean()) > _CERTAIN**2 * error else torch.zeros_like(values)


def _harmonic(values: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return the part of (spoke,) phases that goes with (cos, sin) of the angle, and its two weights."""
    design = torch.cat((torch.ones_like(values)[:, None], angle), dim=1)
    weights = torch.linalg.lstsq(design, values[:, None]).solution[:, 0]
    rest = values - design @ weights
    covariance = torch.linalg.pinv(design.T @ design, hermitian=True) * float((rest**2).mean())
    size = float(weights[1:] @ torch.linalg.pinv(covariance[1:, 1:], hermitian=True) @ weights[1:])
    kept = weights[1:] if size > 11.83 else torch.zeros_like(weights[1:])  # three standard deviations of two weights
    return angle @ kept, kept
