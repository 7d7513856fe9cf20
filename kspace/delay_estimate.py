"""Gradient delays found from the spokes themselves.

They are those under which the centres of all spokes agree best with some image: :class:`~kspace.central_fit.CentralFit`
finds it, and Gauss-Newton steps move the spokes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kspace.central_fit import Agreement, CentralFit, bounded
from kspace.delays import NO_DELAYS, GradientDelays
from kspace.errors import InputError
from kspace.scan import RadialScan

_LIKELY = 14.16  # chi squared of three parameters at three standard deviations (p = 0.0027)
_WORTH = 0.05  # samples
_WORTH_GAIN = 0.1  # 0.06 samples lower the error of foreseeing simulated spokes by 0.17; what is no delay, by less
_LOST = 0.3  # residual with which a search has gone astray; beating hearts at SNR 30 leave 0.04 to 0.13


@dataclass(frozen=True)
class DelayEstimate:
    """What was found, and how far to believe it.

    Parameters
    ----------
    delays
        The estimate.
    error
        Standard errors of (x, y, xy) in samples, from the scatter of spokes.
    chi_squared
        Of the three delays against none; 14.2 corresponds to three standard deviations.
    gain, gain_error
        Share by which the delays lower the squared error of foreseeing spokes that were left out, and its standard
        error.
    residual
        Root of the share of the energy of the centre of k-space that no image explains.
    iterations
        Gauss-Newton steps.
    """

    delays: GradientDelays
    error: tuple[float, float, float]
    chi_squared: float
    gain: float
    gain_error: float
    residual: float
    iterations: int

    @property
    def significant(self) -> bool:
        """Whether to apply it: over three standard errors and 0.05 samples, and spokes are foreseen 10 % better by it.

        Other faults than delays, such as a phase of each spoke, may look like delays that are significant, but hardly
        help to foresee spokes.
        """
        found = max(abs(self.delays.x), abs(self.delays.y), abs(self.delays.xy))
        likely = self.chi_squared > _LIKELY and self.residual < _LOST
        return likely and found > _WORTH and self.gain > max(_WORTH_GAIN, 3 * self.gain_error)

    @property
    def accepted(self) -> GradientDelays:
        """The delays where they are significant, else none."""
        return self.delays if self.significant else NO_DELAYS

    def record(self) -> dict[str, object]:
        """Return it as it goes into JSON."""
        return {
            "estimate": [self.delays.x, self.delays.y, self.delays.xy],
            "standard_error": list(self.error),
            "significant": self.significant,
            "foreseeing_gain": self.gain,
        }

    def describe(self) -> str:
        """Say it in a line."""
        names = zip(("x", "y", "xy"), (self.delays.x, self.delays.y, self.delays.xy), self.error, strict=True)
        found = ", ".join(f"{name} {value:+.3f} ± {error:.3f}" for name, value, error in names)
        return f"gradient delays {found} samples: {'corrected' if self.significant else 'not significant, left alone'}"


def estimate_delays(
    scan: RadialScan, *, radius: float = 6.0, damping: float = 1e-2, most_spokes: int = 600, max_iterations: int = 25
) -> DelayEstimate:
    """Find the delays under which spokes agree with each other.

    Variable projection: for given delays the best image is a linear problem, and Gauss-Newton steps of the delays take
    into account how the image would follow. Standard errors are those of the scores of whole spokes (a sandwich), so
    that a beating heart counts as scatter.

    Parameters
    ----------
    scan
        Whitened spokes, of one or more slices that share their delays.
    radius, damping
        See :class:`~kspace.central_fit.CentralFit`.
    most_spokes
        At most so many, the first ones, of each frame or slice are looked at; of at most four of these.
    max_iterations
        At most so many steps.

    Raises
    ------
    InputError
        When there are fewer than 8 spokes, no signal, or all spokes are parallel.
    """
    rough = CentralFit(scan, radius=radius, damping=damping, most_spokes=60, most_groups=1)
    start, near, _ = _descend(rough, torch.zeros(3, dtype=torch.float64), 8)
    if math.sqrt(near.cost) > _LOST / 2:
        start, _, _ = min((_descend(rough, far, 5) for far in _promising(rough)), key=lambda end: end[1].cost)
    fit = CentralFit(
        scan,
        radius=radius,
        damping=damping,
        most_spokes=most_spokes,
        most_groups=4,
        searched=GradientDelays(*bounded(start)).largest + 1.5,
    )
    best, found, iterations = _descend(fit, start, max_iterations)
    inverse = torch.linalg.pinv(found.curvature, hermitian=True, rtol=1e-10)
    covariance = inverse @ (found.scores @ found.scores.T) @ inverse
    if not bool((torch.linalg.eigvalsh(found.curvature) > 1e-9 * found.curvature.trace()).all()):
        raise InputError("the spokes do not tell their delays", expected="spokes of different directions")
    before, after = fit.left_out(torch.zeros_like(best)), fit.left_out(best)
    gain, total = before - after, max(float(before.sum()), 1e-300)
    x, y, xy = (float(value) for value in best)
    return DelayEstimate(
        delays=GradientDelays(x, y, xy),
        error=tuple(float(v) for v in covariance.diagonal().sqrt()),  # type: ignore[arg-type]
        chi_squared=float(best @ torch.linalg.pinv(covariance, hermitian=True) @ best),
        gain=float(gain.sum()) / total,
        gain_error=float(gain.std()) * math.sqrt(len(gain)) / total,
        residual=math.sqrt(found.cost),
        iterations=iterations,
    )


def _promising(fit: CentralFit, count: int = 6) -> list[Tensor]:
    """Return where else to start from, as far from the truth small steps lead elsewhere."""
    grid = torch.tensor([0.0, -2.0, 2.0, -4.0, 4.0], dtype=torch.float64)
    far = torch.cartesian_prod(grid, grid, grid[:3])
    ranked: list[Tensor] = sorted(far, key=lambda delays: fit.evaluate(delays, slopes=False).cost)
    return ranked[:count]


def _descend(fit: CentralFit, start: Tensor, most: int) -> tuple[Tensor, Agreement, int]:
    """Take damped Gauss-Newton steps; return where they end, how well spokes agree there, and the number of steps."""
    best, found, trust, iteration = start, fit.evaluate(start), 1e-12, 0
    while iteration < most:
        iteration += 1
        damped = found.curvature + trust * torch.diag(found.curvature.diagonal())
        step = torch.linalg.pinv(damped, hermitian=True, rtol=1e-12) @ found.scores.sum(1)
        size = float(step.abs().max())
        step = step * min(1.0, 1.5 / max(size, 1e-12))
        tried = fit.evaluate(best + step)
        if tried.cost <= found.cost:
            best, found, trust = best + step, tried, trust / 10
        else:
            trust = max(10 * trust, 1e-2)
        if size < 5e-4:
            break
    return best, found, iteration


def find_delays(
    scan: RadialScan, wanted: GradientDelays | Literal["auto"]
) -> tuple[GradientDelays, DelayEstimate | None]:
    """Return the delays to correct, and the estimate behind them where one was possible.

    With ``auto``, spokes that cannot tell their delays are left alone.
    """
    if wanted != "auto":
        return wanted, None
    try:
        estimate = estimate_delays(scan)
    except InputError:
        return NO_DELAYS, None
    return estimate.accepted, estimate
