"""Measure the virtual patient's labels against exact volumes, and their topology: ``python bench/anatomy.py``.

All patients are synthetic. Volumes are counted from labels at 1.4 mm isotropic; Betti numbers are those of Byrne,
Clough et al. (arXiv 2107.12689) on three slices of the middle third of the ventricle. Prints what docs/population.md
states.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from simulate.body import BodyState
from simulate.patient.anatomy import PatientBody
from simulate.patient.cardiac_cycle import timing
from simulate.patient.parameters import Group, Patient
from simulate.patient.placement import short_axis_geometry
from simulate.patient.population import draw_patient

EXPECTED = {"rv": (1, 0), "myo": (1, 1), "lv": (1, 0), "rv+myo": (1, 1), "rv+lv": (2, 0), "myo+lv": (1, 0)}
CELL_MM = 1.4


def betti(mask: np.ndarray) -> tuple[int, int]:
    """Return components (corners touch) and holes (corners do not) of a (y, x) mask."""
    _, parts = ndimage.label(mask, np.ones((3, 3)))
    _, outside = ndimage.label(~np.pad(mask, 1))
    return int(parts), int(outside) - 1


def topology_errors(patient: Patient, n_phases: int) -> tuple[int, int]:
    """Return in how many images a Betti number is wrong, and of how many."""
    first = 0.4 * patient.left.length_mm
    geometry = short_axis_geometry(
        patient, n_slices=3, first_mm=first, thickness_mm=8, gap_mm=0, rows=192, columns=192, pixel_mm=CELL_MM
    )
    body = PatientBody(patient, geometry)
    wrong = 0
    for phase in np.arange(n_phases) / n_phases:
        for index in range(3):
            labels = body.labels(index, BodyState(phase=float(phase))).numpy()
            masks = {"lv": labels == 1, "myo": labels == 2, "rv": labels == 3}
            wrong += any(
                betti(np.logical_or.reduce([masks[part] for part in name.split("+")])) != numbers
                for name, numbers in EXPECTED.items()
            )
    return wrong, 3 * n_phases


def volume_errors(patient: Patient) -> tuple[dict[str, float], float]:
    """Return the largest relative error of each structure over six phases, and the myocardium's variation."""
    patient = replace(patient, placement=replace(patient.placement, view_x_mm=0.0, view_y_mm=0.0))
    count = int((patient.left.length_mm + 48) / CELL_MM)
    geometry = short_axis_geometry(
        patient, n_slices=count, first_mm=-42.0, thickness_mm=CELL_MM, gap_mm=0.0, rows=128, columns=128,
        pixel_mm=CELL_MM,
    )  # fmt: skip
    body = PatientBody(patient, geometry, planes=1)
    worst = {"lv": 0.0, "myocardium": 0.0, "rv": 0.0}
    muscle = []
    for phase in (0.0, 0.15, timing(patient.rhythm).end_systole, 0.55, 0.75, 0.9):
        state = BodyState(phase=phase)
        labels = torch.stack([body.labels(index, state) for index in range(count)])
        counted = {name: float((labels == k).sum()) * CELL_MM**3 / 1e3 for k, name in enumerate(worst, start=1)}
        for name, exact in body.volumes_ml(state).items():
            worst[name] = max(worst[name], abs(counted[name] / exact - 1))
        muscle.append(counted["myocardium"])
    return worst, max(muscle) / min(muscle) - 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=200, help="for the topology")
    parser.add_argument("--volumes", type=int, default=20, help="patients for the volumes")
    parser.add_argument("--phases", type=int, default=12)
    arguments = parser.parse_args()
    groups = list(Group)
    wrong = total = 0
    for seed in range(arguments.patients):
        bad, images = topology_errors(draw_patient(seed, group=groups[seed % len(groups)]), arguments.phases)
        wrong, total = wrong + bad, total + images
    print(f"Betti numbers wrong in {wrong} of {total} images of {arguments.patients} patients")
    errors, variations = [], []
    for seed in range(arguments.volumes):
        worst, variation = volume_errors(draw_patient(seed, group=groups[seed % len(groups)]))
        errors.append(worst)
        variations.append(variation)
    for name in errors[0]:
        values = [100 * error[name] for error in errors]
        print(f"{name}: largest error {max(values):.2f} % (median over patients {np.median(values):.2f} %)")
    print(f"myocardium over the beat: at most {100 * max(variations):.2f} %, mean {100 * np.mean(variations):.2f} %")


if __name__ == "__main__":
    main()
