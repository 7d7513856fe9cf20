from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kspace.errors import InputError, UsageError
from kspace.quality.calibration import StoppingCalibration, calibrate_rule, write_calibration
from kspace.quality.policies import Fixed
from kspace.quality.predictors import fit_predictors
from kspace.quality.view import View, view_of
from simulate.patient.parameters import Group
from simulate.protocol_scan import planned_scan, protocol_of, protocol_scan
from simulate.run import run_scan
from simulate.stack_loop import scan_stack_together
from simulate.study.compute import patient_trajectory
from simulate.study.protocol import Part, Protocol, Who
from simulate.study.store import facts_of
from simulate.subject import SubjectOptions
from tests.kspace.quality.trajectories import random_trajectory

SMALL = Protocol(
    n_slices=2, matrix=48, frames=4, n_coils=2, seconds=(0.6, 1.0), method="gridding", window=48, frames_at_once=4
)


@cache
def card(digest: str = "") -> StoppingCalibration:
    patients = [random_trajectory(seed, noise=0.1, steps=2, slices=2, frames=4, samples=2) for seed in range(30)]
    facts = facts_of(SMALL, 0)
    protocol = {**SMALL.model_dump(mode="json"), "weights": digest or facts["weights"]}
    return calibrate_rule(
        "guaranteed", fit_predictors(patients[:6], "synthetic"), patients[:6], patients[6:], cohort="synthetic",
        protocol=protocol, date="2026-11-25",
    )  # fmt: skip


def test_the_loop_sees_what_the_study_computed() -> None:
    """The same patient, once in the loop over the stack and once in the study: the same areas and the same scores."""
    planned = protocol_scan(card(), 11)
    seen: list[View] = []

    class Watch(Fixed):
        def __call__(self, view: View):  # type: ignore[no-untyped-def]
            seen.append(view)
            return super().__call__(view)

    scan_stack_together(planned.source, planned.options, Watch(1.0), planned.together.draw)
    stored = patient_trajectory(SMALL, Who(0, 11, Part.TEST, Group.NORMAL, "siemens", 20.0, False, False))
    assert [view.steps.tolist() for view in seen] == [[1, 1], [2, 2]]
    for view in seen:
        expected = view_of(stored, view.steps)
        np.testing.assert_allclose(view.areas_mm2, expected.areas_mm2)
        np.testing.assert_allclose(view.sample_areas_mm2, expected.sample_areas_mm2)
        np.testing.assert_allclose(view.spacing_mm, expected.spacing_mm)
        missing = set(expected.scores) - set(view.scores)
        assert not missing
        for name, values in expected.scores.items():
            np.testing.assert_allclose(view.scores[name], values, rtol=0.02, atol=1e-5, err_msg=name)


def test_a_protocols_scan_fits_its_calibration_unless_networks_were_trained_since() -> None:
    assert protocol_scan(card(), 3).together.misfits == ()
    assert "weights" in protocol_scan(card("other"), 3).together.promise


def test_only_a_plain_phantom_can_follow_a_protocol() -> None:
    assert planned_scan("heart.nii", None) is None
    assert planned_scan("phantom:1", SubjectOptions(breathing="free")) is None
    with pytest.raises(InputError, match="calibration guaranteed"):
        protocol_of(card().model_copy(update={"protocol": {"matrix": "wide"}}))


def test_a_shipped_calibration_is_found_and_scanned_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kspace.quality.calibration.FOLDER", tmp_path)
    with pytest.raises(UsageError, match="no calibrated stopping rule"):
        planned_scan("phantom:1", None)
    write_calibration(card(), tmp_path / "guaranteed.json")
    planned = planned_scan("phantom:1", None)
    assert planned is not None
    out = tmp_path / "scan"
    run_scan(planned.source, planned.options, out, slices=(0, 1), record_options={}, together=planned.together)
    stopping = json.loads((out / "scan.json").read_text())["stopping"]
    assert stopping["policy"] == "guaranteed"
    assert stopping["promise_applies"] == ("unlike" not in stopping["promise"])
    assert stopping["seconds_per_slice"] in (pytest.approx(0.6), pytest.approx(0.8), pytest.approx(1.0))
