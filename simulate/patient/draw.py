"""Draws from truncated distributions, in an order that one generator keeps."""

from __future__ import annotations

import numpy as np

LIMIT = 2.6
"""Standard deviations at which a normal draw ends."""


class Draw:
    """Truncated normal, lognormal and uniform draws from one generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def z(self) -> float:
        """Return a standard normal number within :data:`LIMIT`."""
        while abs(value := float(self.rng.normal())) > LIMIT:
            pass
        return value

    def normal(self, mean: float, sd: float, low: float = -np.inf, high: float = np.inf) -> float:
        """Return a normal number, clipped."""
        return float(np.clip(mean + sd * self.z(), low, high))

    def lognormal(self, median: float, sd: float, low: float = 0.0, high: float = np.inf) -> float:
        """Return a number whose logarithm is normal, clipped."""
        return float(np.clip(median * np.exp(sd * self.z()), low, high))

    def uniform(self, low: float, high: float) -> float:
        """Return an evenly spread number."""
        return float(self.rng.uniform(low, high))
