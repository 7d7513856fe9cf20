"""Volumes of a thousand normal virtual patients and of each disease group: ``python bench/population.py``.

Draws parameters only, which are the exact volumes of the hearts that are drawn from them, and prints the two Markdown
tables of docs/population.md. All patients are synthetic.
"""

from __future__ import annotations

import argparse

import numpy as np

from simulate.patient.parameters import Group, Patient, Sex
from simulate.patient.population import REFERENCE, draw_patient

NAMES = {
    "lv_edv_ml": "LVEDV, mL",
    "lv_ef": "LVEF, %",
    "lv_mass_g": "LV mass, g",
    "rv_edv_ml": "RVEDV, mL",
    "rv_ef": "RVEF, %",
}
"""What is measured, and its unit."""


def values_of(patient: Patient) -> list[float]:
    """Return the values of :data:`NAMES`, ejection fractions as shares."""
    left, right = patient.left, patient.right
    return [left.edv_ml, left.ef, left.mass_g, right.edv_ml, right.ef]


def cell(name: str, mean: float, sd: float) -> str:
    """Return mean and standard deviation as the table shows them."""
    scale, digits = (100, 1) if name.endswith("_ef") else (1, 0)
    return f"{mean * scale:.{digits}f} ({sd * scale:.{digits}f})"


def normal_table(count: int) -> str:
    """Return the table of ``count`` normal patients of each sex beside the reference."""
    sexes = list(Sex)
    head = [f"{sex.value}, {kind}" for sex in sexes for kind in (f"{count} simulated", "reference")]
    lines = ["| mean (SD) | " + " | ".join(head) + " |", "| --- |" + " --- |" * len(head)]
    drawn = {
        sex: np.array([values_of(draw_patient(seed, group=Group.NORMAL, sex=sex)) for seed in range(count)])
        for sex in sexes
    }
    for column, (name, title) in enumerate(NAMES.items()):
        cells = []
        for sex in sexes:
            values = drawn[sex][:, column]
            cells += [cell(name, float(values.mean()), float(values.std(ddof=1))), cell(name, *REFERENCE[sex][name])]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def group_table(count: int) -> str:
    """Return the table of ``count`` patients of each group, sexes as they are drawn."""
    lines = ["| mean (SD) | " + " | ".join(NAMES.values()) + " |", "| --- |" + " --- |" * len(NAMES)]
    for group in Group:
        values = np.array([values_of(draw_patient(seed, group=group)) for seed in range(count)])
        cells = [
            cell(name, float(column.mean()), float(column.std(ddof=1)))
            for name, column in zip(NAMES, values.T, strict=True)
        ]
        lines.append(f"| {group.value.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Draw, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patients", type=int, default=500, help="normal patients of each sex")
    parser.add_argument("--of-group", type=int, default=200, help="patients of each group")
    arguments = parser.parse_args()
    print(normal_table(arguments.patients))
    print()
    print(group_table(arguments.of_group))


if __name__ == "__main__":
    main()
