"""The interface of all policies, and how one is followed along a stored trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kspace.quality.measures import Tolerance, measured
from kspace.quality.trajectory import Array, Trajectory
from kspace.quality.view import Steps, View, view_of


@dataclass(frozen=True)
class Choice:
    """What happens after a decision.

    Parameters
    ----------
    go_on
        (slice,) which slices are scanned for one more step; none, and the patient is done.
    reason
        Why, in words that a person at the console understands.
    reached
        Whether the scan ends because it is good enough, and not because time is up.
    """

    go_on: NDArray[np.bool_]
    reason: str
    reached: bool = False

    @property
    def done(self) -> bool:
        """Whether no slice goes on."""
        return not bool(self.go_on.any())


class Policy(Protocol):
    """Anything that decides on a view of a patient: on what is known so far, and on nothing else.

    The same policy decides on many patients: it keeps nothing between two calls.
    """

    @property
    def name(self) -> str:
        """For tables."""
        ...

    def __call__(self, view: View) -> Choice:
        """Decide."""
        ...


@dataclass(frozen=True)
class Stopped:
    """Where a scan ended.

    Parameters
    ----------
    steps
        (slice,) how many steps each slice had.
    seconds
        (slice,) scan time of each.
    decisions
        How many were taken.
    choice
        The last one.
    """

    steps: Steps
    seconds: Array
    decisions: int
    choice: Choice

    @property
    def mean_seconds(self) -> float:
        """Scan time per slice."""
        return float(self.seconds.mean())


def stay(view: View, reason: str, *, reached: bool = False) -> Choice:
    """Return the choice that ends the scan."""
    return Choice(np.zeros(len(view.steps), dtype=bool), reason, reached)


def advance(steps: Steps, go_on: NDArray[np.bool_], n_steps: int) -> Steps:
    """Return the steps after one more of each slice that goes on; none passes the cap."""
    return np.minimum(steps + go_on, n_steps)


def run(policy: Policy, trajectory: Trajectory, *, first: int = 1) -> Stopped:
    """Follow a policy along a stored trajectory until it stops or all slices are at the cap.

    Parameters
    ----------
    policy
        Sees views only: nothing after the present step of each slice.
    trajectory
        The patient.
    first
        Steps that every slice has before the first decision.
    """
    steps = np.full(trajectory.n_slices, min(first, trajectory.n_steps), dtype=np.int64)
    decisions = 0
    while True:
        view = view_of(trajectory, steps)
        choice = policy(view)
        decisions += 1
        onward = choice.go_on & ~view.at_cap
        if not onward.any():
            return Stopped(steps, view.seconds, decisions, choice)
        steps = advance(steps, onward, trajectory.n_steps)


def areas_at(trajectory: Trajectory, steps: Steps) -> Array:
    """Return the areas (slice, structure, frame) of a patient whose slices stopped at different steps."""
    return np.asarray(trajectory.areas_mm2[steps - 1, np.arange(trajectory.n_slices)])


def measured_at(trajectory: Trajectory, steps: Steps) -> Array:
    """Return the (measure,) of a patient whose slices stopped at different steps."""
    return measured(areas_at(trajectory, steps), trajectory.spacing_mm)


def reference_of(trajectory: Trajectory) -> Array:
    """Return the (measure,) of the complete scan."""
    return measured(trajectory.reference_areas_mm2, trajectory.spacing_mm)


def excess_at(trajectory: Trajectory, steps: Steps, tolerance: Tolerance) -> float:
    """Return the largest error of a stopped scan in units of the tolerance: above 1 it misses."""
    return float(tolerance.excess(measured_at(trajectory, steps), reference_of(trajectory)))
