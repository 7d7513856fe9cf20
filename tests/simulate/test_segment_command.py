from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kspace.biomarkers import BIOMARKERS
from kspace.errors import InputError, ShapeError, UsageError
from kspace.formats.nifti import read_cine, read_labels, write_cine, write_labels
from kspace.scan import Cine
from kspace.segment.conventions import from_spokewise
from kspace.segment.segmentation import Segmentation
from simulate.segment_command import SegmentOptions, files_beside, segment_command
from simulate.segment_movie import movie_suffix
from simulate.segment_text import segment_text

Segment = Callable[..., Segmentation]
NAMES = sorted(["out.nii.gz", "out.json", f"out{movie_suffix()}", "out.svg"])


@pytest.fixture
def cine(make_cine: Any) -> Cine:
    made: Cine = make_cine(slices=5, frames=16)
    return made


@pytest.fixture
def source(cine: Cine, tmp_path: Path) -> str:
    (tmp_path / "in").mkdir()
    write_cine(tmp_path / "in" / "cine.nii.gz", cine)
    return str(tmp_path / "in" / "cine.nii.gz")


@pytest.fixture
def segment(segment_cine: Any) -> Segment:
    def made(cine: Cine, *, on_slice: Any = None) -> Segmentation:
        if on_slice is not None:
            for index in range(cine.n_slices):
                on_slice(index + 1, cine.n_slices)
        drawn: Segmentation = segment_cine(cine)
        return drawn

    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there" / "out.nii.gz"


def left(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir())


def test_labels_record_movie_and_plot_are_left(source: str, out: Path, segment: Segment, cine: Cine) -> None:
    answer = segment_command(source, out, segment, SegmentOptions(), weights=["a-network (0123456789ab)"])
    assert left(out) == NAMES
    assert answer == json.loads(out.with_name("out.json").read_text(encoding="utf-8"))
    expected = segment(cine).labels
    assert torch.equal(read_labels(out), expected)
    np.testing.assert_allclose(read_cine(out).geometry.affine, cine.geometry.affine, atol=1e-4)
    assert set(answer["biomarkers"]) == set(BIOMARKERS)
    assert answer["biomarkers"]["lv_edv_ml"]["low"] < answer["biomarkers"]["lv_edv_ml"]["value"]
    assert [entry["position"] for entry in answer["slices"]] == ["middle"] * 5
    assert answer["slices"][0]["probabilities"]["middle"] == 1
    assert answer["slices"][0]["flip_risk_nats"] == pytest.approx(0.1)
    assert len(answer["curves"]["rv"]["value"]) == len(answer["curves"]["rv"]["high"]) == 16
    assert answer["beat"]["lv_peak_filling_ml_s"]["value"] > 0
    assert answer["weights"] == ["a-network (0123456789ab)"]
    assert answer["options"]["source"] == "cine.nii.gz"
    assert answer["grid"]["rr_s"] == pytest.approx(0.8)
    assert "scores" not in answer


def test_the_folder_of_a_scan_is_a_source(source: str, out: Path, segment: Segment, cine: Cine) -> None:
    images = cine.images.clone()
    images[[0, 4]] = 0  # which were not scanned
    write_cine(Path(source).with_name("recon.nii.gz"), replace(cine, images=images))
    answer = segment_command(str(Path(source).parent), out, segment, SegmentOptions())
    assert answer["slices_not_segmented"] == [0, 4]
    assert not bool(read_labels(out)[[0, 4]].any())
    assert [entry["index"] for entry in answer["slices"]] == [1, 2, 3]


def test_chosen_slices_lie_on_the_whole_grid(source: str, out: Path, segment: Segment) -> None:
    answer = segment_command(source, out, segment, SegmentOptions(slices="2"))
    labels = read_labels(out)
    assert labels.shape[0] == 5
    assert bool(labels[2].any())
    assert not bool(labels[[0, 1, 3, 4]].any())
    assert answer["biomarkers"]["lv_edv_ml"] is None
    assert answer["biomarkers_missing"]["lv_edv_ml"] == "one slice has areas and no volumes"
    assert answer["curves"]["unit"] == "cm2"
    assert "one slice has areas" in segment_text(answer)


