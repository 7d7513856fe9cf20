from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from kspace.biomarkers import measure
from kspace.errors import ShapeError, UsageError
from kspace.quality.measures import MEASURES, Tolerance, measured, without_islands
from kspace.scan import Geometry
from kspace.volume_curves import volume_curves


@settings(max_examples=40, deadline=None)
@given(counts=arrays(np.int64, (6, 3, 4), elements=st.sampled_from([0, 0, 3, 5, 8, 13])))
def test_measures_are_those_of_the_biomarkers(counts: np.ndarray) -> None:
    """The same stack, once as labels through kspace.biomarkers and once as areas."""
    labels = torch.zeros(6, 4, 6, 8, dtype=torch.uint8)
    for slice_, structure, frame in np.ndindex(6, 3, 4):
        flat = labels[slice_, frame].view(-1)
        flat[16 * structure : 16 * structure + int(counts[slice_, structure, frame])] = structure + 1
    geometry = Geometry((6, 6, 8), np.diag([2.0, 2.0, 9.0, 1.0]))
    theirs = measure(volume_curves(labels, geometry))
    ours = measured(counts * 4.0, 9.0)
    for name, value in zip(MEASURES, ours, strict=True):
        known = theirs.value(name)
        if np.isfinite(known):  # nothing is said of a stack that ends in full slices, or has no second phase
            assert value == pytest.approx(known, rel=1e-9)


def test_a_slice_alone_is_an_island_and_the_largest_run_never_is() -> None:
    areas = np.zeros((5, 3, 1))
    areas[:, 0, 0] = [7, 0, 5, 6, 0]
    assert without_islands(areas)[:, 0, 0].tolist() == [0, 0, 5, 6, 0]
    areas[:, 0, 0] = [0, 0, 5, 0, 4]
    assert without_islands(areas)[:, 0, 0].tolist() == [0, 0, 5, 0, 0]
    areas[:, 0, 0] = [0, 5, 0, 5, 0]
    assert without_islands(areas)[:, 0, 0].tolist() == [0, 5, 0, 0, 0]


def _found(edv: float, esv: float) -> np.ndarray:
    return np.array([edv, esv, 100 * (edv - esv) / edv, 100.0, 150.0, 60.0, 60.0])


def test_what_counts_as_a_miss() -> None:
    tolerance, reference = Tolerance(volume_ml=0), _found(100, 40)
    assert tolerance.excess(_found(104.9, 41.9), reference) <= 1
    assert tolerance.excess(_found(105.1, 40), reference) > 1  # 5.1 % of EDV
    assert tolerance.excess(_found(100, 42.1), reference) > 1  # 5.3 % of ESV
    assert Tolerance(volume_ml=5).excess(_found(100, 42.1), reference) <= 1
    assert Tolerance(volume_percent=30).excess(_found(100, 45.1), reference) > 1  # 5.1 points of EF
    assert np.isinf(tolerance.excess(np.full(7, np.nan), reference))


def test_wrong_shapes_and_tolerances_are_refused() -> None:
    with pytest.raises(ShapeError):
        measured(np.ones((4, 2, 5)), 8.0)
    with pytest.raises(UsageError):
        Tolerance(ef_points=0)
