"""How probable it is that a spoke does not show what its frame should."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from kspace.motion.examine import Examined, examine, plain_score
from kspace.motion.features import NAMES, quantile_along
from kspace.motion.network import SpokeNetwork, shipped_detector
from kspace.scan import RadialScan

Detector = Callable[[Tensor], Tensor]
"""Takes (spoke, feature) features of one slice in the order of time, and returns (spoke,) probabilities."""
_SPIKE = 3.5  # the logarithm of a power; of 50 simulated scans without spikes the largest was 2.6
_ODD = {"frame_gain_1": 1.95, "misfit_low": 0.95, "misfit_coil": 0.86, "peak": -0.99}
_ODD_OFFSET, _DOUBT = -7.1, 5.0
FLAGGED = 0.5
"""A spoke is called corrupted from this probability on."""


def plain_detector(features: Tensor) -> Tensor:
    """Return probabilities by rules that nothing was trained for; they are not calibrated."""
    return torch.sigmoid(2 * plain_score(features))


@dataclass(frozen=True)
class LearntDetector:
    """A network as a :data:`Detector`, and beside it two checks of a spoke alone.

    The network looks along the spokes and hardly sees one that is odd among sound ones; :func:`odd_one_out` does, and
    adds to the network's logit what it has beyond doubt. A spike is a spike.
    """

    network: SpokeNetwork

    def __call__(self, features: Tensor) -> Tensor:
        """Return the (spoke,) probabilities."""
        spiked = torch.sigmoid(4 * (features[:, NAMES.index("spark")] - _SPIKE))
        with torch.no_grad():
            logit = self.network(features[None])[0] + (odd_one_out(features) + _DOUBT).clamp_min(0)
        return torch.maximum(torch.sigmoid(logit), spiked)


def odd_one_out(features: Tensor) -> Tensor:
    """Return the (spoke,) logit that a spoke is odd among its neighbours in time.

    A logistic model of how far a few features lie above their median over 33 neighbours, fitted to the scans of the
    training patients that are clean or have spokes swapped at random. Persistent motion has no excess.
    """
    chosen = features[:, [NAMES.index(name) for name in _ODD]]
    half = min(16, (len(chosen) - 1) // 2)
    around = torch.cat((chosen[:half].flip(0), chosen, chosen[len(chosen) - half :].flip(0)))
    excess = chosen - quantile_along(around.unfold(0, 2 * half + 1, 1), 0.5, -1)
    return excess @ torch.tensor(list(_ODD.values())) + _ODD_OFFSET


@cache
def default_detector() -> Detector:
    """Return the shipped network."""
    return LearntDetector(shipped_detector()[0])


@dataclass(frozen=True)
class Distrust:
    """What was found.

    Parameters
    ----------
    probability
        (spoke,) float32 that each is corrupted.
    examined
        What it follows from.
    """

    probability: Tensor
    examined: Examined


def distrust(
    spokes: RadialScan, frame: Tensor, n_frames: int, *, noise_std: float, detector: Detector | None = None
) -> Distrust:
    """Judge the spokes of one slice by each other.

    Parameters
    ----------
    spokes
        Whitened, in the order of time.
    frame, n_frames
        (spoke,) int64, and how many.
    noise_std
        Of one whitened sample.
    detector
        The shipped network by default.
    """
    examined = examine(spokes, frame, n_frames, noise_std=noise_std)
    return Distrust((detector or default_detector())(examined.features), examined)