def test_a_truth_of_another_convention_is_scored(
    source: str, out: Path, segment: Segment, cine: Cine, tmp_path: Path
) -> None:
    truth = segment(cine).labels.roll(1, -1)
    truth[:, 1:] = 0
    write_labels(tmp_path / "truth.nii.gz", from_spokewise(truth, "acdc"), cine.geometry)
    options = SegmentOptions(labels=tmp_path / "truth.nii.gz", convention="acdc")
    answer = segment_command(source, out, segment, options)
    scores = answer["scores"]["structures"]
    assert set(scores) == {"lv", "myocardium", "rv"}
    assert scores["lv"]["frames"] == [0]
    assert 0.8 < scores["lv"]["dice"][0] < 1
    assert answer["scores"]["errors"]["lv_ef_percent"] is None  # one phase has no ejection fraction
    text = segment_text(answer)
    assert "HD95 mm" in text
    assert "correct" in text


def test_an_assumed_beat_gives_no_rates_and_a_given_one_does(
    source: str, out: Path, segment: Segment, cine: Cine
) -> None:
    import nibabel as nib

    image: Any = nib.load(source)  # type: ignore[attr-defined]
    image.header.set_xyzt_units("mm")  # of what unit the time step is, is not said
    nib.save(image, source)  # type: ignore[attr-defined]
    answer = segment_command(source, out, segment, SegmentOptions())
    assert answer["beat"]["lv_peak_filling_ml_s"] is None
    assert answer["grid"]["rr_s"] is None
    answer = segment_command(source, out, segment, SegmentOptions(rr_s=0.9, overwrite=True))
    assert answer["beat"]["lv_peak_filling_ml_s"]["value"] > 0
    assert read_cine(out).slice_rr_s(0) == pytest.approx(0.9)


def refuse(*_: object, **__: object) -> Segmentation:
    raise AssertionError("nothing should have been segmented")


def test_what_cannot_be_used_is_refused_before_work_starts(source: str, out: Path, cine: Cine, tmp_path: Path) -> None:
    def run(error: type[Exception], match: str, source: str = source, out: Path = out, **options: Any) -> None:
        with pytest.raises(error, match=match):
            segment_command(source, out, refuse, SegmentOptions(**options))
        assert left(out) == []

    run(UsageError, "does not end like a NIfTI", out=out.with_name("out.png"))
    run(UsageError, "--rr-s 9", rr_s=9.0)
    run(UsageError, "there is no slice 7", slices="7")
    run(InputError, "cannot keep slices", slices="0,2-4")
    run(UsageError, "DICOM", seg=tmp_path / "seg")
    run(InputError, "expected a folder of DICOM files", source=str(tmp_path / "nothing.nii.gz"))
    write_labels(tmp_path / "truth.nii.gz", torch.full(cine.images.shape, 3, dtype=torch.uint8), cine.geometry)
    run(InputError, "hold 3, which sunnybrook", labels=tmp_path / "truth.nii.gz", convention="sunnybrook")
    run(UsageError, "no label convention", labels=tmp_path / "truth.nii.gz", convention="mine")
    write_labels(tmp_path / "other.nii.gz", torch.zeros(2, 16, 48, 48), replace(cine.geometry, shape=(2, 48, 48)))
    run(ShapeError, "the truth in other.nii.gz", labels=tmp_path / "other.nii.gz")
    black = tmp_path / "black.nii.gz"
    write_cine(black, replace(cine, images=cine.images * 0))
    run(InputError, "zero throughout", source=str(black))
    gaps = cine.images.clone()
    gaps[1] = 0
    write_cine(black, replace(cine, images=gaps))
    run(InputError, "only slices 0, 2, 3, 4 hold images", source=str(black))


def test_nothing_is_replaced_unasked(source: str, out: Path, segment: Segment) -> None:
    out.with_name("out.svg").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="exists already"):
        segment_command(source, out, refuse, SegmentOptions())
    assert left(out) == ["out.svg"]
    segment_command(source, out, segment, SegmentOptions(overwrite=True))
    assert left(out) == NAMES
    with pytest.raises(UsageError, match="source itself"):
        segment_command(str(out), out, refuse, SegmentOptions(overwrite=True))


def test_names_beside() -> None:
    beside = files_beside(Path("a/b.c.nii"))
    assert beside["record"] == Path("a/b.c.json")
    assert beside["plot"] == Path("a/b.c.svg")
    with pytest.raises(UsageError):
        files_beside(Path(".nii.gz"))
