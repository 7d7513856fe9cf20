"""Does the calibrated rule keep its promise? On random patients whose true risk is known.

    python -m bench.guarantee --out docs/pictures/guarantee

Synthetic throughout: 100,000 random courses of error and score over 24 decisions stand for all patients there are,
so that the risk of any rule is known. Again and again 100 of them are drawn, a rule is calibrated on those, and its
risk is looked up. Beside Learn-then-Test stand intervals that are conformal in every round by itself (Wen et al., ECCV
2024) and jointly over rounds (arXiv 2511.13533).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kspace.quality.learn_then_test import fixed_sequence
from kspace.quality.trajectory import Array

ROUNDS = 24
CANDIDATES: Array = np.exp(np.linspace(np.log(0.02), np.log(20), 120))
"""Thresholds from the most careful on, fixed beforehand; the first is never to stop before the cap."""


@dataclass(frozen=True)
class Courses:
    """Errors in units of the tolerance, and scores that foretell them; (patient, round) each."""

    errors: Array
    scores: Array


def steady(n: int, rng: np.random.Generator) -> Courses:
    """Return errors that fall as one over the root of time, with scores that know their size but not their sign."""
    level = rng.lognormal(0, 0.4, (n, 1)) / np.sqrt(np.arange(1, ROUNDS + 1) / 3)
    errors = np.abs(level * (0.8 * rng.normal(size=(n, 1)) + 0.3 * rng.normal(size=(n, ROUNDS))))
    return Courses(errors, level * rng.lognormal(0, 0.15, (n, ROUNDS)))


def noisy(n: int, rng: np.random.Generator) -> Courses:
    """Return the same with scores that are wrong by a factor of two, anew in each round."""
    some = steady(n, rng)
    return Courses(some.errors, some.scores * rng.lognormal(0, 0.7, some.scores.shape))


def biased(n: int, rng: np.random.Generator) -> Courses:
    """Return patients in a fifth of whom scores are four times too small from the first round to the last."""
    some = steady(n, rng)
    return Courses(some.errors, np.where(rng.random((n, 1)) < 0.2, 0.25, 1.0) * some.scores)


def heavy_tailed(n: int, rng: np.random.Generator) -> Courses:
    """Return errors with the tails of Student's t with two degrees of freedom."""
    level = rng.lognormal(0, 0.5, (n, 1)) / np.sqrt(np.arange(1, ROUNDS + 1) / 2)
    errors = np.abs(level * (0.35 * rng.standard_t(2, (n, 1)) + 0.1 * rng.standard_t(2, (n, ROUNDS))))
    return Courses(errors, level * rng.lognormal(0, 0.3, (n, ROUNDS)))


def not_monotone(n: int, rng: np.random.Generator) -> Courses:
    """Return errors that come back: a third of the patients move once, and scores learn of it two rounds late."""
    some = steady(n, rng)
    when = rng.integers(4, 16, (n, 1))
    since = np.arange(ROUNDS) - when
    moved = rng.random((n, 1)) < 0.33
    bump = np.where(moved & (since >= 0), 2.5 * 0.75 ** np.maximum(since, 0), 0)
    late = np.where(moved & (since >= 2), 2.5 * 0.75 ** np.maximum(since, 0), 0)
    return Courses(some.errors + bump, some.scores + late)


MODELS: dict[str, Callable[[int, np.random.Generator], Courses]] = {
    "steady": steady,
    "noisy scores": noisy,
    "biased scores": biased,
    "heavy tails": heavy_tailed,
    "not monotone": not_monotone,
}


def stopped(scores: Array, limits: Array) -> NDArray[np.int64]:
    """Return the (patient,) rounds in which scores first are at or below limits (round,) or a number: else the last."""
    below = scores <= limits
    below[:, -1] = True
    first: NDArray[np.int64] = below.argmax(1)
    return first


def losses_of(some: Courses) -> NDArray[np.bool_]:
    """Return (patient, candidate) whether each misses, stopped by each candidate."""
    every = np.arange(len(some.errors))
    missed = some.errors > 1
    lost = np.empty((len(missed), len(CANDIDATES) + 1), dtype=bool)
    lost[:, 0] = missed[:, -1]
    for number, limit in enumerate(CANDIDATES):
        lost[:, number + 1] = missed[every, stopped(some.scores, np.asarray(limit))]
    return lost


def quantile(values: Array, alpha: float) -> Array:
    """Return the split-conformal quantile along the first axis; infinite where there are too few values."""
    rank = int(np.ceil((len(values) + 1) * (1 - alpha)))
    if rank > len(values):
        return np.full(values.shape[1:], np.inf)
    ranked: Array = np.partition(values, rank - 1, axis=0)[rank - 1]
    return ranked


@dataclass(frozen=True)
class Kept:
    """What came of many calibrations of one rule.

    Parameters
    ----------
    exceeded
        Share of calibrations whose rule has a risk above alpha.
    mean_risk, high_risk
        Mean and 90 % quantile of the risks.
    mean_rounds
        Until the scan stops.
    unproven
        Share of calibrations in which nothing could be proven and scans run to the cap.
    """

    exceeded: float
    mean_risk: float
    high_risk: float
    mean_rounds: float
    unproven: float = 0.0


