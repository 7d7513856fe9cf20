from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from kspace.biomarkers import BIOMARKERS
from kspace.errors import InputError, UsageError
from kspace.formats.mrd import read_scan
from kspace.formats.nifti import read_cine
from kspace.quality.judge import Evidence, Score
from kspace.quality.stopping import FixedRule
from kspace.recon.gridding import Gridding
from kspace.scan import concatenate
from simulate.acquisition import LoopOptions, scan_slice
from simulate.output import (
    FILES,
    PAUSE_S,
    Interrupted,
    OneClock,
    ScanFolder,
    plain,
    require_free,
    require_other,
)
from simulate.run import ScanResult, run_scan
from simulate.scanner import ScannerOptions, SimulatedScanner
from simulate.source import Replay

OPTIONS = LoopOptions(step_s=0.4, n_frames=3, method=Gridding(), rule=FixedRule(0.8))
NAMES = sorted(name for name in FILES if name != "labels.nii.gz")


@pytest.fixture(scope="module")
def source(make_cine: Any) -> SimulatedScanner:
    return SimulatedScanner(make_cine(slices=3, rows=24, columns=28), ScannerOptions(n_coils=2, snr=40))


def scan(source: Any, out: Path, *, slices: Sequence[int] = (0, 1, 2), options: LoopOptions = OPTIONS, **more: Any):
    return run_scan(source, options, out, slices=slices, record_options={"snr": math.inf, "odd": math.nan}, **more)


@pytest.fixture(scope="module")
def finished(source: SimulatedScanner, tmp_path_factory: pytest.TempPathFactory) -> ScanResult:
    return scan(source, tmp_path_factory.mktemp("scan") / "deep" / "er", seed=5)


def strict(path: Path) -> dict[str, Any]:
    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is no JSON")

    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    return value


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_names_are_fixed(finished: ScanResult) -> None:
    assert names(finished.folder) == NAMES
    assert set(FILES) >= {"scan.json", "decisions.csv", "raw.h5", "recon.nii.gz", "report.html", "truth.nii.gz"}


def test_keys_that_others_read(finished: ScanResult) -> None:
    said = strict(finished.folder / "scan.json")
    assert said == json.loads(json.dumps(finished.summary)) or said["timings"] != finished.summary["timings"]
    assert set(said["biomarkers"]) == {
        *("lv_edv_ml", "lv_esv_ml", "lv_sv_ml", "lv_ef_percent", "lv_mass_g"),
        *("rv_edv_ml", "rv_esv_ml", "rv_ef_percent"),
    }
    for name in BIOMARKERS:
        value = said["biomarkers"][name]
        assert value is None or set(value) == {"value", "low", "high"}
        assert value is not None or said["biomarkers_missing"][name]
    for index, entry in enumerate(said["slices"]):
        assert entry["index"] == index
        assert entry["seconds"] == 0.8
        assert entry["spokes"] == 286
        assert entry["stopped"] is False
        assert entry["reason"] == "the fixed time is over"
    assert said["seed"] == 5
    assert said["options"] == {"snr": "inf", "odd": None}
    assert set(said["versions"]) == {"python", "spokewise", "torch", "numpy", "finufft"}
    assert said["timings"]["wall_s"] >= said["timings"]["reconstruction_s"] > 0
    assert said["interrupted"] is False
    assert said["error"] is None
    assert said["slices_zero_in_recon"] == []
    assert said["grid"]["frames"] == 3


def test_images_lie_where_the_source_lay(finished: ScanResult, source: SimulatedScanner) -> None:
    recon, truth = (read_cine(finished.folder / name) for name in ("recon.nii.gz", "truth.nii.gz"))
    assert recon.images.shape == truth.images.shape == (3, 3, 18, 21)
    np.testing.assert_allclose(recon.geometry.affine, source.geometry.affine, atol=1e-4)
    assert recon.slice_rr_s(0) == pytest.approx(0.8)
    for index, record in enumerate(finished.record.slices):
        torch.testing.assert_close(recon.images[index], record.image)
        torch.testing.assert_close(truth.images[index], record.truth)


def test_raw_data_are_all_spokes_of_all_slices_on_one_clock(finished: ScanResult, source: SimulatedScanner) -> None:
    raw = read_scan(finished.folder / "raw.h5")
    assert raw.n_spokes == 3 * 286
    assert raw.source == "a tiny heart"
    for index in range(3):
        one, expected = raw.select_slice(index), source.open_slice(index).acquire(0.8)
        assert torch.equal(one.samples, expected.samples)
        start = float(one.time_s[0])
        torch.testing.assert_close(one.time_s - start, expected.time_s, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.ecg_s - start, expected.ecg_s, atol=1e-5, rtol=0)
        assert start == pytest.approx(index * (PAUSE_S + float(expected.time_s[-1])), abs=1e-4)


