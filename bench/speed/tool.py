"""What a tool offers to be timed, and the plain loop that stands in for a solver where it has none."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from bench.speed.problem import RIDGE, Array, Problem

TARGETS = (1e-2, 3e-3)
MAX_ITERATIONS = 600


@dataclass
class Case:
    """One thing to time.

    Parameters
    ----------
    run
        Called with how many frames to do, the first ones.
    reference
        What its result is compared with: a name in the problem's cache, ``truth``, or nothing.
    result
        Turns what ``run`` returned into an array in the project's own scaling, outside the timing.
    before
        Called before each run, outside the timing.
    scalable
        Whether fewer frames can be run and the time scaled up.
    extra
        What the row says besides: iterations, notes, what the floor is.
    """

    run: Callable[[int], Any]
    reference: str | None = None
    result: Callable[[Any], Array] = np.asarray
    before: Callable[[], None] | None = None
    scalable: bool = True
    extra: dict[str, Any] = field(default_factory=dict)


class Tool(Protocol):
    """A program to be timed on one problem; made inside its own process."""

    def cases(self, job: str) -> dict[str, Case]:
        """Return what it has to show for a job, by name; empty where it has nothing."""
        ...


class Frames:
    """Runs frames side by side, one thread each, as the project itself does; peers are driven no worse."""

    def __init__(self, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def map(self, function: Callable[[int], Any], frames: int) -> list[Any]:
        items: Iterable[int] = range(frames)
        return [function(f) for f in items] if self._pool is None else list(self._pool.map(function, items))


def plain_cg(
    normal: Callable[[Any], Any], b: Any, damping: Any, iterations: int, dot: Callable[[Any, Any], Any]
) -> Any:
    """Conjugate gradients from zero for (A + damping) x = b; ``dot`` decides over what the steps are shared."""
    x, r, p = b * 0, b + 0, b + 0
    rr = dot(r, r)
    for _ in range(iterations):
        q = normal(p) + damping * p
        step = rr / dot(p, q)
        x += step * p
        r -= step * q
        new = dot(r, r)
        p = r + (new / rr) * p
        rr = new
    return x


def numpy_dot(a: Array, b: Array) -> np.float32:
    """Return the real part of the inner product of one frame."""
    return np.float32(np.vdot(a, b).real)


def cg_cases(
    problem: Problem,
    plan: Callable[[int], Any],
    iterate: Callable[[Any, int], Any],
    *,
    note: str,
    targets: Iterable[float] = TARGETS,
    scalable: bool = True,
    split: bool = True,
) -> dict[str, Case]:
    """Return CG-SENSE from raw spokes to a stated error, and its iterations alone, as many as the tool needs.

    Parameters
    ----------
    plan
        All that a new data set asks for, of the first so many frames: plans, kernels, right-hand side.
    iterate
        From what ``plan`` returned, so many iterations: (frame, y, x).
    split
        Whether the iterations can be timed without the planning.
    """
    all_frames = problem.size.frames
    few = 1 if scalable else all_frames
    found: dict[str, Case] = {}
    state = plan(few)

    def error_after(iterations: int) -> float:
        return problem.error("cg-sense", np.asarray(iterate(state, iterations)), few)

    for target in targets:
        count, reached = fewest(error_after, target)
        extra = {"iterations": count, "target": target, "note": note, "ridge": RIDGE}
        if not reached:
            extra["miss"] = f"does not reach {target:g}"
        name = f"to {target:g}"

        def whole(frames: int, count: int = count) -> Any:
            return iterate(plan(frames), count)

        found[name] = Case(whole, "cg-sense", scalable=scalable, extra=extra | {"floor": "cg-sense"})
        if split:
            kept: dict[int, Any] = {}

            def alone(frames: int, count: int = count, kept: dict[int, Any] = kept) -> Any:
                if frames not in kept:
                    kept[frames] = plan(frames)
                return iterate(kept[frames], count)

            found[f"{name}, iterations alone"] = Case(
                alone, "cg-sense", scalable=scalable, extra=extra | {"floor": "iterations"}
            )
    return found


def fewest(error_after: Callable[[int], float], target: float) -> tuple[int, bool]:
    """Return the fewest iterations (to 2 %) that reach an error, and whether any number does.

    Where none does, the count is where the error stopped falling.
    """
    low, high = 0, 8
    errors = {high: error_after(high)}
    while errors[high] > target:
        low, high = high, 2 * high
        errors[high] = error_after(high) if high <= MAX_ITERATIONS else np.inf
        if errors[high] > 0.9 * errors[low] and high > 128:
            return low, False
    while high - low > max(1, high // 50):
        middle = (low + high) // 2
        if error_after(middle) <= target:
            high = middle
        else:
            low = middle
    return high, True
