"""Does the image still change?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from kspace.quality.judge import Evidence, Score


@dataclass(frozen=True)
class ChangeJudge:
    """Relative change of the cine since the last step: ||x - x_before|| / ||x||.

    Parameters
    ----------
    limit
        At or below this change more spokes bring little.
    """

    limit: float = 0.05
    name: str = "image_change"

    def __call__(self, evidence: Evidence) -> Sequence[Score]:
        """Judge one step; NaN at the first."""
        value = math.nan
        if evidence.previous is not None:
            norm = float(torch.linalg.vector_norm(evidence.image))
            moved = float(torch.linalg.vector_norm(evidence.image - evidence.previous))
            value = moved / norm if norm > 0 else math.nan
        return (Score(self.name, value, self.limit, "Change of the image since the last step"),)