def test_a_replay_of_the_raw_data_gives_the_same_images(finished: ScanResult) -> None:
    replayed = scan_slice(Replay(read_scan(finished.folder / "raw.h5")).open_slice(1), 1, OPTIONS, n_frames=3)
    expected = finished.record.slices[1].image
    assert float((replayed.image - expected).norm() / expected.norm()) < 1e-3
    assert replayed.truth is None


def test_decisions_are_one_row_per_step(finished: ScanResult) -> None:
    with (finished.folder / "decisions.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["slice"], row["seconds"], row["stop"]) for row in rows] == [
        (str(index), seconds, stop) for index in range(3) for seconds, stop in (("0.4", "no"), ("0.8", "yes"))
    ]
    assert rows[0]["prediction_error"] == ""
    assert 0 < float(rows[1]["prediction_error"]) < 2
    assert rows[1]["prediction_error_limit"] == "0.1"
    assert float(rows[1]["psnr_db"]) > 5


def test_some_slices_leave_the_others_zero(source: SimulatedScanner, tmp_path: Path) -> None:
    scan(source, tmp_path / "d", slices=[2])
    said = strict(tmp_path / "d" / "scan.json")
    assert said["slices_zero_in_recon"] == [0, 1]
    assert said["n_slices"] == 1
    images = read_cine(tmp_path / "d" / "recon.nii.gz").images
    assert float(images[:2].abs().max()) == 0 < float(images[2].abs().max())


def stop_at(index: int, count: int = 1) -> Any:
    def step(slice_index: int, record: Any) -> None:
        if slice_index == index and record.spokes > 150 * (count - 1):
            raise KeyboardInterrupt

    return step


