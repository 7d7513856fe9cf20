"""What learnt reconstruction does where it was not trained: ``python -m bench.survival --out FILE.jsonl``.

Middle slices of virtual test patients (synthetic), 2 s of a scan, as in ``bench.unrolled`` (160 pixels, 8 coils, SNR
30, 25 frames) and with one thing changed at a time; PSNR around the heart of compressed sensing and of the network. A
line per image is added to FILE, and a run that was broken off goes on. ``--table`` only prints.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bench.compressed_sensing import rows_of
from bench.regularisation import around_the_heart, moments
from kspace.metrics import psnr
from kspace.recon.methods import make_method
from simulate.body_scanner import BodyScanner, BodyScannerOptions
from simulate.patient.cardiac_cycle import timing
from simulate.patient.parameters import Group
from simulate.patient.population import draw_patient
from simulate.subject import draw_body
from simulate.training.dataset import Split, patient_seed
from simulate.vendors import VENDORS, vendor

SECONDS = 2.0
METHODS = ("cs", "llr", "unrolled")


@dataclass(frozen=True)
class Condition:
    """One way of scanning.

    Parameters
    ----------
    field
        Of view, over the vendor's, with as many pixels.
    n_coils, snr, n_frames, golden_order
        See :class:`~simulate.training.scans.Protocol`.
    """

    field: float = 1.0
    n_coils: int = 8
    snr: float = 30.0
    n_frames: int = 25
    golden_order: int = 1


CONDITIONS = {
    "usual": Condition(),
    "field of view 1.3 times": Condition(field=1.3),
    "4 coils": Condition(n_coils=4),
    "32 coils": Condition(n_coils=32),
    "SNR 15": Condition(snr=15),
    "SNR 60": Condition(snr=60),
    "12 frames": Condition(n_frames=12),
    "40 frames": Condition(n_frames=40),
    "tiny golden angle": Condition(golden_order=7),
}


def open_patient(index: int, condition: Condition, matrix: int) -> BodyScanner:
    """Put a test patient into the scanner, in the group and the style of ``bench.unrolled``."""
    group, style = list(Group)[index % len(Group)], vendor(list(VENDORS)[(index // 2) % len(VENDORS)])
    patient = draw_patient(patient_seed(index, Split.TEST), group=group)
    style = replace(style, field_of_view_mm=style.field_of_view_mm * condition.field)
    options = BodyScannerOptions(
        matrix=matrix, tr_s=style.tr_s, n_coils=condition.n_coils, snr=condition.snr,
        golden_order=condition.golden_order, seed=index,
    )  # fmt: skip
    return BodyScanner(
        draw_body(patient, style, matrix), options, rr_s=patient.rr_s,
        end_systole=timing(patient.rhythm).end_systole, description=f"virtual patient {patient.seed}",
    )  # fmt: skip


def measure(index: int, name: str, matrix: int, missing: list[str]) -> Iterator[dict[str, Any]]:
    """Yield a row per method."""
    condition = CONDITIONS[name]
    scanner = open_patient(index, condition, matrix)
    stream = scanner.open_slice(scanner.geometry.shape[0] // 2)
    truth = stream.truth(condition.n_frames)
    region = around_the_heart(stream.labels(condition.n_frames), scanner.geometry.spacing_mm[1])
    moment = next(moments(stream, [SECONDS], condition.n_frames))
    for method in missing:
        found = make_method(method)(moment.equations, moment.calibration.maps, noise_std=moment.noise_std)
        value = float(psnr(found.image.abs() * moment.calibration.shading, truth, region))
        yield {"patient": index, "condition": name, "matrix": matrix, "method": method, "heart_psnr_db": value}


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield Markdown: means over the patients that have all methods, and the smallest gain of any."""
    yield "| scan | patients | cs, dB | llr, dB | unrolled, dB | over cs | over llr |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name in CONDITIONS:
        by: dict[int, dict[str, float]] = {}
        for row in rows:
            if row["condition"] == name:
                by.setdefault(row["patient"], {})[row["method"]] = row["heart_psnr_db"]
        whole = [found for found in by.values() if len(found) == len(METHODS)]
        if not whole:
            continue
        cells = [f"{sum(found[m] for found in whole) / len(whole):.1f}" for m in METHODS]
        for other in METHODS[:-1]:
            gains = [found["unrolled"] - found[other] for found in whole]
            cells.append(f"{sum(gains) / len(gains):.2f} (least {min(gains):.2f})")
        yield f"| {name} | {len(whole)} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="file that one JSON line per image is added to")
    parser.add_argument("--patients", type=int, default=2)
    parser.add_argument("--matrix", type=int, default=160)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="only print what the file holds")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for index in range(0 if arguments.table else arguments.patients):
        for name in CONDITIONS:
            done = {(r["patient"], r["condition"], r["method"]) for r in rows_of(arguments.out)}
            missing = [method for method in METHODS if (index, name, method) not in done]
            if not missing:
                continue
            for row in measure(index, name, arguments.matrix, missing):
                with arguments.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(row, file=sys.stderr, flush=True)
    print("\n".join(table(rows_of(arguments.out))))


if __name__ == "__main__":
    main()
