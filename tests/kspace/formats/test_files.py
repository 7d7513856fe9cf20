from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kspace.errors import InputError
from kspace.formats.files import atomic_json, atomic_text, existing_file, one_line, written_beside


def test_file_appears_whole_and_keeps_its_suffixes(tmp_path, left):
    with written_beside(tmp_path / "a.nii.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("whole")
        assert not (tmp_path / "a.nii.gz").exists()
    assert (tmp_path / "a.nii.gz").read_text() == "whole"
    assert left() == ["a.nii.gz"]


def test_failure_leaves_the_old_file_and_nothing_beside(tmp_path, left):
    atomic_text(tmp_path / "a.txt", "old")

    def dies():
        with written_beside(tmp_path / "a.txt") as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        dies()
    assert (tmp_path / "a.txt").read_text() == "old"
    assert left() == ["a.txt"]


def test_missing_folder_is_refused(tmp_path, refused):
    with refused("does not exist", "Create it"):
        atomic_text(tmp_path / "no" / "a.txt", "")


def test_folder_in_place_of_the_file_is_refused(tmp_path, refused):
    with refused("is a folder"):
        atomic_text(tmp_path, "")


def test_folder_without_permission_is_refused(tmp_path, refused, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with refused("cannot be written"):
        atomic_text(tmp_path / "a.txt", "")


def test_full_disk_is_an_input_error(tmp_path, refused, left):
    with refused("could not be written", "No space"), written_beside(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    assert left() == []


def test_json_round_trip_and_no_nan(tmp_path):
    atomic_json(tmp_path / "a.json", {"ü": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"ü": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        atomic_json(tmp_path / "a.json", float("nan"))
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == {"ü": [1, None]}


def test_existing_file_names_what_it_wanted(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="expected a lamp"):
            existing_file(path, "a lamp")


def test_text_from_outside_becomes_one_short_line():
    assert one_line("a\n\x1b[31m b\t c") == "a [31m b c"
    assert len(one_line("x" * 10_000)) == 120
    assert isinstance(one_line(Path("a")), str)
