from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kspace.errors import InputError
from kspace.quality.family import ORACLE
from kspace.quality.trajectory import Trajectory
from simulate.study import pretend
from simulate.study.audit import audit
from simulate.study.evaluate import Evaluation, Part, evaluate, exact_interval, split
from simulate.study.page import PAGE, PATIENTS, RECORD, TABLE, write_page
from simulate.study.pretend import pretended_trajectory
from simulate.study.protocol import PRETEND, Protocol
from simulate.study.published import CITATION, DIFFERENCES, as_html, as_text, machado_table

PROTOCOL = Protocol(method=PRETEND, n_slices=3, frames=6, seconds=(1, 2, 4, 12))


@pytest.fixture(scope="module")
def patients() -> list[Trajectory]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretend, "_COST_S", 0.0)
        return [pretended_trajectory(PROTOCOL, PROTOCOL.who(number)) for number in range(77)]


@pytest.fixture(scope="module")
def evaluation(patients: list[Trajectory]) -> Evaluation:
    return evaluate(patients, {"method": PRETEND})


def test_every_patient_is_in_one_part(patients: list[Trajectory]) -> None:
    parts = split(patients)
    names = [one.patient for part in parts.values() for one in part]
    assert sorted(names) == sorted(one.patient for one in patients)
    assert [len(parts[part]) for part in Part] == [21, 35, 21]


def test_every_policy_judges_every_test_patient(evaluation: Evaluation) -> None:
    names = {row.policy for row in evaluation.rows}
    assert {"fixed 12 s", "two classifiers", "uncertainty", "joint", "guaranteed", ORACLE} <= names
    assert all(row.patients == len(evaluation.test) == 21 for row in evaluation.rows)


def test_a_scan_to_the_cap_is_accelerated_by_nothing(evaluation: Evaluation) -> None:
    row = next(row for row in evaluation.rows if row.policy == "fixed 12 s")
    assert row.seconds == 12
    assert row.acceleration == pytest.approx(1)
    assert row.seconds_quartiles == (12, 12)
    assert row.spokes_per_frame == pytest.approx(96)


def test_acceleration_is_the_harmonic_mean_over_patients(evaluation: Evaluation) -> None:
    for row in evaluation.rows:
        times = [12 / outcome.stopped.mean_seconds for outcome in evaluation.outcomes[row.policy]]
        assert row.acceleration == pytest.approx(len(times) / sum(1 / time for time in times))


def test_the_oracle_misses_only_whom_nothing_helps_and_is_never_slower_than_who_keeps_the_tolerance(
    evaluation: Evaluation,
) -> None:
    for index, best in enumerate(evaluation.outcomes[ORACLE]):
        for rows in evaluation.outcomes.values():
            if not rows[index].missed:
                assert not best.missed
                assert best.stopped.mean_seconds <= rows[index].stopped.mean_seconds + 1e-9


def test_bands_hold_their_means(evaluation: Evaluation) -> None:
    for curve in evaluation.curves:
        assert (curve.low <= curve.mean).all()
        assert (curve.mean <= curve.high).all()


def test_random_splits_allow_for_finite_test_parts(evaluation: Evaluation) -> None:
    splits = evaluation.splits
    assert splits is not None
    assert splits.calibration + splits.test == 56
    assert splits.sd_by_chance == pytest.approx(math.sqrt(splits.mean * (1 - splits.mean) / splits.test))
    assert 0 <= splits.mean <= 1


def test_too_few_patients_are_refused(patients: list[Trajectory]) -> None:
    with pytest.raises(InputError, match="calibration"):
        evaluate([one for one in patients if one.facts["part"] != "calibration"], {})
    with pytest.raises(InputError, match="part"):
        evaluate([replace(one, facts={}) for one in patients], {})


@pytest.mark.parametrize(("count", "n", "low", "high"), [(0, 20, 0.0, 0.1391), (5, 50, 0.0402, 0.1991)])
def test_intervals_are_those_of_clopper_and_pearson(count: int, n: int, low: float, high: float) -> None:
    assert exact_interval(count, n) == pytest.approx((low, high), abs=1e-3)
    assert exact_interval(n - count, n) == pytest.approx((1 - high, 1 - low), abs=1e-3)


def test_audits_count_everybody_once(evaluation: Evaluation) -> None:
    found = audit(evaluation.outcomes["guaranteed"], evaluation.test)
    assert {"sex", "vendor style", "SNR"} <= {one.kind for one in found}
    rows = evaluation.outcomes["guaranteed"]
    for one in found:
        assert sum(row.patients for row in one.rows) == 21
        assert one.ser >= 1
        mean = sum(row.seconds * row.patients for row in one.rows) / 21
        assert mean == pytest.approx(float(np.mean([row.stopped.mean_seconds for row in rows])))


def test_the_page_needs_nothing_from_outside_and_says_what_it_is(tmp_path: Path, evaluation: Evaluation) -> None:
    lines = machado_table(evaluation)
    write_page(tmp_path, evaluation, PROTOCOL, "A <study>", as_html(lines, DIFFERENCES, CITATION))
    page = (tmp_path / PAGE).read_text()
    assert not re.search(r"(src|href)\s*=|https?://|@import", page)
    assert "A &lt;study&gt;" in page
    assert "no patient was scanned" in page
    assert "Published and ours" in page
    real = Protocol(**{**PROTOCOL.model_dump(), "method": "unrolled"})
    write_page(tmp_path, evaluation, real, "Real", "")
    assert "Synthetic: all patients" in (tmp_path / PAGE).read_text()


def test_tables_are_for_machines(tmp_path: Path, evaluation: Evaluation) -> None:
    write_page(tmp_path, evaluation, PROTOCOL, "A study")
    with (tmp_path / TABLE).open() as file:
        table = list(csv.DictReader(file))
    assert [row["policy"] for row in table] == [row.policy for row in evaluation.rows]
    with (tmp_path / PATIENTS).open() as file:
        assert len(list(csv.DictReader(file))) == 21 * len(evaluation.rows)
    record = json.loads((tmp_path / RECORD).read_text(), parse_constant=lambda name: pytest.fail(name))
    assert record["synthetic"] is True
    assert record["protocol"]["frames"] == 6


def test_the_published_table_says_loudly_that_ours_is_synthetic(evaluation: Evaluation) -> None:
    text = as_text(machado_table(evaluation), DIFFERENCES, CITATION)
    assert "ours (synthetic)" in text
    assert "Why they can differ" in text
    assert "12 to 4" in text
