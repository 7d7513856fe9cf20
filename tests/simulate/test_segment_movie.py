from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageColor

from kspace.errors import InputError
from kspace.segment.segmentation import Structure
from simulate.segment_movie import COLOURS, draw_frames, movie_suffix, write_movie


def near(picture: Image.Image, structure: Structure, tolerance: int = 20) -> np.ndarray:
    """Where the picture has the colour of a structure, as (row, column)."""
    colour = np.array(ImageColor.getrgb(COLOURS[structure])[:3])
    return np.argwhere(np.abs(np.asarray(picture).astype(int) - colour).max(axis=2) < tolerance)


@pytest.mark.parametrize("suffix", [movie_suffix(), ".gif"])
def test_the_movie_has_every_phase_and_lasts_a_beat(
    suffix: str, make_cine: Any, segment_cine: Any, tmp_path: Path
) -> None:
    cine = make_cine(slices=5, frames=6)
    write_movie(tmp_path / f"m{suffix}", cine, segment_cine(cine))
    with Image.open(tmp_path / f"m{suffix}") as movie:
        assert movie.n_frames == 6  # type: ignore[attr-defined]
        movie.seek(3)
        movie.load()  # WebP knows its times only then
        assert movie.info["duration"] == pytest.approx(800 / 6, abs=10)
        assert movie.info["loop"] == 0
    assert [path.name for path in tmp_path.iterdir()] == [f"m{suffix}"]


def test_contours_lie_where_the_labels_end(make_cine: Any, segment_cine: Any) -> None:
    cine = make_cine(rows=64, columns=64)
    made = segment_cine(cine, rv=False)
    picture = draw_frames(replace(cine, images=cine.images * 0), made)[0]
    # On black, what leans to blue is the cavity's line and what leans to red the myocardium's; below is the legend.
    lean = np.diff(np.asarray(picture).astype(int)[: picture.height - 40, :, ::2])[..., 0]
    inner, outer = np.argwhere(lean > 30), np.argwhere(lean < -15)
    centre = inner.mean(axis=0)
    np.testing.assert_allclose(centre, outer.mean(axis=0), atol=6)  # a pixel of the labels is 9 here
    radii = [np.linalg.norm(points - centre, axis=1) for points in (inner, outer)]
    assert radii[0].std() / radii[0].mean() < 0.05  # a circle
    areas = [float((made.labels[0, 0] == k).sum()) for k in (Structure.LV, Structure.MYOCARDIUM)]
    expected = ((areas[0] + areas[1]) / areas[0]) ** 0.5
    assert radii[1].mean() / radii[0].mean() == pytest.approx(expected, rel=0.05)


def test_the_heart_is_cut_out_and_pixels_keep_their_shape(make_cine: Any, segment_cine: Any) -> None:
    cine = make_cine(rows=96, columns=96)
    small = draw_frames(cine, segment_cine(cine))[0]
    labelled = np.argwhere(segment_cine(cine).labels.amax((0, 1)).numpy() > 0)
    box = labelled.max(axis=0) - labelled.min(axis=0) + 1 + 2 * 5  # 14 mm of 3 mm pixels on either side
    wanted = box[1] / box[0]
    assert (small.width - 8) / (small.height - 38) == pytest.approx(wanted, rel=0.02)


def test_without_labels_the_whole_image_is_shown(make_cine: Any, segment_cine: Any) -> None:
    cine = make_cine(rows=32, columns=48)
    made = segment_cine(cine)
    picture = draw_frames(cine, replace(made, labels=made.labels * 0))[0]
    assert (picture.width - 8) / (picture.height - 38) == pytest.approx(1.5, rel=0.02)
    assert all(len(near(picture, structure)) == 0 for structure in COLOURS)


@settings(max_examples=8, deadline=None)
@given(slices=st.integers(1, 13), rows=st.integers(8, 40), columns=st.integers(8, 40))
def test_any_stack_can_be_drawn(make_cine: Any, segment_cine: Any, slices: int, rows: int, columns: int) -> None:
    cine = make_cine(slices=slices, rows=rows, columns=columns, frames=1)
    pictures = draw_frames(cine, segment_cine(cine, samples=0), list(range(2, slices + 2)))
    assert len(pictures) == 1
    assert max(pictures[0].size) <= 1200


def test_a_folder_that_is_not_there_is_refused(make_cine: Any, segment_cine: Any, tmp_path: Path) -> None:
    cine = make_cine()
    with pytest.raises(InputError):
        write_movie(tmp_path / "no" / "m.gif", cine, segment_cine(cine))
