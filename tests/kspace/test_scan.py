from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kspace.errors import InputError, ShapeError
from kspace.scan import Cine, Geometry, RadialScan, concatenate

OBLIQUE = np.array([[1.2, -0.4, 0.3, 10.0], [0.5, 1.1, -0.2, -40.0], [-0.1, 0.3, 7.9, 5.0], [0, 0, 0, 1.0]])
sizes = st.integers(1, 300)


def make_scan(n_spokes: int = 6, n_coils: int = 2, n_readout: int = 8, n_slices: int = 2, **changes: Any) -> RadialScan:
    generator = torch.Generator().manual_seed(n_spokes)
    values: dict[str, Any] = {
        "samples": torch.randn(n_spokes, n_coils, n_readout, dtype=torch.complex64, generator=generator),
        "positions": torch.rand(n_spokes, n_readout, 2, generator=generator) - 0.5,
        "time_s": torch.arange(n_spokes) * 0.003,
        "geometry": Geometry((n_slices, 8, 9), OBLIQUE),
        "slice_index": torch.arange(n_spokes) % n_slices,
        "ecg_s": torch.tensor([0.0, 0.9]),
    }
    return RadialScan(**(values | changes))


# Geometry


@settings(deadline=None)
@given(rows=sizes, columns=sizes, new_rows=sizes, new_columns=sizes)
def test_another_matrix_keeps_centre_and_field_of_view(
    rows: int, columns: int, new_rows: int, new_columns: int
) -> None:
    old = Geometry((3, rows, columns), OBLIQUE, slice_thickness_mm=6.0)
    new = old.with_matrix(new_rows, new_columns)
    assert new.shape == (3, new_rows, new_columns)
    assert new.field_of_view_mm == pytest.approx(old.field_of_view_mm)
    assert new.spacing_mm[0] == pytest.approx(old.spacing_mm[0])
    assert new.slice_thickness_mm == 6.0
    for index in (0, 2):
        before = old.affine @ [columns // 2, rows // 2, index, 1]
        after = new.affine @ [new_columns // 2, new_rows // 2, index, 1]
        np.testing.assert_allclose(after, before, atol=1e-9)


def test_the_same_matrix_is_the_same_geometry() -> None:
    geometry = Geometry((2, 7, 12), OBLIQUE)
    np.testing.assert_allclose(geometry.with_matrix(7, 12).affine, geometry.affine)


@settings(deadline=None)
@given(shape=st.tuples(sizes, sizes, sizes), spacing=st.tuples(*[st.floats(0.1, 20)] * 3))
def test_from_spacing_is_centred_on_the_origin(
    shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> None:
    geometry = Geometry.from_spacing(shape, spacing)
    assert geometry.spacing_mm == pytest.approx(spacing)
    middle = geometry.affine @ [shape[2] // 2, shape[1] // 2, shape[0] // 2, 1]
    np.testing.assert_allclose(middle, [0, 0, 0, 1], atol=1e-9)


@pytest.mark.parametrize("indices", [[0], [4], [1, 2, 3], [0, 2, 4], range(5)])
def test_selected_slices_stay_where_they_were(indices: list[int]) -> None:
    old = Geometry((5, 8, 9), OBLIQUE)
    new = old.select_slices(indices)
    assert new.shape == (len(indices), 8, 9)
    for new_index, old_index in enumerate(indices):
        np.testing.assert_allclose(new.affine @ [3, 2, new_index, 1], old.affine @ [3, 2, old_index, 1])


@pytest.mark.parametrize("indices", [[], [0, 1, 3], [2, 1], [1, 1]])
def test_uneven_slices_are_refused(indices: list[int]) -> None:
    with pytest.raises(InputError, match="evenly spaced, ascending"):
        Geometry((5, 8, 9)).select_slices(indices)


def test_the_affine_is_a_frozen_copy() -> None:
    affine = OBLIQUE.copy()
    geometry = Geometry((1, 2, 3), affine)
    affine[0, 3] = 99
    assert geometry.affine[0, 3] == OBLIQUE[0, 3]
    with pytest.raises(ValueError, match="read-only"):
        geometry.affine[0, 3] = 1


@pytest.mark.parametrize(
    ("shape", "affine", "thickness"),
    [
        ((1, 2), np.eye(4), None),
        ((0, 2, 2), np.eye(4), None),
        ((1, 2, 2), np.eye(3), None),
        ((1, 2, 2), np.diag([1.0, 0, 1, 1]), None),
        ((1, 2, 2), np.full((4, 4), np.nan), None),
        ((1, 2, 2), np.eye(4), 0.0),
    ],
)
def test_impossible_geometries_are_refused(shape: Any, affine: np.ndarray, thickness: float | None) -> None:
    with pytest.raises(InputError):
        Geometry(shape, affine, thickness)


@pytest.mark.parametrize("spacing", [(1.0, 0.0, 1.0), (1.0, 1.0), (1.0, float("nan"), 1.0)])
def test_impossible_spacings_are_refused(spacing: Any) -> None:
    with pytest.raises(InputError, match="three positive numbers"):
        Geometry.from_spacing((1, 2, 2), spacing)


# Cine


def test_a_cine_fills_in_what_it_can() -> None:
    cine = Cine(torch.ones(3, 4, 5, 6, dtype=torch.int16), Geometry((3, 5, 6)), rr_s=0.8)
    assert cine.images.dtype == torch.float32
    assert (cine.n_slices, cine.n_frames) == (3, 4)
    assert cine.rr_s == (0.8, 0.8, 0.8)


def test_selected_cine_slices_keep_their_beat() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 5, 6)
    part = Cine(images, Geometry((3, 5, 6)), rr_s=(0.7, 0.8, 0.9)).select_slices([0, 2])
    assert part.rr_s == (0.7, 0.9)
    assert part.images[:, 0, 0, 0].tolist() == [0, 2]
    with pytest.raises(InputError, match="no slice"):
        part.select_slices([2])


@pytest.mark.parametrize(
    ("images", "rr_s"),
    [
        (torch.ones(2, 5, 6), 1.0),
        (torch.ones(2, 4, 5, 7), 1.0),
        (torch.full((2, 4, 5, 6), torch.nan), 1.0),
        (torch.ones(2, 4, 5, 6), (1.0,)),
        (torch.ones(2, 4, 5, 6), 800.0),
    ],
)
def test_impossible_cines_are_refused(images: torch.Tensor, rr_s: Any) -> None:
    with pytest.raises(InputError):
        Cine(images, Geometry((2, 5, 6)), rr_s)


# RadialScan


@settings(deadline=None)
@given(st.integers(0, 5), st.integers(1, 4), st.integers(1, 9))
def test_a_scan_knows_its_sizes(n_spokes: int, n_coils: int, n_readout: int) -> None:
    scan = make_scan(n_spokes, n_coils, n_readout)
    assert (scan.n_spokes, scan.n_coils, scan.n_readout, scan.matrix) == (n_spokes, n_coils, n_readout, (8, 9))
    assert scan.time_s.dtype == scan.ecg_s.dtype == torch.float64


def test_slices_default_to_the_first() -> None:
    assert make_scan(slice_index=None).slices.tolist() == [0] * 6


NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"samples": torch.ones(6, 8, dtype=torch.complex64)}, ShapeError, "samples"),
        ({"samples": torch.ones(6, 0, 8, dtype=torch.complex64)}, ShapeError, "samples"),
        ({"samples": torch.ones(6, 2, 8)}, InputError, "complex64 or complex128"),
        ({"samples": torch.full((6, 2, 8), NAN, dtype=torch.complex64)}, InputError, "NaN"),
        ({"positions": torch.zeros(6, 2, 8)}, ShapeError, "positions"),
        ({"positions": torch.full((6, 8, 2), 0.51)}, InputError, "cycles per pixel"),
        ({"positions": torch.full((6, 8, 2), NAN)}, InputError, "NaN"),
        ({"time_s": torch.zeros(5)}, ShapeError, "time_s"),
        ({"time_s": torch.full((6,), NAN)}, InputError, "NaN"),
        ({"slice_index": torch.zeros(5, dtype=torch.int64)}, ShapeError, "slice_index"),
        ({"slice_index": torch.full((6,), 2)}, InputError, "0 to 1"),
        ({"slice_index": torch.full((6,), -1)}, InputError, "0 to 1"),
        ({"frame": torch.zeros(7, dtype=torch.int64)}, ShapeError, "frame"),
        ({"frame": torch.full((6,), -1)}, InputError, "negative"),
        ({"ecg_s": torch.zeros(2, 2)}, ShapeError, "ecg_s"),
        ({"ecg_s": torch.tensor([NAN])}, InputError, "NaN"),
        ({"noise_covariance": torch.eye(3)}, ShapeError, "noise_covariance"),
        ({"noise_covariance": torch.full((2, 2), NAN)}, InputError, "NaN"),
    ],
)
def test_bad_scans_are_refused(changes: dict[str, Any], error: type[InputError], says: str) -> None:
    with pytest.raises(error, match=says):
        make_scan(**changes)


