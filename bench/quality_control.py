"""How well quality control without a truth foretells the truth, on test patients of a stored study.

    python -m bench.quality_control STUDY_FOLDER [--key KEY] [--fit-all] [--out NAME.json]

Synthetic patients. Predictors are fitted on the study's fit patients; what is printed is measured on its test patients,
who had no part in it. Nothing is computed but what the stored trajectories hold.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.stored import parts_of
from kspace.quality.correction import fit_correction
from kspace.quality.features import CURVE_FEATURES, STATE_FEATURES
from kspace.quality.figures import auroc, correlation, expected_calibration_error
from kspace.quality.policies.path import Uniform
from kspace.quality.predictors import (
    DICES,
    ERRORS,
    FitOptions,
    Predictors,
    fit_predictors,
    mean_dice,
    slice_rows,
    state_rows,
)
from kspace.quality.trajectory import Array, Trajectory


def judge(predictors: Predictors, test: Sequence[Trajectory], options: FitOptions, seed: int = 0) -> dict[str, object]:
    """Return all figures; those with patients as units come with a 90 % interval of a bootstrap over patients."""
    rows = slice_rows(test, first=options.first)
    dice = mean_dice(rows)
    found: dict[str, object] = {"patients": len(test), "slices_at_steps": len(rows.patients)}
    known = np.isfinite(rows.truth["heart_nrmse"])
    found["heart_nrmse_r"] = correlation(np.exp(predictors.heart_nrmse(rows.features)), rows.truth["heart_nrmse"])
    found["heart_ssim_r"] = correlation(predictors.heart_ssim(rows.features), rows.truth["heart_ssim"])
    for name in DICES:
        found[f"{name}_r"] = correlation(predictors.dice[name](rows.features), rows.truth[name])
    predicted = np.mean([predictors.dice[name](rows.features) for name in DICES], axis=0)
    found["mean_dice_r"] = correlation(predicted, dice)
    for name, model, good, there in (
        ("image_good", predictors.image_good, rows.truth["heart_nrmse"] <= options.good.nrmse, known),
        ("segmentation_good", predictors.segmentation_good, dice >= options.good.dice, np.isfinite(dice)),
    ):
        said = model(rows.features)[there]
        found[name] = {
            "share": float(good[there].mean()), "auroc": auroc(said, good[there]),
            "ece": expected_calibration_error(said, good[there]),
        }  # fmt: skip
    states = state_rows(test, options.tolerance, [Uniform()], first=options.first)
    found["states"] = len(states.patients)
    for name in ERRORS:
        found[f"{name}_error_r"] = correlation(predictors.errors[name](states.features),
                                               np.log(states.errors(name) + 0.02))  # fmt: skip
    rules = states.features[:, [STATE_FEATURES.index(name) for name in CURVE_FEATURES]]
    within = states.errors("lv_ef_percent") <= options.tolerance.ef_points
    missed = options.tolerance.excess(states.found, states.reference) > 1
    for name, said, true in (
        ("ef_within", predictors.ef_within(states.features), within),
        ("ef_within_by_curve_rules", predictors.curve_rules(rules), within),
        ("missed", predictors.missed(states.features), missed),
    ):
        found[name] = {
            "share": float(true.mean()), "auroc": auroc(said, true),
            "auroc_90": _bootstrap(said, true, states.patients, seed),
            "ece": expected_calibration_error(said, true),
        }  # fmt: skip
    return found


def correction_table(patients: Sequence[Trajectory], options: FitOptions) -> list[dict[str, float]]:
    """Return by scan time how many patients miss as drawn and corrected, by fits without them; slices all together."""
    rows = state_rows(patients, options.tolerance, [Uniform()], first=options.first)
    _, better = fit_correction(rows.features, rows.found, rows.reference, rows.patients, options.tolerance)
    drawn, corrected = (options.tolerance.excess(x, rows.reference) > 1 for x in (rows.found, better))
    table = []
    for seconds in np.unique(rows.seconds):
        then = rows.seconds == seconds
        table.append(
            {
                "seconds": float(seconds), "patients": int(then.sum()), "missed": int(drawn[then].sum()),
                "missed_corrected": int(corrected[then].sum()),
            }
        )  # fmt: skip
    return table


def _bootstrap(said: Array, true: NDArray[Any], patients: NDArray[Any], seed: int, n: int = 500) -> list[float]:
    rng = np.random.default_rng(seed)
    where = [np.flatnonzero(patients == number) for number in np.unique(patients)]
    drawn = []
    for _ in range(n):
        rows = np.concatenate([where[i] for i in rng.integers(0, len(where), len(where))])
        drawn.append(auroc(said[rows], true[rows]))
    return [float(q) for q in np.nanquantile(drawn, (0.05, 0.95))]


def main() -> None:
    """Print figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="of a study")
    parser.add_argument("--key", help="of the study in it, where there are several")
    parser.add_argument("--fit-all", action="store_true", help="fit on the calibration patients, too")
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    parts = parts_of(arguments.folder, arguments.key)
    options = FitOptions()
    fitted_on = [*parts.fit, *parts.calibration] if arguments.fit_all else parts.fit
    predictors = fit_predictors(fitted_on, parts.cohort, options)
    found: dict[str, object] = {"synthetic": True, "fit": len(fitted_on), **judge(predictors, parts.test, options)}
    found["correction"] = correction_table([*parts.fit, *parts.calibration], options)
    print(json.dumps(found, indent=1))
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
