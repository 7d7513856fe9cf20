"""A movie of a segmentation: all slices side by side through one beat, with the contours drawn on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from kspace.formats.files import written_beside
from kspace.scan import Cine
from kspace.segment.segmentation import Segmentation, Structure

COLOURS = {Structure.LV: "#86b9ee", Structure.MYOCARDIUM: "#e79bc0", Structure.RV: "#f0ae66"}
"""Of contours on a dark image: the report's blue and orange, and one that parts from both."""
LEGEND = {Structure.LV: "LV cavity", Structure.MYOCARDIUM: "myocardium", Structure.RV: "RV cavity"}
_WIDTH, _HEIGHT, _LARGEST_CELL = 1080, 720, 360
_MARGIN_MM = 14.0
_GAP, _STRIP = 4, 30
_FINE = 2  # contours are drawn so many times finer and then averaged
_BACK, _INK, _QUIET = "#14171a", "#e9e7e2", "#a3acb5"


def movie_suffix() -> str:
    """Return ``.webp``, or ``.gif`` where Pillow was built without it."""
    return ".webp" if features.check("webp") else ".gif"


def write_movie(path: Path, cine: Cine, segmentation: Segmentation, numbers: list[int] | None = None) -> None:
    """Write the movie; it plays once per heartbeat, over and over.

    Parameters
    ----------
    path
        Ends in ``.webp`` or ``.gif``.
    cine, segmentation
        Of the same grid and number of frames.
    numbers
        What the slices are called; by default counted from 0.
    """
    pictures = draw_frames(cine, segmentation, numbers)
    milliseconds = max(20, round(1000 * cine.slice_rr_s(0) / len(pictures)))
    options = {"quality": 75, "method": 2} if path.suffix == ".webp" else {"optimize": True}
    with written_beside(path) as temporary:
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, **options)


def draw_frames(cine: Cine, segmentation: Segmentation, numbers: list[int] | None = None) -> list[Image.Image]:
    """Return the movie frame by frame, in colour.

    The images are cut out around all labels. Greys go from 0 to the 98th percentile of each slice there, so that fat
    does not darken the heart.
    """
    rows, columns = _heart(segmentation)
    images = np.nan_to_num(np.abs(cine.images[:, :, rows, columns].detach().cpu().numpy())).astype(np.float32)
    labels = segmentation.labels[:, :, rows, columns].cpu().numpy()
    n_slices, n_frames = images.shape[:2]
    _, dy, dx = cine.geometry.spacing_mm
    height, width = images.shape[2] * dy, images.shape[3] * dx
    scale, across, down = max(_layout(n_slices, across, width, height) for across in range(1, n_slices + 1))
    cell = (max(24, round(width * scale)), max(24, round(height * scale)))
    top = np.percentile(images, 98, axis=(1, 2, 3))
    size = (_GAP + across * (cell[0] + _GAP), _GAP + down * (cell[1] + _GAP) + _STRIP)
    present = [structure for structure in LEGEND if (labels == structure).any()]
    pictures = []
    for frame in range(n_frames):
        picture = Image.new("RGB", size, _BACK)
        for index in range(n_slices):
            drawn = _cell(images[index, frame] / (top[index] or 1.0), labels[index, frame], cell)
            name = f"{index if numbers is None else numbers[index]}  {segmentation.positions[index].word}"
            ImageDraw.Draw(drawn).text((6, 4), name, fill=_INK, font=_font(12), stroke_width=2, stroke_fill="black")
            row, column = divmod(index, across)
            picture.paste(drawn, (_GAP + column * (cell[0] + _GAP), _GAP + row * (cell[1] + _GAP)))
        _caption(picture, present, f"phase {frame + 1} of {n_frames}")
        pictures.append(picture)
    return pictures


def _layout(n_slices: int, across: int, width: float, height: float) -> tuple[float, int, int]:
    """Return pixels per mm with so many cells of width x height mm in a row, and the columns and rows of cells."""
    down = math.ceil(n_slices / across)
    wide, high = (_WIDTH - _GAP * (across + 1)) / across / width, (_HEIGHT - _GAP * (down + 1)) / down / height
    return min(wide, high, _LARGEST_CELL / max(width, height)), across, down


def _heart(segmentation: Segmentation) -> tuple[slice, slice]:
    """Return the rows and columns of all labels with a margin; of the whole image where there are none."""
    labelled = segmentation.labels.amax((0, 1)).cpu().numpy() > 0
    if not labelled.any():
        return slice(None), slice(None)
    _, *spacing = segmentation.geometry.spacing_mm
    cuts = []
    for axis, mm in enumerate(spacing):
        where = np.flatnonzero(labelled.any(axis=1 - axis))
        margin = math.ceil(_MARGIN_MM / mm)
        cuts.append(slice(max(0, int(where[0]) - margin), min(labelled.shape[axis], int(where[-1]) + 1 + margin)))
    return cuts[0], cuts[1]


def _cell(image: NDArray[np.float32], labels: NDArray[np.uint8], size: tuple[int, int]) -> Image.Image:
    grey = Image.fromarray(np.rint(255 * np.clip(image, 0, 1)).astype(np.uint8))
    fine = (size[0] * _FINE, size[1] * _FINE)
    picture = grey.resize(fine, Image.Resampling.BICUBIC).convert("RGB")
    pen = ImageDraw.Draw(picture)
    # Of the myocardium the outer edge is drawn: its inner one is that of the cavity, which comes last.
    wall = labels == Structure.MYOCARDIUM
    outlines = {
        Structure.RV: labels == Structure.RV,
        Structure.MYOCARDIUM: (wall | (labels == Structure.LV)) & wall.any(),
        Structure.LV: labels == Structure.LV,
    }
    step = np.array([fine[0] / labels.shape[1], fine[1] / labels.shape[0]])
    for structure, mask in outlines.items():
        for outline in _outlines(mask):
            points = (outline[:, ::-1] + 0.5) * step
            pen.line([(float(x), float(y)) for x, y in points], COLOURS[structure], width=2 * _FINE, joint="curve")
    return picture.resize(size, Image.Resampling.LANCZOS)


def _outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return closed lines of (row, column) around a mask, in pixels; one that touches the border is closed too."""
    from skimage import measure

    if not mask.any():
        return []
    find: Any = measure.find_contours  # it carries no types
    return [line - 1 for line in find(np.pad(mask, 1).astype(np.float32), 0.5)]


def _caption(picture: Image.Image, present: Sequence[Structure], text: str) -> None:
    pen, font = ImageDraw.Draw(picture), _font(14)
    x, y = float(_GAP + 6), picture.height - _STRIP + 6
    for structure in present:
        pen.text((x, y), LEGEND[structure], fill=COLOURS[structure], font=font)
        x += pen.textlength(LEGEND[structure], font=font) + 18
    end = pen.textlength(text, font=font)
    if x + end < picture.width - _GAP:
        pen.text((picture.width - _GAP - 6 - end, y), text, fill=_QUIET, font=font)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
