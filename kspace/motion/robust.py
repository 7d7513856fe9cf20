"""Trust without a network: Huber weights by iteratively reweighted least squares, on the small images.

Each spoke weighs min(1, limit / r), where r is its root mean square misfit in units of what is usual (Holland and
Welsch, Commun. Stat. A6:813, 1977). A baseline: it knows no time, no neighbours, and no reason.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.motion.evidence import gather, sparks
from kspace.motion.features import usual_misfit
from kspace.motion.navigator import Navigator, Short
from kspace.scan import RadialScan

LIMIT = 1.345
"""95 % efficient for Gaussian errors."""


def huber_trust(
    spokes: RadialScan, frame: Tensor, n_frames: int, *, noise_std: float, rounds: int = 3, limit: float = LIMIT
) -> Tensor:
    """Return (spoke,) float32 weights in (0, 1] of whitened spokes of one slice."""
    short = Short.of(spokes)
    small, spark = short.cut(spokes), sparks(spokes)
    trust, start, maps = None, None, None
    together = torch.zeros_like(frame)
    for _ in range(rounds):
        navigator = Navigator(
            small, frame, together, n_frames, noise_std=noise_std, trust=trust, start=start, maps=maps
        )
        start, maps = navigator.image, navigator.maps
        found = gather(small, frame, start, maps, n_frames=n_frames, spark=spark)
        usual = usual_misfit(found, frame, noise_std)
        misfit = ((found.own / usual).sum(1) / found.counts.sum(1)).sqrt()
        trust = (limit / misfit.clamp_min(1e-6)).clamp(max=1.0)
    assert trust is not None
    return trust
