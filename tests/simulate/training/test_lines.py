"""Mis-triggered scans to learn from, and a training of seconds from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kspace.errors import UsageError
from kspace.motion.cartesian import Mistriggering, to_image
from kspace.motion.line_networks import EVIDENCE_WEIGHTS, wrong_lines
from kspace.weights.store import verify
from simulate.training.command import TrainOptions, train_command
from simulate.training.dataset import Split
from simulate.training.line_scans import line_bank


def test_scan_and_training(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        record = train_command("motion-cartesian", tmp_path, lambda _: None, TrainOptions(quick=True))
    finally:
        torch.set_num_threads(before)
    assert record["reason"] == "steps"
    models = tmp_path / "models"
    assert {verdict.name for verdict in verify(models)} == {EVIDENCE_WEIGHTS, "motion-line-sequence"}
    assert not any(verdict.problem for verdict in verify(models))

    bank = line_bank(tmp_path / "bank", Split.TRAIN, 2, frames=6, size=32)
    scan = bank.scan(0, Mistriggering(0.25), torch.Generator().manual_seed(0), snr=40)
    assert int(scan.wrong.sum()) == 6 * 8
    right = ~scan.wrong
    assert torch.equal(scan.clean[right], scan.measured[right])
    # A wrong line has noise of its own: it equals no other.
    assert not torch.equal(scan.measured[scan.wrong][0], scan.clean[scan.source[scan.wrong][0]][0])
    error = (to_image(scan.clean) - scan.truth).abs().square().mean().sqrt()
    assert float(error) == pytest.approx(scan.noise_std, rel=0.05)
    found = wrong_lines(scan.measured, scan.noise_std, folder=models)
    assert found.shape == (6, 32)
    assert bool(((found >= 0) & (found <= 1)).all())


def test_no_patients_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="patients"):
        line_bank(tmp_path, Split.TRAIN, 0)
