from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import ShapeError
from kspace.scan import Geometry
from kspace.segment.segmentation import SlicePosition, Structure
from kspace.volume_curves import HARMONICS, VolumeCurves, harmonic_fit, peak_rates, volume_curves

GEOMETRY = Geometry.from_spacing((5, 12, 10), (8.0, 2.0, 1.5), slice_thickness_mm=6.0)


def blocks(counts: list[list[int]], structure: Structure = Structure.LV) -> torch.Tensor:
    """(slice, frame, 12, 10) labels with so many pixels of one structure in each slice and frame."""
    labels = torch.zeros(len(counts), len(counts[0]), 120, dtype=torch.uint8)
    for index, of_slice in enumerate(counts):
        for frame, count in enumerate(of_slice):
            labels[index, frame, :count] = structure
    return labels.reshape(len(counts), len(counts[0]), 12, 10)


def lv(counts: list[list[int]], **more: object) -> list[float]:
    return volume_curves(blocks(counts), GEOMETRY, **more).of(Structure.LV).tolist()  # type: ignore[arg-type]


def test_volume_is_area_times_the_distance_of_slices_gap_included() -> None:
    curves = volume_curves(blocks([[0, 0], [10, 5], [20, 10], [10, 0], [0, 0]]), GEOMETRY)
    pixel_ml = 8.0 * 2.0 * 1.5 / 1000
    assert curves.of(Structure.LV).tolist() == pytest.approx([40 * pixel_ml, 15 * pixel_ml])
    assert curves.of(Structure.RV).tolist() == [0, 0]
    assert (curves.ed_frame, curves.es_frame, curves.unit) == (0, 1, "ml")


def test_a_slice_counts_by_what_is_labelled_in_the_frame() -> None:
    whole, without_base = lv([[0, 0], [10, 0], [20, 20], [10, 10], [0, 0]])
    assert whole / without_base == pytest.approx(40 / 30)


def test_a_single_slice_beyond_an_empty_one_is_left_out_and_two_are_not() -> None:
    alone = lv([[5], [0], [20], [10], [0]])
    assert alone == lv([[0], [0], [20], [10], [0]])
    pair = lv([[5], [5], [0], [20], [10]])
    assert pair[0] / alone[0] == pytest.approx(40 / 30)


def test_of_slices_that_all_stand_alone_the_largest_counts() -> None:
    assert lv([[5], [0], [20], [0], [7]]) == lv([[0], [0], [20], [0], [0]])


def test_slices_without_a_heart_do_not_count() -> None:
    nothing, there = SlicePosition.NO_HEART, SlicePosition.MIDDLE
    positions = [nothing, there, there, there, nothing]
    assert lv([[9], [10], [20], [10], [9]], positions=positions) == lv([[0], [10], [20], [10], [0]])


def test_frames_that_nobody_drew_are_not_known() -> None:
    curves = volume_curves(blocks([[0, 0, 0], [10, 0, 5], [20, 0, 5], [10, 0, 5], [0, 0, 0]]), GEOMETRY)
    assert curves.drawn == (0, 2)
    assert (curves.ed_frame, curves.es_frame) == (0, 2)
    assert math.isnan(float(curves.of(Structure.MYOCARDIUM)[1]))


def test_without_an_lv_there_is_no_phase() -> None:
    curves = volume_curves(blocks([[3, 2]] * 5, Structure.RV), GEOMETRY)
    assert curves.ed_frame is curves.es_frame is None
    assert curves.full_ends == {}
    empty = volume_curves(blocks([[0, 0]] * 5), GEOMETRY)
    assert empty.drawn == ()
    assert empty.ed_frame is None


def test_a_single_slice_has_areas() -> None:
    curves = volume_curves(blocks([[50, 20]]), Geometry.from_spacing((1, 12, 10), (8.0, 2.0, 1.5)))
    assert curves.single
    assert curves.unit == "cm2"
    assert curves.of(Structure.LV).tolist() == pytest.approx([1.5, 0.6])


def test_ends_that_are_full_of_lv_are_told() -> None:
    curves = volume_curves(blocks([[16, 8], [20, 10], [20, 10], [15, 5], [4, 0]]), GEOMETRY)
    assert curves.full_ends == {0: pytest.approx(0.8)}


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**31),
)
def test_full_stacks_count_every_pixel(shape: tuple[int, int, int, int], seed: int) -> None:
    labels = torch.randint(1, 4, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    curves = volume_curves(labels, Geometry.from_spacing((shape[0], *shape[2:]), (1.0, 1.0, 1.0)))
    total = sum(float(curves.areas_mm2[k].sum()) for k in range(3))
    # What may be left out are islands, one slice each; with every pixel labelled they are rare but possible.
    assert total <= labels.numel()
    if shape[0] < 3:
        assert total == labels.numel()


@pytest.mark.parametrize("shape", [(4, 2, 12, 10), (5, 2, 10, 12), (5, 12, 10), (5, 0, 12, 10)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="the labels"):
        volume_curves(torch.zeros(shape, dtype=torch.uint8), GEOMETRY)


def test_other_wrong_shapes_are_refused() -> None:
    with pytest.raises(ShapeError, match="the positions"):
        volume_curves(blocks([[1]] * 5), GEOMETRY, [SlicePosition.MIDDLE])
    with pytest.raises(ShapeError, match="the areas"):
        VolumeCurves(torch.zeros(2, 3, 4), 8.0)


@pytest.mark.parametrize("n_frames", [14, 25, 40])
def test_rates_of_a_series_of_few_harmonics_are_exact(n_frames: int) -> None:
    phase = (torch.arange(n_frames, dtype=torch.float64) + 0.5) / n_frames
    curve = 100 + 40 * torch.cos(2 * torch.pi * phase) + 5 * torch.sin(4 * torch.pi * phase)
    rates = peak_rates(curve, 0.8)
    fine = torch.linspace(0, 1, 20001, dtype=torch.float64)
    slope = (-80 * torch.pi * torch.sin(2 * torch.pi * fine) + 20 * torch.pi * torch.cos(4 * torch.pi * fine)) / 0.8
    assert rates == pytest.approx((float(slope.max()), float(-slope.min())), rel=2e-3)
    fit = harmonic_fit(curve)
    assert fit is not None
    torch.testing.assert_close(fit, curve)


def test_what_cannot_be_smoothed_has_no_rates() -> None:
    few = torch.ones(2 * HARMONICS + 1, dtype=torch.float64)
    assert peak_rates(few, 0.8) is None
    gap = torch.ones(25, dtype=torch.float64)
    gap[3] = torch.nan
    assert harmonic_fit(gap) is None