def test_positions_may_touch_the_edge() -> None:
    make_scan(positions=torch.full((6, 8, 2), 0.5))


@pytest.mark.parametrize(
    "spokes", [torch.tensor([4, 1]), torch.tensor([False, True, False, False, True, False]), slice(1, 5, 3)]
)
def test_selection_takes_everything_along(spokes: torch.Tensor | slice) -> None:
    scan = make_scan(frame=torch.arange(6))
    part = scan.select(spokes)
    assert part.frame is not None
    assert sorted(part.frame.tolist()) == [1, 4]
    for here, spoke in enumerate(part.frame.tolist()):
        assert torch.equal(part.samples[here], scan.samples[spoke])
        assert torch.equal(part.positions[here], scan.positions[spoke])
        assert part.time_s[here] == scan.time_s[spoke]
        assert part.slices[here] == scan.slices[spoke]
    assert torch.equal(part.ecg_s, scan.ecg_s)


def test_one_slice_has_its_own_geometry() -> None:
    scan = make_scan()
    part = scan.select_slice(1)
    assert part.slices.tolist() == [0, 0, 0]
    assert torch.equal(part.samples, scan.samples[1::2])
    assert part.geometry.shape == (1, 8, 9)
    np.testing.assert_allclose(part.geometry.affine @ [0, 0, 0, 1], scan.geometry.affine @ [0, 0, 1, 1])


