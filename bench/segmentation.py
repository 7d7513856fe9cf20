"""Segmentation of hearts that the networks never saw: ``python -m bench.segmentation --out FILE.jsonl``.

Whole stacks of virtual test patients (synthetic, see :mod:`bench.heart_cohort`), clean and fully sampled, at full field
of view; ``--split validation`` for those that intervals are calibrated on, ``--rescan`` for a second scan of each.
``--data ../shared/data`` adds the Sunnybrook hearts as they come. One line a scan and way of looking; a file that is
there is gone on with. ``python -m bench.segmentation_tables FILE...`` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.heart_cohort import Stack, stored_stack
from kspace.biomarkers import BIOMARKERS, Measure, biomarkers, measure
from kspace.formats.nifti import read_labels
from kspace.formats.source import open_source
from kspace.scan import Cine
from kspace.segment.scores import NAMES, dice, flips, hd95_mm
from kspace.segment.segmentation import FOREGROUND, Segmentation, SlicePosition, Structure
from kspace.segment.segmenter import Segmenter
from kspace.segment.topology import betti_errors
from kspace.volume_curves import volume_curves
from simulate.training.dataset import Split
from simulate.training.heart_bank import position_of

BINS = 20
HEARTS = (("SC-HF-I-1", "dicom"), ("SC-HF-I-4", "cine.nii.gz"))
_AROUND = 10  # pixels around the heart in which confidence is looked at


@dataclass
class Reliability:
    """How often pixels of a confidence are right: counts, sums of confidence and of right ones, by confidence."""

    count: Tensor
    confidence: Tensor
    right: Tensor

    @classmethod
    def empty(cls) -> Reliability:
        return cls(*(torch.zeros(BINS, dtype=torch.float64) for _ in range(3)))

    def add(self, probabilities: Tensor, truth: Tensor) -> None:
        """Add a slice: (frame, 4, y, x) and (frame, y, x), in the box that holds the heart in either."""
        drawn = probabilities.argmax(1)
        there = torch.nonzero(((drawn > 0) | (truth > 0)).any(0))
        if not len(there):
            return
        low, high = (there.amin(0) - _AROUND).clamp_min(0).tolist(), (there.amax(0) + _AROUND + 1).tolist()
        box = (slice(None), slice(low[0], high[0]), slice(low[1], high[1]))
        sure = probabilities.amax(1)[box].double().flatten()
        right = (drawn == truth)[box].double().flatten()
        place = (sure * BINS).long().clamp(0, BINS - 1)
        for kept, values in ((self.count, torch.ones_like(sure)), (self.confidence, sure), (self.right, right)):
            kept.index_add_(0, place, values)

    def lists(self) -> list[list[float]]:
        return [self.count.tolist(), self.confidence.tolist(), self.right.tolist()]


def measured(stack: Stack, segmenter: Segmenter) -> dict[str, Any]:
    """Segment a scan and say all that the tables need."""
    reliability = Reliability.empty()
    before = time.perf_counter()
    found = segmenter(stack.cine, on_probabilities=lambda k, p: reliability.add(p, stack.labels[k]))
    seconds = time.perf_counter() - before
    truth = volume_curves(stack.labels, stack.cine.geometry)
    ed, es = truth.ed_frame, truth.es_frame
    assert ed is not None
    assert es is not None
    true_positions = [position_of(h, t) for h, t in zip(stack.heights, stack.labels, strict=True)]
    return {
        "seconds": seconds,
        "positions": [[int(t), int(p)] for t, p in zip(true_positions, found.positions, strict=True)],
        "overlap": _overlap(found.labels, stack.labels, true_positions),
        "dice": {NAMES[s]: [dice(found.labels[:, f], stack.labels[:, f], s) for f in (ed, es)] for s in FOREGROUND},
        "hd95_mm": {
            NAMES[s]: [
                hd95_mm(found.labels[:, f] == s, stack.labels[:, f] == s, stack.cine.geometry.spacing_mm)
                for f in (ed, es)
            ]
            for s in FOREGROUND
        },
        "flips": asdict(flips(found.labels, stack.labels)),
        "truth": _values(measure(truth)),
        "found": _intervals(found),
        "uncertainty": _uncertainty(found),
        "reliability": reliability.lists(),
        "betti": _betti(found.labels, true_positions),
    }


def _overlap(labels: Tensor, truth: Tensor, positions: Sequence[SlicePosition]) -> dict[str, dict[str, list[int]]]:
    """Return twice the shared and all pixels of each structure, over all frames of the slices at each position."""
    sums: dict[str, dict[str, list[int]]] = {}
    for place in SlicePosition:
        some = [k for k, position in enumerate(positions) if position is place]
        p, t = labels[some], truth[some]
        sums[place.word] = {
            NAMES[s]: [2 * int(((p == s) & (t == s)).sum()), int((p == s).sum() + (t == s).sum())] for s in FOREGROUND
        }
    return sums


def _values(found: Any) -> dict[str, float | None]:
    return {name: m.value if isinstance(m := found.measures[name], Measure) else None for name in BIOMARKERS}


def _intervals(found: Segmentation) -> dict[str, dict[str, float | None] | None]:
    return biomarkers(found).to_dict()


def _uncertainty(found: Segmentation) -> dict[str, float]:
    """Return label-free numbers of one scan: what a judge would have."""
    heart = found.labels > 0
    overlaps = [
        dice(a, b, s)
        for i, a in enumerate(found.samples)
        for b in found.samples[i + 1 :]
        for s in FOREGROUND
    ]  # fmt: skip
    overlaps = [value for value in overlaps if not math.isnan(value)]
    return {
        "entropy": float(found.entropy[heart].mean()) if bool(heart.any()) else math.nan,
        "flip_risk": float(found.flip_risk.nanmean()),
        "disagreement": 1 - sum(overlaps) / len(overlaps) if overlaps else math.nan,
    }


def _betti(labels: Tensor, positions: Sequence[SlicePosition]) -> list[int]:
    """Return the sum of Betti errors over all frames of middle slices, and how many images that were."""
    some = [k for k, position in enumerate(positions) if position is SlicePosition.MIDDLE]
    if not some:
        return [0, 0]
    errors = betti_errors(labels[some])
    return [int(errors.sum()), errors.numel()]


def real_heart(folder: Path, form: str, segmenter: Segmenter) -> dict[str, Any]:
    """Segment a Sunnybrook heart as it comes, and compare with its expert."""
    cine = open_source(str(folder / form))
    assert isinstance(cine, Cine)
    truth = read_labels(folder / "labels.nii.gz")
    expert = json.loads((folder / "expert.json").read_text())
    before = time.perf_counter()
    found = segmenter(cine)
    seconds = time.perf_counter() - before
    per_slice: dict[int, dict[str, list[int]]] = {}
    for k in range(cine.n_slices):
        frames = [f for f in range(cine.n_frames) if bool((truth[k, f] == Structure.LV).any())]
        if frames:
            sums = {}
            for s in (Structure.LV, Structure.MYOCARDIUM):
                drawn = [f for f in frames if bool((truth[k, f] == s).any())]
                p, t = found.labels[k, drawn] == s, truth[k, drawn] == s
                sums[NAMES[s]] = [2 * int((p & t).sum()), int(p.sum() + t.sum())]
            per_slice[k] = sums
    return {
        "seconds": seconds,
        "slices": per_slice,
        "positions": [p.word for p in found.positions],
        "found": _intervals(found),
        "expert": {name: expert[name] for name in ("lv_edv_ml", "lv_esv_ml", "lv_ef_percent")},
        "uncertainty": _uncertainty(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cohort", type=Path, default=Path("runs/heart-cohort"), help="folder of the drawn scans")
    parser.add_argument("--split", type=Split, default=Split.TEST)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--patients", type=int, default=50)
    parser.add_argument("--rescan", action="store_true")
    parser.add_argument("--ways", default="ensemble", help="ensemble, augmentation, dropout; or several with commas")
    parser.add_argument("--weights", type=Path, help="folder of other networks")
    parser.add_argument("--data", type=Path, help="adds the real hearts")
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if given.out.exists():
        done = {tuple(json.loads(line)["scan"]) for line in given.out.read_text().splitlines()}
    for way in given.ways.split(","):
        segmenter = Segmenter(way, folder=given.weights)
        if given.data is not None:
            for name, form in HEARTS:
                if ("real", name, False, way) not in done:
                    record = real_heart(given.data / "sunnybrook" / name, form, segmenter)
                    _append(given.out, {"scan": ["real", name, False, way], **record})
        for index in range(given.first, given.first + given.patients):
            scan = (given.split.value, index, given.rescan, way)
            if scan not in done:
                stack = stored_stack(given.cohort, given.split, index, rescan=given.rescan)
                who = stack.patient
                facts = {
                    "scan": list(scan), "group": who.group.value, "sex": who.sex.value, "vendor": stack.vendor,
                    "bsa_m2": who.bsa_m2,
                }  # fmt: skip
                _append(given.out, facts | measured(stack, segmenter))


def _append(path: Path, record: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(record["scan"], f"{record['seconds']:.1f} s", flush=True)


if __name__ == "__main__":
    main()
