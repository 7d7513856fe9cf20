"""What a policy could save at most if it knew the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kspace.quality.measures import Tolerance, measured
from kspace.quality.policies.policy import Choice, Stopped, excess_at, reference_of
from kspace.quality.trajectory import Array, Trajectory
from kspace.quality.view import Steps, View, view_of


def oracle(
    trajectory: Trajectory,
    tolerance: Tolerance,
    *,
    first: int = 1,
    also: Sequence[Steps] = (),
    measure: Callable[[View], Array] | None = None,
) -> Stopped:
    """Return the shortest scan within tolerance, at the same steps, that a search which knows the truth finds.

    Looked at are: all slices together; from the first step on, always one more step of the slice that helps most; and
    states that are handed in, those that a policy would pass. There are too many combinations of slices to try them
    all, so that a shorter scan may exist.

    Parameters
    ----------
    trajectory
        The patient.
    tolerance
        What is allowed.
    first
        Steps that every slice has before the first decision.
    also
        States (slice,) to look at besides.
    measure
        What a policy would report that does not report what was drawn; a state counts if either is within tolerance.

    Returns
    -------
    Where it ends; at the cap where no state is within tolerance.
    """
    n_steps, n_slices = trajectory.n_steps, trajectory.n_slices
    first = min(first, n_steps)
    states = [np.full(n_slices, step, dtype=np.int64) for step in range(first, n_steps + 1)]
    states += [state for state in also if state.min() >= first]
    reference = reference_of(trajectory)

    def near(state: Steps) -> bool:
        if excess_at(trajectory, state, tolerance) <= 1:
            return True
        return measure is not None and bool(tolerance.excess(measure(view_of(trajectory, state)), reference) <= 1)

    within = [state for state in states if near(state)]
    best = min(within, key=lambda s: _seconds(trajectory, s), default=None)
    greedy = _greedy(trajectory, tolerance, first, _seconds(trajectory, states[-1] if best is None else best))
    found = best if greedy is None else greedy
    steps = np.full(n_slices, n_steps, dtype=np.int64) if found is None else found
    choice = Choice(np.zeros(n_slices, dtype=bool), "the truth is near enough" if found is not None else "time is up",
                    reached=found is not None)  # fmt: skip
    return Stopped(steps, trajectory.seconds[steps - 1], 1, choice)


def _seconds(trajectory: Trajectory, steps: Steps) -> float:
    return float(trajectory.seconds[steps - 1].sum())


def _greedy(trajectory: Trajectory, tolerance: Tolerance, first: int, below_s: float) -> Steps | None:
    """Return a state within tolerance below so many seconds in all, if going on slice by slice finds one."""
    reference = reference_of(trajectory)
    steps = np.full(trajectory.n_slices, first, dtype=np.int64)
    every = np.arange(trajectory.n_slices)
    while _seconds(trajectory, steps) < below_s:
        if excess_at(trajectory, steps, tolerance) <= 1:
            return steps
        open_ = every[steps < trajectory.n_steps]
        if not len(open_):
            return None
        tried = np.repeat(steps[None], len(open_), 0)
        tried[np.arange(len(open_)), open_] += 1
        areas = trajectory.areas_mm2[tried - 1, every]
        excess = tolerance.excess(measured(areas, trajectory.spacing_mm), reference)
        steps = tried[int(excess.argmin())]
    return None