def test_parts_join_to_the_whole() -> None:
    scan = make_scan(frame=torch.arange(6))
    whole = concatenate([scan.select(slice(0, 2)), scan.select(slice(2, 2)), scan.select(slice(2, 6))])
    for name in ("samples", "positions", "time_s", "slice_index", "ecg_s", "frame"):
        assert torch.equal(getattr(whole, name), getattr(scan, name)), name


def test_r_waves_merge_in_order_and_frames_need_all_parts() -> None:
    late = make_scan(ecg_s=torch.tensor([0.9, 1.8]), frame=torch.zeros(6, dtype=torch.int64))
    whole = concatenate([late, make_scan(ecg_s=torch.tensor([0.0, 0.9]))])
    assert torch.equal(whole.ecg_s, torch.unique(torch.tensor([0.0, 0.9, 1.8])).double())
    assert whole.frame is None


@pytest.mark.parametrize("other", [{"n_coils": 3}, {"n_readout": 9}, {"n_slices": 3}])
def test_unlike_parts_do_not_join(other: dict[str, int]) -> None:
    with pytest.raises(InputError, match="as in the first part"):
        concatenate([make_scan(), make_scan(**other)])


def test_nothing_does_not_join() -> None:
    with pytest.raises(InputError, match="at least one"):
        concatenate([])
