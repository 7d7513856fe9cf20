from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import cli
from kspace.errors import InputError, UsageError
from simulate.study.command import StudyOptions, study_command
from simulate.study.progress import StudyProgress, in_words
from simulate.study.store import Finished


def test_a_study_says_what_is_missing_and_goes_on(tmp_path: Path) -> None:
    said: list[str] = []
    changes = {"method": "pretend", "n_slices": 3, "frames": 6, "seconds": (1.0, 2.0, 12.0)}
    few = study_command(tmp_path, StudyOptions(changes=changes, patients=4), said.append)
    assert few["evaluation"] is None
    assert any("at least" in line for line in said)
    more = study_command(tmp_path, StudyOptions(changes=changes, patients=44, machado=True), said.append)
    assert (more["known"], more["computed"], more["patients"]) == (4, 40, 44)
    assert Path(more["page"]).is_file()
    assert (tmp_path / "calibration.json").is_file()
    again = study_command(tmp_path, StudyOptions(changes=changes, patients=0, machado=True), said.append)
    assert again["evaluation"] == more["evaluation"]
    assert again["published"] == more["published"]
    other = study_command(tmp_path, StudyOptions(patients=0, machado=True), said.append)
    assert other["key"] == more["key"]
    assert "other weights" in said[-2]


def test_patients_without_images_are_told_of(tmp_path: Path) -> None:
    said: list[str] = []
    changes = {"method": "pretend", "n_slices": 3, "frames": 6, "seconds": (1.0, 2.0)}
    kept = study_command(tmp_path, StudyOptions(changes=changes, patients=2, keep_images=True), said.append)
    assert kept["images"] == str(tmp_path / "images" / kept["key"])
    assert any(line.startswith("2 patients have no images") for line in said)
    assert "images" not in study_command(tmp_path, StudyOptions(changes=changes, patients=3), said.append)


def test_an_empty_folder_has_nothing_to_evaluate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no patients"):
        study_command(tmp_path, StudyOptions(patients=0), print)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (StudyOptions(changes={"frames": 1}), InputError),
        (StudyOptions(alpha=0.0), UsageError),
        (StudyOptions(changes={"seconds": (2.0, 1.0)}), InputError),
    ],
)
def test_nonsense_is_refused_before_anything_is_computed(
    tmp_path: Path, options: StudyOptions, error: type[Exception]
) -> None:
    with pytest.raises(error):
        study_command(tmp_path / "study", options, print)
    assert not (tmp_path / "study").exists()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["study", "--out", str(tmp_path), "--method", "pretend", "--patients", "3", "--steps", "1,2", "--json"]
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["patients"] == 3
    assert answer["synthetic"] is True
    assert answer["evaluation"] is None


@pytest.mark.parametrize("more", [["--preset", "other"], ["--steps", "one"], ["--snr", "5"], ["--slices", "1"]])
def test_wrong_usage_has_its_exit_code(tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["study", "--out", str(tmp_path / "study"), *more])
    assert end.value.code in (2, 3)
    assert "Traceback" not in capsys.readouterr().err


def test_time_left_is_not_foretold_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    from simulate.study import progress

    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    seen = StudyProgress(known=2, total=12)
    one = Finished(0, b"", 1.0, 100.0)
    seen.patient(one)
    assert "too early" in seen.left()
    for gap in (10.0, 20.0, 10.0, 20.0):
        now[0] += gap
        seen.patient(one)
    assert "left at the pace" in seen.left()
    low, high = (float(word) for word in re.findall(r"(\d+) s", seen.left()))
    assert low <= 5 * 12.5 <= high  # what is left, at the mean pace


@pytest.mark.parametrize(("seconds", "words"), [(12, "12 s"), (600, "10 min"), (7200, "2.0 h")])
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
