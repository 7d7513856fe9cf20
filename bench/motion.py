"""Corrupted spokes, found and mended: ``python -m bench.motion --out FILE.jsonl [--patients N] [--data DIR]``.

Virtual patients of the test split (synthetic), one slice each, 4 s of 112 pixels, 6 coils, SNR 30, 20 phases; clean and
with ten kinds of corruption at three severities (``simulate/corruption_levels.py``). Of each scan: how well the
shipped network and the plain rules tell corrupted spokes (AUROC, precision, recall, calibration error), and PSNR and
SSIM around the heart of CG-SENSE from all spokes (none), with Huber weights (robust), with what
:func:`kspace.motion.correct.correct` makes of them (ours) and from the sound spokes alone (oracle). With ``--data
../shared/data`` also the real hearts: spokes simulated from the Sunnybrook cines, and the real perfusion k-space.

A line per scan is added to FILE; a run that was broken off goes on. ``--table`` only prints. ``--part I/N`` shares the
work, ``--severities`` and ``--kinds`` restrict it, ``--detect`` leaves reconstruction out.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from scipy.stats import rankdata
from torch import Tensor

from bench.regularisation import around_the_heart
from kspace.equations import NormalEquations
from kspace.metrics import psnr, ssim
from kspace.motion.correct import Corrected, correct
from kspace.motion.detector import FLAGGED, plain_detector
from kspace.motion.robust import huber_trust
from kspace.recon.cg_sense import CgSense
from kspace.scan import RadialScan
from simulate.calibration import calibrate
from simulate.corrupted_scans import CorruptedScan, PatientSetting, StudyPatient
from simulate.corruption_levels import KINDS, SEVERITIES, Corruption
from simulate.training.dataset import Split

METHODS = ("none", "robust", "ours", "oracle")
_CG = CgSense(max_iterations=25)
_BINS = 10


def auroc(score: Tensor, label: Tensor) -> float:
    """Return the area under the receiver operating characteristic; NaN where there is only one class."""
    positive, negative = int(label.sum()), int((~label).sum())
    if not positive or not negative:
        return math.nan
    ranks = torch.from_numpy(rankdata(score.double().numpy()))
    return float((ranks[label].sum() - positive * (positive + 1) / 2) / (positive * negative))


def calibration_error(probability: Tensor, label: Tensor) -> float:
    """Return the expected calibration error over ten bins of equal width."""
    bins = (probability * _BINS).long().clamp(0, _BINS - 1)
    error = 0.0
    for number in torch.unique(bins).tolist():
        mine = bins == number
        gap = abs(float(probability[mine].mean()) - float(label[mine].double().mean()))
        error += gap * float(mine.double().mean())
    return error


def detection(probability: Tensor, label: Tensor) -> dict[str, float]:
    """Return how well a probability tells corrupted spokes."""
    flagged = probability >= FLAGGED
    hits = int((flagged & label).sum())
    return {
        "auroc": auroc(probability, label),
        "precision": hits / int(flagged.sum()) if bool(flagged.any()) else math.nan,
        "recall": hits / int(label.sum()) if bool(label.any()) else math.nan,
        "calibration": calibration_error(probability, label),
        "flagged": float(flagged.double().mean()),
    }


def magnitude(spokes: RadialScan, frame: Tensor, trust: Tensor | None, n_frames: int, whitening: Tensor) -> Tensor:
    """Return (frame, y, x) of CG-SENSE in the unit of the received signal."""
    sums = NormalEquations(spokes.matrix, n_frames, spokes.n_coils, accuracy="fast")
    sums.add(spokes.samples, spokes.positions, frame, trust)
    calibration = calibrate(sums, whitening)
    return _CG(sums, calibration.maps, noise_std=1.0).image.abs() * calibration.shading


def qualities(scan: CorruptedScan, found: Corrected, truth: Tensor, region: Tensor) -> dict[str, float]:
    """Return PSNR and SSIM around the heart by each method."""
    n, w = scan.n_frames, scan.whitening
    robust = huber_trust(scan.spokes, scan.frame, n, noise_std=1.0)
    images = {
        "none": magnitude(scan.spokes, scan.frame, None, n, w),
        "robust": magnitude(scan.spokes, scan.frame, robust, n, w),
        "ours": magnitude(found.spokes, found.frame, found.trust, n, w),
        "oracle": magnitude(scan.spokes, scan.frame, (~scan.corruption.corrupted).float(), n, w),
    }
    row = {}
    for name, image in images.items():
        row[f"psnr_{name}"] = float(psnr(image, truth, region))
        row[f"ssim_{name}"] = float(ssim(image, truth, region))
    return row


def run_patients(out: Path, patients: Sequence[int], jobs: Sequence[tuple[str, str]], *, images: bool) -> None:
    """Measure what the file does not hold yet."""
    for index in patients:
        done = {(row["kind"], row["severity"]) for row in rows_of(out) if row.get("patient") == index}
        missing = [job for job in jobs if job not in done]
        if not missing:
            continue
        patient = StudyPatient(index, Split.TEST, PatientSetting())
        truth = patient.slice.truth(patient.setting.n_frames)
        labels = patient.slice.labels(patient.setting.n_frames)
        region = around_the_heart(labels, patient.scanner.geometry.spacing_mm[1])
        for kind, severity in missing:
            corruptions = () if kind == "clean" else (Corruption(kind, severity, index),)
            scan = patient.scan(corruptions)
            began = time.process_time()
            found = correct(scan.spokes, scan.frame, scan.n_frames, noise_std=1.0)
            cpu_s = time.process_time() - began
            label = scan.corruption.corrupted
            row: dict[str, Any] = {"patient": index, "kind": kind, "severity": severity, "cpu_s": cpu_s}
            row |= {"share": float(label.double().mean()), **detection(found.probability, label)}
            row["plain_auroc"] = auroc(plain_detector(found.examined.features), label)
            if images:
                row |= qualities(scan, found, truth, region)
            add_row(out, row)
            told = " ".join(f"{key} {value:.3f}" for key, value in row.items() if isinstance(value, float))
            print(index, kind, severity, told, file=sys.stderr, flush=True)


def rows_of(out: Path) -> list[dict[str, Any]]:
    """Return what was measured."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def add_row(out: Path, row: dict[str, Any]) -> None:
    """Add a line."""
    with out.open("a") as file:
        file.write(json.dumps(row) + "\n")


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield Markdown: means over patients."""
    yield "| corruption | scans | corrupted | AUROC | plain rules | precision | recall | calibration error | PSNR none / robust / ours / oracle, dB | SSIM |"  # noqa: E501
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    for kind in ("clean", *KINDS):
        for severity in ("",) if kind == "clean" else SEVERITIES:
            mine = [row for row in rows if row.get("kind") == kind and row["severity"] == severity]
            if not mine:
                continue
            cells = [
                f"{severity} {kind}".strip(), str(len(mine)), f"{100 * mean(mine, 'share'):.0f} %",
                *(f"{mean(mine, key):.3f}" for key in ("auroc", "plain_auroc", "precision", "recall", "calibration")),
                " / ".join(f"{mean(mine, f'psnr_{name}'):.1f}" for name in METHODS),
                " / ".join(f"{mean(mine, f'ssim_{name}'):.3f}" for name in METHODS),
            ]  # fmt: skip
            yield "| " + " | ".join(cells).replace("nan", "-") + " |"
    clean = [row for row in rows if row.get("kind") == "clean"]
    if clean:
        most = max(row["flagged"] for row in clean)
        yield f"\nclean: {100 * mean(clean, 'flagged'):.2f} % flagged, at most {100 * most:.2f} %"


def mean(rows: list[dict[str, Any]], key: str) -> float:
    """Return the mean of what is a number."""
    values = [row[key] for row in rows if key in row and not math.isnan(row[key])]
    return statistics.fmean(values) if values else math.nan


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file that one JSON line per scan is added to")
    parser.add_argument("--patients", type=int, default=30)
    parser.add_argument("--part", default="0/1", help="I/N: only every N-th patient, from the I-th")
    parser.add_argument("--kinds", default=",".join(("clean", *KINDS)))
    parser.add_argument("--severities", default=",".join(SEVERITIES))
    parser.add_argument("--detect", action="store_true", help="no images")
    parser.add_argument("--data", type=Path, help="folder of the real cines and k-space; does nothing else")
    parser.add_argument("--table", action="store_true", help="only print what the file holds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    first, every = (int(text) for text in arguments.part.split("/"))
    jobs = [
        (kind, severity)
        for kind in arguments.kinds.split(",")
        for severity in (("",) if kind == "clean" else arguments.severities.split(","))
    ]
    if arguments.data is not None and not arguments.table:
        from bench.motion_real import run_real

        run_real(arguments.out, arguments.data)
    elif not arguments.table:
        run_patients(arguments.out, range(first, arguments.patients, every), jobs, images=not arguments.detect)
    print("\n".join(table(rows_of(arguments.out))))


if __name__ == "__main__":
    main()
