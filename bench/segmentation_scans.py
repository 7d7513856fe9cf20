"""Segmentation after 1, 2, 4, 8 and 12 s of scanning: ``python -m bench.segmentation_scans --out FILE.jsonl``.

One slice of each virtual test patient (synthetic): base, middle and apex take turns, and so do groups and styles; 8
coils, SNR 30, unrolled reconstruction. Each slice is segmented alone, without its neighbours, as during a scan.
``--table`` prints what a file holds.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from bench.heart_cohort import group_of
from kspace.formats.files import written_beside
from kspace.recon.unrolled import Unrolled
from kspace.scan import Cine, Geometry
from kspace.segment.scores import NAMES
from kspace.segment.segmentation import FOREGROUND
from kspace.segment.segmenter import Segmenter
from simulate.patient.placement import short_axis_like, stack_affine
from simulate.patient.population import draw_patient
from simulate.training.dataset import Split, patient_seed
from simulate.training.scans import Protocol, simulated_scans
from simulate.vendors import VENDORS

SECONDS = (1.0, 2.0, 4.0, 8.0, 12.0)
PLACES = {"base": 0.2, "middle": 0.5, "apex": 0.8}
MATRIX, FRAMES = 160, 16


@dataclass(frozen=True)
class Scan:
    """One slice at several times: images (time, frame, y, x), labels (frame, y, x), pixel in mm and where it lies."""

    images: Tensor
    labels: Tensor
    geometry: Geometry
    place: str


def scan_of(folder: Path, index: int) -> Scan:
    """Return a test patient's scan, drawn and reconstructed when the folder does not hold it."""
    place, style = list(PLACES)[index % len(PLACES)], VENDORS[list(VENDORS)[(index // 3) % len(VENDORS)]]
    group, seed = group_of(index), patient_seed(index, Split.TEST)
    patient = draw_patient(seed, group=group)
    stack = short_axis_like(patient, style.geometry)
    affine = stack_affine(patient, stack)
    depth = (affine[2, 2] * np.arange(stack.shape[0]) + affine[2, 3]) / patient.left.length_mm
    chosen = int(np.abs(depth - PLACES[place]).argmin())
    geometry = stack.with_matrix(MATRIX, MATRIX).select_slices([chosen])
    path = folder / f"scan-{index:04d}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        protocol = Protocol(style.name, group, chosen, MATRIX, 8, 30.0, 1, FRAMES, SECONDS)
        scans = list(simulated_scans(seed, protocol, Unrolled()))
        tensors = {
            "images": torch.stack([s.start.abs() * s.shading for s in scans]).half(), "labels": scans[0].labels
        }  # fmt: skip
        with written_beside(path) as temporary:
            save_file({k: v.contiguous() for k, v in tensors.items()}, temporary)
    stored = load_file(path)
    return Scan(stored["images"].float(), stored["labels"], geometry, place)


def measured(scan: Scan, segmenter: Segmenter) -> Iterator[dict[str, Any]]:
    """Yield overlaps and areas at each time."""
    area = scan.geometry.spacing_mm[1] * scan.geometry.spacing_mm[2]
    for seconds, images in zip(SECONDS, scan.images, strict=True):
        found = segmenter(Cine(images[None], scan.geometry)).labels[0]
        sums, areas = {}, {}
        for s in FOREGROUND:
            p, t = found == s, scan.labels == s
            sums[NAMES[s]] = [2 * int((p & t).sum()), int(p.sum() + t.sum())]
            areas[NAMES[s]] = [(a.sum((-2, -1)) * area).tolist() for a in (p, t)]
        yield {"seconds": seconds, "place": scan.place, "overlap": sums, "areas_mm2": areas}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| after | slices | Dice LV | myocardium | RV | LV area, change over the beat: mean absolute error, points |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for seconds in SECONDS:
        for place in ("all", *PLACES):
            some = [r for r in rows if r["seconds"] == seconds and place in ("all", r["place"])]
            if not some:
                continue
            cells = []
            for s in NAMES.values():
                scores = [r["overlap"][s][0] / r["overlap"][s][1] for r in some if r["overlap"][s][1]]
                cells.append(f"{np.mean(scores):.3f}")
            off = []
            for r in some:
                found, true = (np.array(a) for a in r["areas_mm2"]["lv"])
                if true.max() > 0:
                    off.append(100 * abs(_change(found) - _change(true)))
            yield f"| {seconds:g} s | {place}, {len(some)} | " + " | ".join(cells) + f" | {np.mean(off):.1f} |"


def _change(areas: np.ndarray) -> float:
    """Return (largest - smallest) / largest: the ejection fraction of a slice; 0 where nothing was found."""
    return float((areas.max() - areas.min()) / areas.max()) if areas.max() > 0 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scans", type=Path, default=Path("runs/segmentation-scans"), help="folder of the scans")
    parser.add_argument("--patients", type=int, default=50)
    parser.add_argument("--only-scan", action="store_true", help="scan and reconstruct, and segment later")
    parser.add_argument("--weights", type=Path, help="folder of other networks")
    parser.add_argument("--table", action="store_true")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    done = {row["patient"] for row in rows}
    for index in range(0 if given.table else given.patients):
        if index in done:
            continue
        before = time.perf_counter()
        scan = scan_of(given.scans, index)
        print(index, scan.place, f"{time.perf_counter() - before:.0f} s", flush=True)
        if not given.only_scan:
            new = [{"patient": index, **row} for row in measured(scan, Segmenter(folder=given.weights))]
            with given.out.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
            rows += new
    for line in table(rows):
        print(line)


if __name__ == "__main__":
    main()