def study(
    name: str,
    alpha: float,
    *,
    patients: int,
    calibrations: int,
    per_calibration: int,
    seed: int = 0,
    others: int = 5_000,
) -> dict[str, Kept]:
    """Calibrate many times on random patients of one model.

    Parameters
    ----------
    name
        Of :data:`MODELS`.
    alpha
        The risk; confidence is 90 %.
    patients
        That there are.
    calibrations, per_calibration
        How often, and on how many patients each.
    others
        Patients on whom the risk of the rivals is counted: theirs is not a table that can be made beforehand.
    """
    rng = np.random.default_rng([seed, list(MODELS).index(name)])
    some = MODELS[name](patients, rng)
    lost = losses_of(some)
    every = np.arange(patients)
    risk = lost.mean(0)
    rounds = np.array([ROUNDS, *(1 + stopped(some.scores, np.asarray(limit)).mean() for limit in CANDIDATES)])
    few = Courses(some.errors[:others], some.scores[:others])
    found: dict[str, list[tuple[float, float, bool]]] = {"learn-then-test": [], "per round": [], "joint": []}
    for _ in range(calibrations):
        chosen = rng.choice(every, per_calibration)
        last = fixed_sequence(lost[chosen], alpha, 0.9)
        found["learn-then-test"].append((risk[last or 0], rounds[last or 0], last is None))
        ratio = some.errors[chosen] / some.scores[chosen]
        for rival, limit in (
            ("per round", 1 / quantile(ratio, alpha)),
            ("joint", 1 / quantile(ratio.max(1), alpha)),
        ):
            when = stopped(few.scores, limit)
            found[rival].append((float((few.errors[every[: len(when)], when] > 1).mean()), 1 + when.mean(), False))
    return {rule: _summary(np.array(values), alpha) for rule, values in found.items()}


def _summary(values: Array, alpha: float) -> Kept:
    # What runs to the cap for want of proof promises nothing.
    exceeded = (values[:, 0] > alpha) & (values[:, 2] == 0)
    return Kept(
        exceeded=float(exceeded.mean()),
        mean_risk=float(values[:, 0].mean()),
        high_risk=float(np.quantile(values[:, 0], 0.9)),
        mean_rounds=float(values[:, 1].mean()),
        unproven=float(values[:, 2].mean()),
    )


def main() -> None:
    """Print a table, and write it and a picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, help="name of .json and .png, without the ending")
    parser.add_argument("--patients", type=int, default=100_000)
    parser.add_argument("--calibrations", type=int, default=1000)
    parser.add_argument("--per-calibration", type=int, default=100)
    options = parser.parse_args()
    started = time.perf_counter()
    rows = []
    print("| model | alpha | rule | risk above alpha in | mean risk | rounds | nothing proven |\n" + "|---" * 7 + "|")
    for name in MODELS:
        for alpha in (0.05, 0.10, 0.20):
            kept = study(
                name, alpha, patients=options.patients, calibrations=options.calibrations,
                per_calibration=options.per_calibration,
            )  # fmt: skip
            for rule, what in kept.items():
                rows.append({"model": name, "alpha": alpha, "rule": rule, **vars(what)})
                print(
                    f"| {name} | {100 * alpha:.0f} % | {rule} | {100 * what.exceeded:.1f} % | "
                    f"{100 * what.mean_risk:.1f} % | {what.mean_rounds:.1f} | {100 * what.unproven:.1f} % |",
                    flush=True,
                )
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    if options.out is not None:
        options.out.with_suffix(".json").write_text(json.dumps({"synthetic": True, "rows": rows}, indent=1) + "\n")
        _draw(rows, options.out.with_suffix(".png"))


def _draw(rows: list[dict[str, object]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    colours = {"learn-then-test": "#0b7a75", "joint": "#8a8d91", "per round": "#c8553d"}
    for axis, alpha in zip(axes, (0.05, 0.10, 0.20), strict=True):
        for offset, (rule, colour) in enumerate(colours.items()):
            shares = [100 * float(str(r["exceeded"])) for r in rows if r["alpha"] == alpha and r["rule"] == rule]
            axis.bar(np.arange(len(MODELS)) + 0.27 * (offset - 1), shares, 0.25, color=colour, label=rule)
        axis.axhline(10, color="black", linewidth=1, linestyle="--")
        axis.set_xticks(range(len(MODELS)), [name.replace(" ", "\n") for name in MODELS], fontsize=8)
        axis.set_title(f"risk of {100 * alpha:.0f} % promised", fontsize=10)
        axis.set_ylim(0, 100)
    axes[0].set_ylabel("calibrations with a true risk above it, %", fontsize=9)
    axes[-1].legend(fontsize=8, frameon=False)
    figure.suptitle("Random courses of 100,000 synthetic patients, 1000 calibrations on 100 of them", fontsize=10)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
