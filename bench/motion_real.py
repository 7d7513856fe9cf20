"""Corrupted spokes of real hearts: see :mod:`bench.motion`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from bench.motion import add_row, auroc, detection, rows_of
from kspace.coils import whiten
from kspace.formats.source import open_source
from kspace.motion.correct import correct
from kspace.motion.detector import distrust, plain_detector
from kspace.noise import noise_std
from kspace.scan import Cine, RadialScan
from simulate.corruption_cine import CINE_KINDS, scan_cine
from simulate.corruption_levels import SEVERITIES, Corruption
from simulate.scanner import ScannerOptions, SimulatedScanner

HEARTS = ("SC-HF-I-1", "SC-HF-I-4")
_SWAPPED = 10  # spokes exchanged between two frames of the perfusion scan


def run_real(out: Path, data: Path) -> None:
    """Measure what the file does not hold yet."""
    done = {(row.get("case"), row.get("kind"), row.get("severity")) for row in rows_of(out)}
    for seed, row in enumerate(perfusion(data)):
        if (row["case"], row["kind"], row["severity"]) not in done:
            add_row(out, row)
            print(seed, row, file=sys.stderr, flush=True)
    for name in HEARTS:
        cine = open_source(data / "sunnybrook" / name / "dicom")
        assert isinstance(cine, Cine)
        scanner = SimulatedScanner(cine, ScannerOptions(matrix=112, n_coils=6))
        index = cine.n_slices // 2
        for kind in ("clean", *CINE_KINDS):
            for severity in ("",) if kind == "clean" else SEVERITIES:
                if (name, kind, severity) in done:
                    continue
                scan = scan_cine(scanner, index, None if kind == "clean" else Corruption(kind, severity, 1))
                found = correct(scan.spokes, scan.frame, scan.n_frames, noise_std=1.0)
                label = scan.corruption.corrupted
                row = {"case": name, "kind": kind, "severity": severity, "share": float(label.double().mean())}
                row |= detection(found.probability, label)
                row["plain_auroc"] = auroc(plain_detector(found.examined.features), label)
                add_row(out, row)
                print(row, file=sys.stderr, flush=True)


def perfusion(data: Path) -> list[dict[str, Any]]:
    """Return rows of the real perfusion k-space: as it is, and with spokes of frames 1 and 7 exchanged, three ways."""
    scan = open_source(data / "radial" / "perfusion_golden_angle.h5")
    assert isinstance(scan, RadialScan)
    assert scan.frame is not None
    rows = []
    for seed in (None, 0, 1, 2):
        wrong, frame = torch.zeros(scan.n_spokes, dtype=torch.bool), scan.frame.clone()
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            ends = [torch.nonzero(scan.frame == number)[:, 0] for number in (0, int(scan.frame.max()))]
            for mine, other in zip(ends, reversed(ends), strict=True):
                chosen = mine[torch.randperm(len(mine), generator=generator)[:_SWAPPED]]
                frame[chosen], wrong[chosen] = scan.frame[other[0]], True
        spokes = whiten(replace(scan, frame=frame))
        found = distrust(spokes, frame, int(frame.max()) + 1, noise_std=noise_std(spokes))
        row: dict[str, Any] = {"case": "perfusion", "kind": "clean" if seed is None else "frames 1 and 7 swapped"}
        row |= {"severity": "" if seed is None else str(seed), "share": float(wrong.double().mean())}
        rows.append(row | detection(found.probability, wrong) | {
            "plain_auroc": auroc(plain_detector(found.examined.features), wrong)
        })  # fmt: skip
    return rows
