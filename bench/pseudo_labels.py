"""What quality control lets pass of labels that a network draws itself: ``python -m bench.pseudo_labels --out DIR``.

Stacks of virtual patients (synthetic, see :mod:`bench.heart_cohort`) are written to ``DIR/cines`` without their truth,
the first network of ``--weights`` draws them, and its volume curves are checked. The hidden truth then tells how good
the labels are that passed, and those that did not. The folder is gone on with; ``train_segment`` takes its ``cines`` as
``unlabelled``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.heart_cohort import Stack, stored_stack
from kspace.biomarkers import Measure, measure
from kspace.curve_problems import curve_problems
from kspace.formats.files import atomic_json
from kspace.formats.nifti import write_cine
from kspace.segment.scores import NAMES, dice
from kspace.segment.segmentation import FOREGROUND
from kspace.segment.segmenter import Segmenter
from kspace.volume_curves import VolumeCurves, volume_curves
from simulate.scan_heart import CineSegmenter
from simulate.training.dataset import Split


def checked(stack: Stack, segment: CineSegmenter) -> dict[str, Any]:
    """Return what is implausible about a stack's labels, and how far they are from the truth."""
    found = segment(stack.cine)
    curves = volume_curves(found.labels, found.geometry, found.positions)
    fraction, true = _ef(curves), _ef(volume_curves(stack.labels, stack.cine.geometry))
    return {
        "group": stack.patient.group.value,
        "vendor": stack.vendor,
        "problems": curve_problems(curves),
        "dice": {NAMES[s]: dice(found.labels, stack.labels, s) for s in FOREGROUND},
        "ef_error": None if fraction is None or true is None else fraction - true,
    }


def _ef(curves: VolumeCurves) -> float | None:
    """Return the LV ejection fraction in percent."""
    found = measure(curves).measures["lv_ef_percent"]
    return found.value if isinstance(found, Measure) else None


def table(records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield what passed and what did not."""
    yield "| labels | stacks | Dice LV | myocardium | RV | mean | worst stack | EF error, points |"
    yield "| --- |" + " --- |" * 7
    passed, failed = ([r for r in records if bool(r["problems"]) is bad] for bad in (False, True))
    for name, some in (("passed", passed), ("left out", failed), ("all", records)):
        if some:
            each = np.array([[r["dice"][key] for key in NAMES.values()] for r in some])
            cells = [f"{value:.3f}" for value in (*each.mean(0), each.mean(), each.mean(1).min())]
            error = np.mean([abs(r["ef_error"]) for r in some if r["ef_error"] is not None])
            yield f"| {name} | {len(some)} | " + " | ".join(cells) + f" | {error:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cohort", type=Path, default=Path("runs/heart-cohort"), help="folder of the drawn scans")
    parser.add_argument("--weights", type=Path, help="folder of other networks")
    parser.add_argument("--split", type=Split, default=Split.TRAIN)
    parser.add_argument("--patients", type=int, default=12)
    given = parser.parse_args()
    (given.out / "cines").mkdir(parents=True, exist_ok=True)
    records = []
    for index in range(given.patients):
        name = f"{given.split.value}-{index:04d}"
        path = given.out / f"{name}.json"
        if not path.exists():
            stack = stored_stack(given.cohort, given.split, index)
            write_cine(given.out / "cines" / f"{name}.nii.gz", stack.cine)
            atomic_json(path, checked(stack, Segmenter("augmentation", folder=given.weights)))
        records.append(json.loads(path.read_text()))
        print(name, records[-1]["group"], records[-1]["problems"], records[-1]["dice"], flush=True)
    print("\n".join(table(records)))


if __name__ == "__main__":
    main()
