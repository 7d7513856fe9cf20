"""Does the reconstruction foresee the spokes that it has not seen?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from kspace.quality.judge import Evidence, Score
from kspace.trajectory import ramp_weights


@dataclass(frozen=True)
class PredictionJudge:
    """Relative error with which the previous reconstruction foresaw the newest spokes, noise taken out.

    With density weights the sum over k-space is, by Parseval, a sum over the image: the score is an estimate of the
    NRMSE of the whole image that needs no truth. The newest spokes are independent of the reconstruction, and so is
    their noise, whose known power is subtracted.

    Parameters
    ----------
    limit
        At or below this error the reconstruction is good enough.
    """

    limit: float = 0.10
    name: str = "prediction_error"

    def __call__(self, evidence: Evidence) -> Sequence[Score]:
        """Judge one step; NaN at the first, when there was nothing to foresee from."""
        value = math.nan
        if evidence.predicted is not None and evidence.newest.n_spokes:
            value = prediction_error(
                evidence.newest.samples, evidence.predicted, evidence.newest.positions, evidence.noise_std or 0.0
            )
        return (Score(self.name, value, self.limit, "Error in foreseeing the newest spokes"),)


def prediction_error(samples: Tensor, predicted: Tensor, positions: Tensor, noise_std: float) -> float:
    """Return the density-weighted relative error of a prediction, the noise's expected share subtracted.

    Parameters
    ----------
    samples, predicted
        (spoke, coil, readout) complex.
    positions
        (spoke, readout, 2), cycles per pixel.
    noise_std
        Standard deviation of the complex noise of one sample.

    Returns
    -------
    sqrt((sum w |s - p|^2 - noise) / (sum w |s|^2 - noise)); 0 where the misfit is below the noise, NaN without signal.
    """
    weights = ramp_weights(positions).double()[:, None]
    noise = noise_std**2 * float(weights.sum()) * samples.shape[1]
    misfit = float((weights * (samples - predicted).abs().double() ** 2).sum()) - noise
    signal = float((weights * samples.abs().double() ** 2).sum()) - noise
    return math.sqrt(max(misfit, 0.0) / signal) if signal > 0 else math.nan
