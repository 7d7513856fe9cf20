from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kspace.errors import UsageError
from kspace.quality.calibration import StoppingCalibration, calibrate_rule
from kspace.quality.policies import Fixed, Uncertainty
from kspace.quality.predictors import fit_predictors
from kspace.recon.cg_sense import CgSense
from simulate.acquisition import LoopOptions
from simulate.run import run_scan
from simulate.scanner import ScannerOptions, SimulatedScanner
from simulate.stack_judge import SegmenterDrawer
from simulate.stack_policy import (
    StackPolicy,
    decision_times,
    guaranteed_policy,
    shipped_calibration,
    uncertainty_policy,
)
from tests.kspace.quality.trajectories import random_trajectory

TIMES = (0.3, 0.6, 0.9)
OPTIONS = LoopOptions(n_frames=3, method=CgSense(max_iterations=3))


@pytest.fixture(scope="module")
def scanner(make_cine: Any) -> SimulatedScanner:
    return SimulatedScanner(make_cine(rows=32, columns=32, slices=3), ScannerOptions(n_coils=2, snr=40))


@pytest.fixture(scope="module")
def draw(segment_cine: Any) -> SegmenterDrawer:
    return SegmenterDrawer(lambda cine, on_slice=None: segment_cine(cine, samples=3))


@pytest.fixture(scope="module")
def card() -> StoppingCalibration:
    patients = [random_trajectory(seed, noise=0.1) for seed in range(40)]
    return calibrate_rule(
        "guaranteed", fit_predictors(patients[:10], "synthetic"), patients[:10], patients[10:], cohort="synthetic",
        protocol={"matrix": 32, "frames": 3}, date="2026-11-25",
    )  # fmt: skip


def _scan(scanner: SimulatedScanner, together: StackPolicy, out: Path) -> dict[str, Any]:
    result = run_scan(scanner, OPTIONS, out, slices=(0, 1, 2), record_options={}, together=together)
    assert result.record.stopping
    stopping: dict[str, Any] = json.loads((out / "scan.json").read_text())["stopping"]
    return stopping


def test_a_scan_that_ends_together_says_so_and_promises_nothing_uncalibrated(
    scanner: SimulatedScanner, draw: SegmenterDrawer, tmp_path: Path
) -> None:
    stopping = _scan(scanner, StackPolicy(Fixed(0.6), draw, TIMES), tmp_path / "scan")
    assert stopping["seconds_per_slice"] == pytest.approx(0.6)
    assert not stopping["promise_applies"]
    assert "No guarantee applies" in stopping["promise"]
    assert stopping["measured"]["lv_edv_ml"]["value"] > 0
    assert stopping["measured"]["lv_edv_ml"]["low"] is None
    report = (tmp_path / "scan" / "report.html").read_text()
    assert "No guarantee applies" in report
    for name in ("raw.h5", "recon.nii.gz", "decisions.csv"):
        assert (tmp_path / "scan" / name).stat().st_size > 0


def test_a_scan_of_the_calibrations_protocol_carries_its_promise_and_intervals(
    scanner: SimulatedScanner, draw: SegmenterDrawer, card: StoppingCalibration, tmp_path: Path
) -> None:
    together = guaranteed_policy(card, draw, TIMES, {"matrix": 32, "frames": 3})
    assert together.misfits == ()
    stopping = _scan(scanner, together, tmp_path / "scan")
    assert together.promise == card.promise()
    assert 0 < stopping["likeness_p"] <= 1
    edv = stopping["measured"]["lv_edv_ml"]
    assert edv["high"] - edv["value"] == pytest.approx(card.half_widths["lv_edv_ml"])
    # Discs of one image are no heart of the calibration cohort: the guard keeps the scan going to the cap.
    assert stopping["seconds_per_slice"] == pytest.approx(0.9)
    assert "unlike the calibration cohort" in stopping["reason"]
    assert not stopping["promise_applies"]
    assert "unlike those of the calibration" in stopping["promise"]


def test_a_promise_holds_for_scans_that_the_rule_ended_and_for_those_that_ran_to_the_cap(
    scanner: SimulatedScanner, draw: SegmenterDrawer, card: StoppingCalibration, tmp_path: Path
) -> None:
    open_guard = card.guard.model_copy(update={"limit": 1e6})  # as if these discs were hearts of the cohort
    for name, limit in (("early", 1e3), ("cap", -1e3)):
        like = card.model_copy(update={"guard": open_guard, "limit": limit})
        together = guaranteed_policy(like, draw, TIMES, {"matrix": 32, "frames": 3})
        stopping = _scan(scanner, together, tmp_path / name)
        assert stopping["promise_applies"]
        assert stopping["promise"] == card.promise()
        assert stopping["reached"] == (name == "early")
        assert stopping["seconds_per_slice"] == pytest.approx(0.3 if name == "early" else 0.9)


def test_a_scan_of_another_protocol_runs_to_the_cap_and_says_why(
    scanner: SimulatedScanner, draw: SegmenterDrawer, card: StoppingCalibration, tmp_path: Path
) -> None:
    stopping = _scan(scanner, guaranteed_policy(card, draw, TIMES, {"matrix": 64, "frames": 3}), tmp_path / "scan")
    assert stopping["seconds_per_slice"] == pytest.approx(0.9)
    assert not stopping["promise_applies"]
    assert "matrix is 64 and not 32" in stopping["promise"]
    assert "matrix is 64 and not 32" in stopping["reason"]


def test_decisions_are_taken_from_the_floor_to_the_cap() -> None:
    assert decision_times(0.5, 2.0, 4.0) == (2.0, 2.5, 3.0, 3.5, 4.0)
    assert decision_times(1.0, 0.0, 2.4) == (1.0, 2.4)
    assert decision_times(5.0, 2.0, 2.0) == (2.0,)
    times = np.array(decision_times(0.7, 1.3, 12.0))
    assert times[-1] == 12.0
    assert np.diff(times).min() >= 0.35 - 1e-9


def test_policies_without_a_calibration() -> None:
    together = uncertainty_policy(1.0, 2.0, 6.0)
    assert isinstance(together.policy, Uncertainty)
    assert together.times == (2.0, 3.0, 4.0, 5.0, 6.0)
    with pytest.raises(UsageError, match="no calibrated stopping rule"):
        shipped_calibration("no-such-rule")
