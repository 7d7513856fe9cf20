"""Why a spoke was distrusted, in words: which of the plain checks it fails by most."""

from __future__ import annotations

import torch
from torch import Tensor

from kspace.motion.features import NAMES

REASONS = ("a spike", "lost signal", "the wrong phase", "the body moved", "the heart moved", "it fits nothing")
_CHECKS = (
    (("spark", 3.5),),
    (("energy", 2.0),),
    (("frame_gain_1", 2.5), ("frame_gain_9", 3.0), ("frame_gain_33", 3.0)),
    (("shift_33", 1.2), ("turn_33", 0.8)),
    (("heart_33", 1.5),),
    (("misfit_low", 7.0), ("misfit_9", 4.0), ("misfit_33", 3.0)),
)


def reason_of(features: Tensor) -> Tensor:
    """Return (spoke,) int64, the index into :data:`REASONS` of the check that (spoke, feature) fail by most."""
    scores = [
        torch.stack([features[:, NAMES.index(name)].abs() / usual for name, usual in checks]).amax(0)
        for checks in _CHECKS
    ]
    # What fits nothing is said only where nothing more can be.
    scores[-1] = 0.7 * scores[-1]
    # Noise alone seems to be anywhere: lost signal is told by its energy.
    lost = features[:, NAMES.index("energy")] < -4
    found = torch.stack(scores).argmax(0)
    return torch.where(lost, torch.full_like(found, REASONS.index("lost signal")), found)
