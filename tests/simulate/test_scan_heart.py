from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kspace.errors import InputError
from kspace.scan import Cine
from kspace.segment.segmentation import Segmentation
from simulate.report_heart import heart_section
from simulate.scan_heart import ScanHeart, biomarker_record, find_scan_heart


def test_finished_slices_are_measured(
    make_cine: Callable[..., Cine], segment_cine: Callable[..., Segmentation]
) -> None:
    stack = make_cine(slices=3)
    every = range(stack.n_slices)
    heart = find_scan_heart(stack, every, lambda cine, on_slice=None: segment_cine(cine))
    assert isinstance(heart, ScanHeart)
    labels = heart.labels(stack.n_slices + 2)
    assert torch.equal(labels[: stack.n_slices], heart.segmentation.labels)
    assert not bool(labels[stack.n_slices :].any())
    record = biomarker_record(heart)
    assert record["slice_positions"] == {str(k): "middle" for k in every}
    section = heart_section(heart)
    assert "data:image/webp;base64," in section
    assert "LV ejection fraction" in section


def test_a_reason_is_told_and_escaped(make_cine: Callable[..., Cine]) -> None:
    def fails(cine: Cine, on_slice: Any = None) -> Segmentation:
        raise InputError("no <heart> here")

    heart = find_scan_heart(make_cine(), [0], fails)
    assert heart == "no <heart> here"
    record = biomarker_record(heart)
    assert set(record["biomarkers"].values()) == {None}
    assert set(record["biomarkers_missing"].values()) == {heart}
    assert "&lt;heart&gt;" in heart_section(heart)


@pytest.mark.parametrize("slices", [[0]])
def test_one_slice_has_areas_and_no_volumes(
    make_cine: Callable[..., Cine], segment_cine: Callable[..., Segmentation], slices: list[int]
) -> None:
    heart = find_scan_heart(make_cine(), slices, lambda cine, on_slice=None: segment_cine(cine))
    assert isinstance(heart, ScanHeart)
    assert "no volumes" in biomarker_record(heart)["biomarkers_missing"]["lv_edv_ml"]
    assert heart_section(heart).count("one slice has areas") == 1
