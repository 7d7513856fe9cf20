from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from kspace.biomarkers import Missing
from kspace.errors import InputError, ShapeError
from kspace.formats.nifti import read_cine, read_labels
from kspace.scan import Geometry
from kspace.segment.scores import dice, flips, hd95_mm, score
from kspace.segment.segmentation import Structure

HEART = Path(__file__).resolve().parents[4] / "shared" / "data" / "sunnybrook" / "SC-HF-I-4"


def disc(radius: float, row: float = 12.0, size: int = 24) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(size) - row, torch.arange(size) - 12.0, indexing="ij")
    return y**2 + x**2 < radius**2


def stack(inner: tuple[float, ...], row: float = 12.0, wall: bool = True) -> torch.Tensor:
    """(3, frame, 24, 24) labels, a disc in a ring in the middle slice and smaller ones beside it; 0 draws nothing."""
    labels = torch.zeros(3, len(inner), 24, 24, dtype=torch.uint8)
    for frame, radius in enumerate(inner):
        for index, part in enumerate((0.6, 1.0, 0.6) if radius else ()):
            if wall:
                labels[index, frame][disc(part * radius + 2, row)] = Structure.MYOCARDIUM
            labels[index, frame][disc(part * radius, row)] = Structure.LV
    return labels


GEOMETRY = Geometry.from_spacing((3, 24, 24), (8.0, 1.5, 1.5))


def test_the_truth_itself_is_perfect() -> None:
    truth = stack((8.0, 0.0, 5.0))
    scores = score(truth, truth, GEOMETRY)
    assert set(scores.structures) == {Structure.LV, Structure.MYOCARDIUM}
    left = scores.structures[Structure.LV]
    assert left.frames == (0, 2)
    assert left.dice == (1, 1)
    assert left.hd95_mm == (0, 0)
    assert left.volume_ml == left.truth_ml
    assert (scores.flips.correct, scores.flips.flipped, scores.flips.missed) == (1, 0, 0)
    assert scores.errors["lv_ef_percent"] == 0
    assert scores.errors["rv_edv_ml"] == Missing("in the truth, there is no RV at end-diastole")
    assert scores.mean_dice(Structure.LV) == 1
    assert math.isnan(scores.mean_dice(Structure.RV))


def test_only_what_was_drawn_is_scored() -> None:
    truth, prediction = stack((8.0, 0.0, 5.0)), stack((8.0, 7.0, 5.0))
    truth[:, 2][truth[:, 2] == Structure.MYOCARDIUM] = 0  # as experts leave it at end-systole
    prediction[:, :, :2, :2] = Structure.RV  # nobody drew the RV
    scores = score(prediction, truth, GEOMETRY)
    assert set(scores.structures) == {Structure.LV, Structure.MYOCARDIUM}
    assert scores.structures[Structure.MYOCARDIUM].frames == (0,)
    assert scores.structures[Structure.LV].dice == (1, 1)
    assert scores.flips.correct == 1


def test_a_shift_shows_in_every_score() -> None:
    truth, prediction = stack((8.0, 5.0)), stack((8.0, 5.0), row=14.0)
    scores = score(prediction, truth, GEOMETRY)
    assert all(0.5 < value < 0.95 for value in scores.structures[Structure.LV].dice)
    assert scores.structures[Structure.LV].hd95_mm == pytest.approx((3.0, 3.0))
    assert scores.flips.flipped > 0
    assert scores.flips.missed > 0
    assert scores.flips.correct + scores.flips.flipped + scores.flips.missed == pytest.approx(1)


def test_what_is_missed_is_infinitely_far() -> None:
    truth = stack((8.0, 5.0))
    scores = score(torch.zeros_like(truth), truth, GEOMETRY)
    assert scores.structures[Structure.LV].hd95_mm == (math.inf, math.inf)
    assert scores.structures[Structure.LV].dice == (0, 0)
    assert scores.structures[Structure.LV].volume_ml == (0, 0)
    assert scores.flips.missed == 1
    assert scores.errors["lv_edv_ml"] == Missing("in the prediction, there is no LV in any frame")
    said = scores.to_dict()
    assert said["errors"]["lv_edv_ml"] is None
    assert said["structures"]["lv"]["hd95_mm"] == [math.inf, math.inf]


