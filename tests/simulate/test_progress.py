from __future__ import annotations

import pytest
import torch

from kspace.quality.judge import Score
from kspace.scan import Geometry, RadialScan
from kspace.trajectory import golden_angles, radial_positions
from simulate.progress import ScanProgress
from simulate.record import SliceRecord, StepRecord


def step(stop: bool) -> StepRecord:
    scores = (Score("prediction_error", 0.07, 0.1, ""), Score("image_change", float("nan"), 0.05, ""))
    return StepRecord(1.0, 30, scores, stop, "good enough" if stop else "held back", 0.1)


def walk(progress: ScanProgress) -> None:
    positions = radial_positions(golden_angles(2), 8)
    samples = torch.zeros((2, 1, 8), dtype=torch.complex64)
    batch = RadialScan(samples, positions, torch.tensor([0.0, 0.5]), Geometry.from_spacing((1, 4, 4), (8, 2, 2)))
    with progress:
        progress.n_slices = 2
        progress.spokes(3, batch)
        progress.step(3, step(False))
        progress.slice(SliceRecord(3, (step(False), step(True)), True, 1.0, torch.zeros(1, 4, 4)))


def test_without_a_terminal_a_finished_slice_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    walk(ScanProgress(12.0))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == ["slice 3: 1 s of 12, prediction error 0.070: good enough"]


def test_on_a_terminal_the_current_slice_its_quality_and_the_decision_are_seen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("COLUMNS", "120")
    walk(ScanProgress(12.0))
    out, err = capsys.readouterr()
    assert out == ""
    for seen in ("1 of 2 slices finished", "1.0 s of 12", "0.070 / 0.1", "held back", "good enough"):
        assert seen in err, seen
