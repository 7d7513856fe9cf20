"""Does the stopping rule keep its promise on simulated patients? Many random splits of a stored study.

    python -m bench.stopping STUDY_FOLDER [--key KEY] [--shifted FOLDER ...] [--splits 500] [--out FILE.json]
    python -m bench.stopping STUDY_FOLDER --calibrate NAME      # writes kspace/quality/calibrations/NAME.json

Synthetic patients. Predictors are fitted once, on the study's fit patients. All others are dealt into calibration and
test again and again; each time the limit is proven on the one part and misses are counted in the other. With --shifted,
the rule meets cohorts of another kind, and the shift check says whether it noticed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bench.stored import parts_of
from kspace.quality.calibration import (
    FOLDER,
    Promise,
    Walk,
    calibrate_rule,
    prove,
    uncalibrated_rule,
    walk_rule,
    write_calibration,
)
from kspace.quality.features import state_features
from kspace.quality.predictors import FitOptions, fit_predictors
from kspace.quality.shift import cohort_shift
from kspace.quality.trajectory import Array, Trajectory
from kspace.quality.view import view_of


@dataclass(frozen=True)
class Splits:
    """What many random splits came to.

    Parameters
    ----------
    calibration, test
        Patients in each part.
    mean_risk
        Mean over splits of the share of test patients that miss.
    sd, binomial_sd, explained_sd
        Of that share over splits; what a test set of that size explains by itself, at the mean risk; and with it that
        limits differ from split to split, by the share of all patients who miss under each.
    above
        Share of splits whose test share is above alpha.
    mean_seconds
        Per slice.
    proven
        Share of splits in which a limit below the cap was proven.
    misses_at_cap
        Share of all patients who miss at the cap.
    """

    alpha: float
    calibration: int
    test: int
    mean_risk: float
    sd: float
    binomial_sd: float
    explained_sd: float
    above: float
    mean_seconds: float
    proven: float
    misses_at_cap: float


def split_often(
    walks: Sequence[Walk], promise: Promise, *, share: float = 0.6, splits: int = 500, seed: int = 0
) -> Splits:
    """Deal patients into calibration and test many times.

    Parameters
    ----------
    walks
        Of patients that the rule was not fitted on.
    share
        Of them that is calibrated on.
    """
    rng = np.random.default_rng(seed)
    n = round(share * len(walks))
    missed, seconds, limits, everyone = [], [], [], []
    for _ in range(splits):
        order = rng.permutation(len(walks))
        limit = prove([walks[i] for i in order[:n]], promise)
        stops = [(walks[i], walks[i].stop(limit)) for i in order[n:]]
        missed.append(np.mean([w.excess[s] > 1 for w, s in stops]))
        seconds.append(np.mean([w.seconds[s] for w, s in stops]))
        limits.append(limit)
        everyone.append(np.mean([w.excess[w.stop(limit)] > 1 for w in walks]))
    risk = float(np.mean(missed))
    test = len(walks) - n
    binomial = float(np.sqrt(risk * (1 - risk) / test))
    return Splits(
        alpha=promise.alpha,
        calibration=n,
        test=test,
        mean_risk=risk,
        sd=float(np.std(missed)),
        binomial_sd=binomial,
        explained_sd=float(np.hypot(binomial, np.std(everyone))),
        above=float(np.mean(np.array(missed) > promise.alpha)),
        mean_seconds=float(np.mean(seconds)),
        proven=float(np.mean([x is not None and np.isfinite(x) for x in limits])),
        misses_at_cap=float(np.mean([w.excess[-1] > 1 for w in walks])),
    )


def first_features(patients: Sequence[Trajectory], options: FitOptions, step: int = 3) -> Array:
    """Return (patient, feature) at an early step, slices all together."""
    return np.array([state_features(view_of(one, np.full(one.n_slices, step)), options.tolerance) for one in patients])


def main() -> None:
    """Print figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="of a study")
    parser.add_argument("--key", help="of the study in it, where there are several")
    parser.add_argument("--shifted", type=Path, action="append", default=[], help="folder of a shifted study")
    parser.add_argument("--splits", type=int, default=500)
    parser.add_argument("--out", type=Path, help="JSON file")
    parser.add_argument("--calibrate", help="name of a calibration to write into the package, instead")
    arguments = parser.parse_args()
    parts, options = parts_of(arguments.folder, arguments.key), FitOptions()
    predictors = fit_predictors(parts.fit, parts.cohort, options)
    if arguments.calibrate is not None:
        card = calibrate_rule(
            arguments.calibrate, predictors, parts.fit, parts.calibration, cohort=parts.cohort,
            protocol=parts.protocol, date=datetime.now(UTC).date().isoformat(), share=options.share,
            first=options.first,
        )  # fmt: skip
        FOLDER.mkdir(exist_ok=True)
        write_calibration(card, FOLDER / f"{card.name}.json")
        print(f"{card.promise()}. Missed: {card.misses} of {card.n_calibration}, {card.misses_at_cap} at the cap")
        return
    rule = uncalibrated_rule(predictors, parts.fit, share=options.share, first=options.first)
    others = [*parts.calibration, *parts.test]
    walks = [walk_rule(rule, one, first=options.first) for one in others]
    rows = [asdict(split_often(walks, Promise(alpha), splits=arguments.splits)) for alpha in (0.05, 0.10, 0.20)]
    found: dict[str, object] = {"synthetic": True, "fit": len(parts.fit), "splits": rows}
    assert rule.guard is not None
    limit = prove(walks, Promise())
    own = first_features(others, options)
    rng = np.random.default_rng(0)
    false = []
    for _ in range(200):
        order = rng.permutation(len(own))
        half = len(own) // 3
        false.append(cohort_shift(rule.guard, own[order[half:]], own[order[:half]]).fires())
    found["false_alarms_of_cohorts"] = float(np.mean(false))
    shifts = []
    for folder in arguments.shifted:
        strange = parts_of(folder)
        theirs = [*strange.fit, *strange.calibration, *strange.test]
        away = [walk_rule(rule, one, first=options.first) for one in theirs]
        features = first_features(theirs, options)
        size = min(len(theirs), max(10, len(theirs) // 2))
        draws = [rng.choice(len(theirs), size, replace=False) for _ in range(100)]
        shifts.append(
            {
                "study": folder.name, "patients": len(theirs), "cohorts_of": size,
                "fires": float(np.mean([cohort_shift(rule.guard, own, features[d]).fires() for d in draws])),
                "foremost": cohort_shift(rule.guard, own, features).foremost,
                "run_to_cap": float(np.mean([w.stop(limit) == len(w.scores) - 1 for w in away])),
                "risk": float(np.mean([w.excess[w.stop(limit)] > 1 for w in away])),
                "risk_at_cap": float(np.mean([w.excess[-1] > 1 for w in away])),
            }
        )  # fmt: skip
    found["shifted"] = shifts
    print(json.dumps(found, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