def test_flips_are_shares_of_the_truths_foreground() -> None:
    truth = torch.tensor([0, 1, 1, 2, 2, 3, 3, 3], dtype=torch.uint8)
    prediction = torch.tensor([3, 1, 2, 2, 0, 3, 1, 3], dtype=torch.uint8)
    found = flips(prediction, truth)
    assert (found.correct, found.flipped, found.missed) == pytest.approx((4 / 7, 2 / 7, 1 / 7))
    assert math.isnan(flips(prediction, truth * 0).correct)
    assert dice(prediction, truth, Structure.RV) == pytest.approx(2 * 2 / 6)
    assert math.isnan(dice(truth * 0, truth * 0, Structure.RV))


def surface_distances(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    edge_a, edge_b = (mask & ~ndimage.binary_erosion(mask) for mask in (a, b))
    return ndimage.distance_transform_edt(~edge_b, sampling=spacing)[edge_a]


@settings(max_examples=25, deadline=None)
@given(
    shape=st.one_of(
        st.tuples(st.integers(3, 12), st.integers(3, 12)),
        st.tuples(st.integers(2, 4), st.integers(3, 9), st.integers(3, 9)),
    ),
    seed=st.integers(0, 2**31),
)
def test_distance_is_that_of_the_definition(shape: tuple[int, ...], seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.random(shape) < 0.5 for _ in range(2))
    a.flat[0] = b.flat[-1] = True
    spacing = (8.0, 1.7, 1.3)[-len(shape) :]
    expected = max(np.percentile(surface_distances(*pair, spacing), 95) for pair in ((a, b), (b, a)))
    assert hd95_mm(torch.from_numpy(a), torch.from_numpy(b), spacing) == pytest.approx(expected, rel=1e-5)


def test_distance_of_nothing() -> None:
    empty, full = torch.zeros(4, 4, dtype=torch.bool), torch.ones(4, 4, dtype=torch.bool)
    assert math.isnan(hd95_mm(empty, empty, (1.0, 1.0)))
    assert hd95_mm(empty, full, (1.0, 1.0)) == math.inf


def test_a_single_slice_is_measured_in_its_plane() -> None:
    truth, prediction = stack((8.0, 5.0))[1:2], stack((8.0, 5.0), row=14.0)[1:2]
    scores = score(prediction, truth, Geometry.from_spacing((1, 24, 24), (8.0, 1.5, 1.5)))
    assert scores.structures[Structure.LV].hd95_mm == pytest.approx((3.0, 3.0))
    assert isinstance(scores.errors["lv_edv_ml"], Missing)


def test_what_cannot_be_compared_is_refused() -> None:
    truth = stack((8.0, 5.0))
    with pytest.raises(ShapeError, match="the truth"):
        score(truth, truth[:, :1], GEOMETRY)
    with pytest.raises(InputError, match="no label in any frame"):
        score(truth, truth * 0, GEOMETRY)


def test_monai_is_not_imported_before_it_is_needed() -> None:
    code = "import sys, kspace.segment.scores; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.real
def test_an_experts_contours_give_the_experts_volumes() -> None:
    if not HEART.is_dir():
        pytest.skip(f"the real heart is not at {HEART}")
    from kspace.biomarkers import measure
    from kspace.volume_curves import volume_curves

    truth, geometry = read_labels(HEART / "labels.nii.gz"), read_cine(HEART / "cine.nii.gz").geometry
    found = measure(volume_curves(truth, geometry))
    assert (found.ed_frame, found.es_frame) == (19, 6)
    assert found.value("lv_edv_ml") == pytest.approx(231.9, abs=0.05)
    assert found.value("lv_esv_ml") == pytest.approx(181.4, abs=0.05)
    assert found.value("lv_ef_percent") == pytest.approx(21.8, abs=0.05)
