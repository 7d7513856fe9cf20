"""A table of virtual patients: who they are and their exact volumes. All synthetic."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from pathlib import Path

from kspace.errors import InputError
from simulate.patient.parameters import Group, Patient, Sex
from simulate.patient.population import draw_patient

COLUMNS = (
    "seed", "sex", "group", "age_years", "height_cm", "weight_kg", "bsa_m2", "heart_rate_bpm", "lv_edv_ml",
    "lv_esv_ml", "lv_sv_ml", "lv_ef_percent", "lv_mass_g", "rv_edv_ml", "rv_esv_ml", "rv_sv_ml", "rv_ef_percent",
)  # fmt: skip
"""Columns of the table; units are in their names."""


def cohort_row(patient: Patient) -> dict[str, str | int | float]:
    """Return one row of the table: :data:`COLUMNS` to values, exact for a regular beat."""
    left, right = patient.left, patient.right
    return {
        "seed": patient.seed,
        "sex": patient.sex.value,
        "group": patient.group.value,
        "age_years": patient.age_years,
        "height_cm": patient.height_cm,
        "weight_kg": patient.weight_kg,
        "bsa_m2": patient.bsa_m2,
        "heart_rate_bpm": patient.rhythm.heart_rate_bpm,
        "lv_edv_ml": left.edv_ml,
        "lv_esv_ml": left.edv_ml * (1 - left.ef),
        "lv_sv_ml": left.edv_ml * left.ef,
        "lv_ef_percent": 100 * left.ef,
        "lv_mass_g": left.mass_g,
        "rv_edv_ml": right.edv_ml,
        "rv_esv_ml": right.edv_ml * (1 - right.ef),
        "rv_sv_ml": right.edv_ml * right.ef,
        "rv_ef_percent": 100 * right.ef,
    }


def draw_cohort(
    seeds: Iterable[int], *, group: Group | None = None, sex: Sex | None = None, heart_rate_bpm: float | None = None
) -> Iterator[Patient]:
    """Yield the patient of each seed; the options are those of :func:`draw_patient`."""
    for seed in seeds:
        yield draw_patient(seed, group=group, sex=sex, heart_rate_bpm=heart_rate_bpm)


def write_cohort_table(patients: Iterable[Patient], path: str | Path) -> int:
    """Write a CSV with one row per patient and return how many there are.

    The file is written beside and renamed into place.

    Raises
    ------
    InputError
        When there is no patient, or the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {path.parent}", expected="a folder that exists")
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    count = 0
    for patient in patients:
        row = cohort_row(patient)
        table.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})
        count += 1
    if count == 0:
        raise InputError("there are no patients to write", expected="at least one")
    part = path.with_name(path.name + ".part")
    part.write_text(text.getvalue(), encoding="utf-8")
    part.replace(path)
    return count
