"""What is known of a patient at one moment of the scan, and nothing of what comes later.

A policy is handed a :class:`View` and nothing else. A view is gathered at each slice's present step and the two before,
so that there is no future in it to look at: the scan loop makes one of what it has measured, and :func:`view_of` one of
a stored trajectory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kspace.errors import ShapeError
from kspace.quality.trajectory import Array, Trajectory

LAGS = 3
"""The present step and two before it."""
Steps = NDArray[np.int64]


@dataclass(frozen=True)
class View:
    """A patient's scan so far.

    Parameters
    ----------
    steps
        (slice,) how many steps each slice has had, 1 or more.
    n_steps
        Steps up to the cap.
    seconds
        (slice,) scan time of each slice.
    spacing_mm
        From one slice to the next.
    areas_mm2
        (lag, slice, structure, frame): of the present labels, of those a step before, and of two before; the oldest
        there are where a slice has had fewer.
    sample_areas_mm2
        (sample, slice, structure, frame) at present.
    scores
        (lag, slice) each; those that nobody gave are not there.
    """

    steps: Steps
    n_steps: int
    seconds: Array
    spacing_mm: float
    areas_mm2: Array
    sample_areas_mm2: Array
    scores: Mapping[str, Array]

    @property
    def mean_seconds(self) -> float:
        """Scan time per slice."""
        return float(self.seconds.mean())

    @property
    def at_cap(self) -> NDArray[np.bool_]:
        """(slice,) whether a slice may not go on."""
        capped: NDArray[np.bool_] = self.steps >= self.n_steps
        return capped

    def score(self, name: str, lag: int = 0) -> Array:
        """Return a score (slice,), NaN where it is not known."""
        values = self.scores.get(name)
        return np.full(len(self.steps), np.nan) if values is None else values[lag]


def view_of(trajectory: Trajectory, steps: NDArray[Any]) -> View:
    """Return what was known when each slice had had so many steps.

    Parameters
    ----------
    steps
        (slice,), from 1 to the trajectory's steps.

    Raises
    ------
    ShapeError
        When there is not one number to each slice, or one is out of range.
    """
    steps = np.asarray(steps, dtype=np.int64)
    n_steps, n_slices = trajectory.n_steps, trajectory.n_slices
    if steps.shape != (n_slices,) or steps.min() < 1 or steps.max() > n_steps:
        raise ShapeError("the steps of the slices", steps.tolist(), f"{n_slices} numbers from 1 to {n_steps}")
    every = np.arange(n_slices)
    back = np.maximum(steps - 1 - np.arange(LAGS)[:, None], 0)  # (lag, slice)
    return View(
        steps=steps,
        n_steps=n_steps,
        seconds=trajectory.seconds[steps - 1],
        spacing_mm=trajectory.spacing_mm,
        areas_mm2=trajectory.areas_mm2[back, every],
        sample_areas_mm2=np.moveaxis(trajectory.sample_areas_mm2[steps - 1, :, every], 0, 1),
        scores={name: values[back, every] for name, values in trajectory.scores.items()},
    )
