import csv
from pathlib import Path

import pytest

from kspace.errors import InputError
from simulate.patient.cohort import COLUMNS, draw_cohort, write_cohort_table
from simulate.patient.parameters import Group


def test_the_table_has_a_row_per_patient_with_consistent_volumes(tmp_path: Path) -> None:
    path = tmp_path / "cohort.csv"
    assert write_cohort_table(draw_cohort(range(6), group=Group.NORMAL), path) == 6
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["seed"]) for row in rows] == list(range(6))
    assert set(rows[0]) == set(COLUMNS)
    for row in rows:
        edv, esv = float(row["lv_edv_ml"]), float(row["lv_esv_ml"])
        assert float(row["lv_ef_percent"]) == pytest.approx(100 * (1 - esv / edv), abs=0.2)
    assert list(tmp_path.iterdir()) == [path]


def test_an_empty_cohort_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no patients"):
        write_cohort_table([], tmp_path / "a.csv")
    with pytest.raises(InputError, match="folder"):
        write_cohort_table(draw_cohort([1]), tmp_path / "nowhere" / "a.csv")
    assert list(tmp_path.iterdir()) == []