def test_interruption_keeps_what_was_finished(source: SimulatedScanner, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="2 of 3 slices were finished and are kept in"):
        scan(source, tmp_path / "d", on_step=stop_at(2))
    assert names(tmp_path / "d") == NAMES
    said = strict(tmp_path / "d" / "scan.json")
    assert said["interrupted"] is True
    assert [entry["index"] for entry in said["slices"]] == [0, 1]
    assert said["slices_zero_in_recon"] == [2]
    raw = read_scan(tmp_path / "d" / "raw.h5")
    assert torch.bincount(raw.slices).tolist() == [286, 286, 143]
    assert float(read_cine(tmp_path / "d" / "recon.nii.gz").images[2].abs().max()) == 0
    rows = (tmp_path / "d" / "decisions.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 1 + 2 + 2 + 1


def test_interruption_before_a_slice_was_finished_keeps_the_spokes(source: SimulatedScanner, tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="0 of 3 slices"):
        scan(source, tmp_path / "d", on_step=stop_at(0))
    assert names(tmp_path / "d") == ["decisions.csv", "raw.h5", "report.html", "scan.json"]
    assert strict(tmp_path / "d" / "scan.json")["slices"] == []
    assert read_scan(tmp_path / "d" / "raw.h5").n_spokes == 143


def test_interruption_before_anything_was_measured_leaves_nothing(
    source: SimulatedScanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SimulatedScanner, "open_slice", interrupt)
    with pytest.raises(Interrupted, match="nothing had been measured"):
        scan(source, tmp_path / "a" / "b")
    assert names(tmp_path) == []


def failing(at: int) -> LoopOptions:
    made = 0

    class Fails:
        def __call__(self, evidence: Evidence) -> Sequence[Score]:
            if made > at:
                raise InputError("the judge fell ill", expected="a healthy judge")
            return ()

    def judges() -> Sequence[Any]:
        nonlocal made
        made += 1
        return [Fails()]

    return LoopOptions(step_s=0.4, n_frames=2, method=Gridding(), judges=judges, rule=FixedRule(0.8))


def test_failure_without_a_finished_slice_leaves_nothing_behind(source: SimulatedScanner, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the judge fell ill"):
        scan(source, tmp_path / "a" / "b", options=failing(0))
    assert names(tmp_path) == []
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="the judge fell ill"):
        scan(source, tmp_path / "empty", options=failing(0))
    assert names(tmp_path / "empty") == []


def test_failure_after_a_finished_slice_keeps_it_and_says_why(source: SimulatedScanner, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the judge fell ill"):
        scan(source, tmp_path / "d", options=failing(1))
    assert names(tmp_path / "d") == NAMES
    said = strict(tmp_path / "d" / "scan.json")
    assert said["error"] == "the judge fell ill; expected a healthy judge."
    assert said["interrupted"] is True
    assert len(said["slices"]) == 1


def test_every_finished_slice_is_safe_at_once(source: SimulatedScanner, tmp_path: Path) -> None:
    seen = []

    def look(record: Any) -> None:
        said = strict(tmp_path / "d" / "scan.json")
        images = read_cine(tmp_path / "d" / "recon.nii.gz").images
        seen.append((len(said["slices"]), int((images.abs().amax((1, 2, 3)) > 0).sum()), said["interrupted"]))

    scan(source, tmp_path / "d", on_slice=look)
    assert seen == [(1, 1, True), (2, 2, True), (3, 3, False)]


def test_a_folder_that_holds_something_is_refused_unless_it_may_be_replaced(
    source: SimulatedScanner, tmp_path: Path
) -> None:
    out = tmp_path / "d"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    (out / "also.txt").write_text("also mine")
    (out / "truth.nii.gz").write_text("old")
    with pytest.raises(InputError, match=r"not empty.*--overwrite"):
        scan(source, out, slices=[0])
    assert names(out) == ["also.txt", "mine.txt", "truth.nii.gz"]
    scan(source, out, slices=[0], overwrite=True)
    assert names(out) == sorted([*NAMES, "also.txt", "mine.txt"])
    assert (out / "mine.txt").read_text() == "mine"
    assert nib.load(out / "truth.nii.gz").shape == (21, 18, 3, 3)


def test_an_empty_folder_will_do(source: SimulatedScanner, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    scan(source, tmp_path / "d", slices=[1])
    assert names(tmp_path / "d") == NAMES


def test_a_folder_that_cannot_be_is_refused(source: SimulatedScanner, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a file")
    with pytest.raises(InputError, match="is a file"):
        scan(source, file)
    with pytest.raises(InputError, match="cannot be written"):
        scan(source, file / "below" / "it")
    assert names(tmp_path) == ["file"]
    assert file.read_text() == "a file"


def test_a_name_that_is_too_long_leaves_no_folder_behind(source: SimulatedScanner, tmp_path: Path) -> None:
    with pytest.raises((InputError, OSError)):
        scan(source, tmp_path / "short" / ("x" * 300))
    assert names(tmp_path) == []


def test_a_folder_whose_raw_data_cannot_be_opened_is_not_left(
    source: SimulatedScanner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("simulate.output.ScanWriter", full)
    with pytest.raises(OSError, match="No space"):
        ScanFolder(tmp_path / "a" / "b", source, slices=[0], options={})
    assert names(tmp_path) == []


def test_one_clock_puts_slices_after_each_other(source: SimulatedScanner) -> None:
    clock = OneClock(source.geometry)
    placed = []
    for index in (2, 0):
        stream = source.open_slice(index)
        placed += [clock.place(index, stream.acquire(0.2)) for _ in range(2)]
    whole = concatenate(placed)
    assert float(whole.time_s.diff().min()) > 0
    assert float(whole.time_s.diff().max()) == pytest.approx(PAUSE_S)
    assert whole.slices.unique().tolist() == [0, 2]
    assert whole.geometry.shape == source.geometry.shape


def test_plain_values_are_strict_json() -> None:
    value = plain({"a": [math.nan, math.inf, -math.inf, 1.5, (2, None)], 3: {"b": math.nan}})
    assert json.loads(json.dumps(value, allow_nan=False)) == {
        "a": [None, "inf", "-inf", 1.5, [2, None]],
        "3": {"b": None},
    }


def test_files_that_are_there_are_not_written_over(tmp_path: Path) -> None:
    require_free(tmp_path / "new", overwrite=False)
    (tmp_path / "old").touch()
    require_free(tmp_path / "old", overwrite=True)
    with pytest.raises(InputError, match=r"exists already.*--overwrite"):
        require_free(tmp_path / "old", overwrite=False)
    for overwrite in (True, False):
        with pytest.raises(InputError, match="is a folder"):
            require_free(tmp_path, overwrite=overwrite)


def test_a_source_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "raw.h5").touch()
    (tmp_path / "link.h5").symlink_to(tmp_path / "raw.h5")
    require_other(str(tmp_path / "raw.h5"), [tmp_path / "other.h5"])
    require_other("phantom", [tmp_path / "raw.h5"])
    with pytest.raises(UsageError, match="source itself"):
        require_other(str(tmp_path / "link.h5"), [tmp_path / "other.h5", tmp_path / "raw.h5"])
