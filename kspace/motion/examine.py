"""Hold every spoke of a slice against what the others say, twice: in the end those found odd have less of a say."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kspace.errors import ShapeError
from kspace.motion.evidence import Evidence, gather, sparks
from kspace.motion.features import NAMES, spoke_features
from kspace.motion.navigator import Navigator, Short
from kspace.scan import RadialScan

BLOCK_S, BLOCKS = 0.25, 4
"""Spokes of a quarter of a second are foreseen by the others; every fourth quarter together, to spare time."""
FEWEST = 16
"""Spokes below which nothing can be said."""


@dataclass(frozen=True)
class Examined:
    """What the spokes of a slice say of each other.

    Parameters
    ----------
    features
        (spoke, feature), see :mod:`kspace.motion.features`.
    evidence
        What they follow from.
    navigator
        The small images.
    short
        How spokes were cut.
    group
        (spoke,) int64, those that were foreseen together.
    """

    features: Tensor
    evidence: Evidence
    navigator: Navigator
    short: Short
    group: Tensor


def examine(
    spokes: RadialScan, frame: Tensor, n_frames: int, *, noise_std: float, trust: Tensor | None = None, rounds: int = 2
) -> Examined:
    """Examine the spokes of one slice.

    Parameters
    ----------
    spokes
        Whitened, in the order of time.
    frame
        (spoke,) int64.
    n_frames
        Cardiac phases.
    noise_std
        Of one whitened sample.
    trust
        (spoke,) in [0, 1] to begin with.
    rounds
        How often; before each round but the first, trust follows from :func:`plain_trust`.
    """
    if spokes.n_spokes < FEWEST:
        raise ShapeError("the spokes", spokes.samples, f"({FEWEST} or more, coil, readout)")
    short = Short.of(spokes)
    small, spark = short.cut(spokes), sparks(spokes)
    group = blocks(spokes.time_s)
    start = maps = None
    for number in range(rounds):
        navigator = Navigator(small, frame, group, n_frames, noise_std=noise_std, trust=trust, start=start, maps=maps)
        parts, order = [], []
        for one in torch.unique(group).tolist():
            mine = torch.nonzero(group == one)[:, 0]
            image = navigator.without(one)
            found = gather(small.select(mine), frame[mine], image, navigator.maps, n_frames=n_frames, spark=spark[mine])
            parts.append(found)
            order.append(mine)
        evidence = Evidence.join(parts).at(torch.argsort(torch.cat(order)))
        features = spoke_features(evidence, frame, spokes.time_s, spokes.ecg_s, noise_std=noise_std)
        if number + 1 < rounds:
            trust, start, maps = plain_trust(features), navigator.image, navigator.maps
    return Examined(features, evidence, navigator, short, group)


def blocks(time_s: Tensor) -> Tensor:
    """Return (spoke,) int64, the group of each; a short scan is dealt into shorter blocks, so that none is alone."""
    since = time_s - time_s[0]
    length = min(BLOCK_S, float(since[-1]) / (2 * BLOCKS) + 1e-6)
    return torch.div(since, length, rounding_mode="floor").long() % BLOCKS


_PLAIN = {
    "spark": (3.5, 1.0), "energy": (2.0, 1.0), "peak": (4.0, 1.0), "misfit_low": (7.0, 1.5), "frame_gain_1": (2.5, 0.5),
    "frame_gain_9": (3.5, 0.5), "frame_gain_33": (3.0, 0.5), "frame_gain_99": (1.0, 0.5), "shift_33": (1.8, 0.4),
    "turn_33": (1.9, 0.4), "heart_33": (1.8, 0.4),
}  # fmt: skip
"""What is still usual, and by how much more a feature is surely not: set by eye on one validation patient."""


def plain_score(features: Tensor) -> Tensor:
    """Return (spoke,) how odd each spoke is by rules that nothing was trained for: below 0 is usual."""
    scores = [(features[:, NAMES.index(name)].abs() - usual) / spread for name, (usual, spread) in _PLAIN.items()]
    return torch.stack(scores, dim=1).amax(1)


def plain_trust(features: Tensor) -> Tensor:
    """Return the (spoke,) trust in [0, 1] that follows from :func:`plain_score`."""
    return torch.sigmoid(-4 * plain_score(features)).clamp(0.02, 1.0)
