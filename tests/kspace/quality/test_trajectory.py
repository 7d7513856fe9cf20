from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from kspace.errors import InputError, ShapeError
from kspace.quality.trajectory import Trajectory
from tests.kspace.quality.trajectories import random_trajectory


def test_a_trajectory_comes_back_from_bytes_as_it_was() -> None:
    before = random_trajectory(3)
    after = Trajectory.from_bytes(before.to_bytes())
    assert (after.patient, after.group, after.facts) == (before.patient, before.group, before.facts)
    np.testing.assert_array_equal(after.seconds, before.seconds)
    for name in ("areas_mm2", "sample_areas_mm2", "reference_areas_mm2", "exact_areas_mm2"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-6)
    assert list(after.scores) == list(before.scores)
    for name, score in before.scores.items():
        np.testing.assert_allclose(after.scores[name], score, rtol=1e-6)
    np.testing.assert_allclose(after.truth_scores["heart_nrmse"], before.truth_scores["heart_nrmse"], rtol=1e-6)


def test_a_trajectory_without_samples_or_scores_comes_back() -> None:
    bare = replace(random_trajectory(1, samples=0), scores={}, truth_scores={})
    after = Trajectory.from_bytes(bare.to_bytes())
    assert after.n_samples == 0
    assert after.scores == {}


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": np.array([1.0])},
        {"areas_mm2": np.ones((8, 5, 2, 10))},
        {"reference_areas_mm2": np.ones((4, 3, 10))},
        {"scores": {"entropy": np.ones((8, 4))}},
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ShapeError):
        replace(random_trajectory(), **change)  # type: ignore[arg-type]


def test_times_that_do_not_ascend_and_unknown_areas_are_refused() -> None:
    one = random_trajectory()
    with pytest.raises(InputError, match="ascend"):
        replace(one, seconds=one.seconds[::-1].copy())
    with pytest.raises(InputError, match="not all known"):
        replace(one, areas_mm2=one.areas_mm2 * np.nan)


def _archive_with_objects() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, header=np.array([{"patient": "x"}], dtype=object))
    return stream.getvalue()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", random_trajectory().to_bytes()[:-200]])
def test_what_is_no_trajectory_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="no trajectory"):
        Trajectory.from_bytes(content)


def test_nothing_pickled_is_read() -> None:
    with pytest.raises(InputError, match="no trajectory"):
        Trajectory.from_bytes(_archive_with_objects())
