from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from kspace.errors import UsageError
from kspace.formats.mrd import read_scan
from kspace.formats.nifti import read_cine, read_labels
from simulate.body_scanner import BodyScanner
from simulate.opened import open_spokes, write_cohort
from simulate.patient.cohort import COLUMNS
from simulate.patient.parameters import Group, Patient
from simulate.spoke_truth import Truth
from simulate.subject import SubjectOptions
from simulate.to_file import files_beside, simulate_to_file

SMALL = {"matrix": 48, "n_coils": 2, "tr_s": 0.01}


@pytest.fixture(scope="module")
def scanner() -> BodyScanner:
    subject = SubjectOptions(group="infarct", heart_rate_bpm=75, breathing="drift:0.5", events=("shift@0.2:3,0,0",))
    source = open_spokes("phantom:11", SMALL, subject=subject)
    assert isinstance(source, BodyScanner)
    return source


def test_a_phantom_is_a_virtual_patient_and_says_so(scanner: BodyScanner) -> None:
    assert scanner.synthetic
    assert "virtual patient 11 (infarct" in scanner.description
    assert scanner.rr_s == pytest.approx(0.8)
    assert scanner.geometry.shape[1:] == (48, 48)
    assert min(scanner.body.geometry.shape[1:]) > 48


def test_without_a_word_the_patient_is_healthy_and_the_same_for_the_same_seed() -> None:
    assert SubjectOptions().patient(5).group is Group.NORMAL
    assert SubjectOptions().patient(5) == SubjectOptions().patient(5)
    assert SubjectOptions().patient(5) != SubjectOptions().patient(6)


def test_all_truth_lies_beside_the_spokes(scanner: BodyScanner, tmp_path: Path) -> None:
    out = tmp_path / "raw.h5"
    middle = scanner.geometry.shape[0] // 2
    answer = simulate_to_file(scanner, out, seconds=0.4, slices=[middle], n_frames=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "raw.h5", "raw.labels.nii.gz", "raw.patient.json", "raw.spokes.npz", "raw.truth.nii.gz",
    ]  # fmt: skip
    scan, truth = read_scan(out), Truth.read_npz(answer["spoke_truth"])
    assert scan.n_spokes == len(truth) == 40
    assert float(truth.shift_mm[0, 0]) == 0
    assert float(truth.shift_mm[-1, 0]) == pytest.approx(3)
    assert float(truth.breath_mm[-1]) == pytest.approx(0.5 * 0.39, abs=1e-6)
    labels, cine = read_labels(answer["labels"]), read_cine(Path(answer["truth"]))
    assert labels.shape == cine.images.shape
    assert set(torch.unique(labels[middle]).tolist()) == {0, 1, 2, 3}
    blood, wall = (float(cine.images[middle][labels[middle] == label].median()) for label in (1, 2))
    assert blood > 1.5 * wall
    record = json.loads(Path(answer["patient"]).read_text())
    assert Patient.from_dict(record["patient"]) == scanner.body.patient  # type: ignore[attr-defined]
    assert len(record["volumes_ml"]) == 3
    assert all(set(row) >= {"name", "value"} for row in record["parameters"])


def test_a_cohort_is_a_table_of_patients(tmp_path: Path) -> None:
    answer = write_cohort("phantom:100", 12, tmp_path / "c.csv", None)
    assert answer["patients"] == 12
    rows = (tmp_path / "c.csv").read_text().splitlines()
    assert rows[0] == ",".join(COLUMNS)
    assert [row.split(",")[0] for row in rows[1:]] == [str(seed) for seed in range(100, 112)]
    write_cohort("phantom", 5, tmp_path / "d.csv", SubjectOptions(group="dilated", sex="female"))
    table = np.loadtxt(tmp_path / "d.csv", delimiter=",", skiprows=1, dtype=str)
    assert set(table[:, 1]) == {"female"}
    assert set(table[:, 2]) == {"dilated"}


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"group": "healthy-ish"}, "--group"),
        ({"sex": "x"}, "--sex"),
        ({"vendor": "acme"}, "vendor"),
        ({"breathing": "gasping"}, "breathe"),
        ({"events": ("quake@3",)}, "quake"),
    ],
)
def test_a_patient_that_cannot_be_is_refused(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        open_spokes("phantom:1", SMALL, subject=SubjectOptions(**options))  # type: ignore[arg-type]


def test_a_patient_does_not_go_with_a_file(tmp_path: Path) -> None:
    from kspace.formats.nifti import write_cine
    from kspace.scan import Cine, Geometry

    write_cine(tmp_path / "c.nii.gz", Cine(torch.ones(1, 2, 32, 32), Geometry.from_spacing((1, 32, 32), (8, 2, 2))))
    with pytest.raises(UsageError, match="virtual patient"):
        open_spokes(str(tmp_path / "c.nii.gz"), {}, subject=SubjectOptions(sex="male"))


def test_files_lie_beside_whatever_the_suffix() -> None:
    assert files_beside(Path("a/raw.h5"), patient=False) == {"truth": Path("a/raw.truth.nii.gz")}
    assert files_beside(Path("raw.v2"), patient=True)["spoke_truth"] == Path("raw.v2.spokes.npz")
