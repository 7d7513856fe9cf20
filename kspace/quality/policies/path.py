"""Where time goes: the order in which slices are scanned on, whenever the scan may end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kspace.errors import UsageError
from kspace.quality.features import slice_features
from kspace.quality.linear import LinearModel
from kspace.quality.policies.policy import advance
from kspace.quality.trajectory import Array, Trajectory
from kspace.quality.view import Steps, View, view_of

Path = Callable[[View], NDArray[np.bool_]]
"""Says which slices (slice,) are scanned next; at least one, unless all are at the cap."""


@dataclass(frozen=True)
class Uniform:
    """All slices go on together: the scan of today."""

    def __call__(self, view: View) -> NDArray[np.bool_]:
        """Return which slices are scanned next."""
        onward: NDArray[np.bool_] = ~view.at_cap
        return onward


@dataclass(frozen=True)
class WhereItGains:
    """Slices go on in which one more step promises to take most of the error of the LV's volumes away.

    The variance of a slice's LV area falls about as one over its time, so that the next second takes a share of one
    over its seconds off it. The fewest slices that promise ``share`` of the gain of all go on; others wait, and are
    gone back to when their turn comes.

    Parameters
    ----------
    model
        Predicts the logarithm of the error of a slice's LV volume from :data:`~kspace.quality.features.SLICE_FEATURES`.
    share
        Above 0; 1 is :class:`Uniform`.
    """

    model: LinearModel
    share: float = 0.8

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UsageError(f"slices that promise a share of {self.share:g}", expected="above 0, at most 1")

    def gains(self, view: View) -> Array:
        """Return (slice,) the variance that the next second promises to take away; 0 at the cap."""
        error = np.exp(self.model(slice_features(view)))
        return np.where(view.at_cap, 0.0, error**2 / view.seconds)

    def __call__(self, view: View) -> NDArray[np.bool_]:
        """Return which slices are scanned next."""
        gains = self.gains(view)
        order = np.argsort(-gains, kind="stable")
        before = np.concatenate([[0.0], np.cumsum(gains[order])[:-1]])
        chosen = np.zeros(len(gains), dtype=bool)
        chosen[order] = before < self.share * gains.sum() * (1 - 1e-12)
        chosen[order[0]] = True
        onward: NDArray[np.bool_] = chosen & ~view.at_cap
        return onward


def walk(path: Path, trajectory: Trajectory, *, first: int = 1) -> list[Steps]:
    """Return the states (slice,) that a scan passes until every slice is at the cap."""
    steps = np.full(trajectory.n_slices, min(first, trajectory.n_steps), dtype=np.int64)
    states = [steps]
    while True:
        onward = path(view_of(trajectory, steps))
        if not onward.any():
            return states
        steps = advance(steps, onward, trajectory.n_steps)
        states.append(steps)
