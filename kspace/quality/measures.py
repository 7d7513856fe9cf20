"""What stacks of areas measure, many at once, and what counts as having missed it.

:mod:`kspace.biomarkers` measures one segmented heart; here are the same numbers of thousands of states of a scan, in
NumPy. End-diastole and end-systole are those of the LV, for the RV too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kspace.biomarkers import MUSCLE_G_PER_ML
from kspace.errors import ShapeError, UsageError
from kspace.quality.trajectory import Array
from kspace.segment.segmentation import FOREGROUND, Structure

MEASURES = ("lv_edv_ml", "lv_esv_ml", "lv_ef_percent", "lv_mass_g", "rv_edv_ml", "rv_esv_ml", "rv_ef_percent")
"""In this order along the last axis of :func:`measured`."""
_LV, _WALL, _RV = (FOREGROUND.index(s) for s in (Structure.LV, Structure.MYOCARDIUM, Structure.RV))


def without_islands(areas: Array) -> Array:
    """Return areas without slices that stand alone, as :func:`kspace.volume_curves.volume_curves` leaves them out.

    Of each structure in each frame, a single slice that an empty one parts from the rest does not count, unless no run
    of slices holds more.

    Parameters
    ----------
    areas
        (..., slice, structure, frame).
    """
    by_slice = np.moveaxis(areas, -3, 0)
    there = by_slice > 0
    nothing = np.zeros_like(there[:1])
    alone = there & ~np.concatenate([nothing, there[:-1]]) & ~np.concatenate([there[1:], nothing])
    if not alone.any():
        return areas
    run = by_slice.copy()
    for index in range(1, len(run)):
        run[index] = np.where(there[index], run[index - 1] + run[index], 0)
    for index in range(len(run) - 2, -1, -1):
        run[index] = np.where(there[index] & there[index + 1], run[index + 1], run[index])
    # Of runs that hold as much, the first is the heart.
    others = np.arange(len(run)).reshape(-1, *(1,) * (run.ndim - 1)) != run.argmax(0)
    return np.moveaxis(np.where(alone & others, 0, by_slice), 0, -3)


def volumes_ml(areas_mm2: Array, spacing_mm: float) -> Array:
    """Return the volumes (..., structure, frame) of areas (..., slice, structure, frame), islands left out."""
    if areas_mm2.ndim < 3 or areas_mm2.shape[-2] != len(FOREGROUND):
        raise ShapeError("the areas", areas_mm2, f"(..., slice, {len(FOREGROUND)}, frame)")
    total: Array = without_islands(areas_mm2).sum(-3) * spacing_mm / 1000
    return total


def measured(areas_mm2: Array, spacing_mm: float) -> Array:
    """Return the measures (..., measure) of areas (..., slice, structure, frame), in the order of :data:`MEASURES`.

    NaN where there is no LV at all, and for the EF of an RV that is not there.
    """
    return of_volumes(volumes_ml(areas_mm2, spacing_mm))


def of_volumes(volumes: Array) -> Array:
    """Return the measures (..., measure) of volume curves (..., structure, frame) in mL."""
    left = volumes[..., _LV, :]
    # A frame in which nothing at all is labelled is one that nobody drew, and no end-systole.
    drawn = volumes.sum(-2) > 0
    ed, es = left.argmax(-1)[..., None], np.where(drawn, left, np.inf).argmin(-1)[..., None]

    def at(structure: int, frame: NDArray[Any]) -> Array:
        taken: Array = np.take_along_axis(volumes[..., structure, :], frame, -1)[..., 0]
        return taken

    edv, esv, mass = at(_LV, ed), at(_LV, es), at(_WALL, ed) * MUSCLE_G_PER_ML
    rv_edv, rv_esv = at(_RV, ed), at(_RV, es)
    found = np.stack(
        [edv, esv, 100 * _share(edv - esv, edv), mass, rv_edv, rv_esv, 100 * _share(rv_edv - rv_esv, rv_edv)], -1
    )
    found[~(edv > 0)] = np.nan
    return found


def _share(part: Array, whole: Array) -> Array:
    share: Array = np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)
    return share


@dataclass(frozen=True)
class Tolerance:
    """How far a scan that was stopped may be from a complete one.

    A scan **misses** when any of these is not so, or cannot be measured: its LVEF lies within ``ef_points`` of that of
    the complete scan; its LVEDV and its LVESV lie within ``volume_percent`` of theirs, or within ``volume_ml`` if that
    is more.

    Parameters
    ----------
    ef_points
        Percentage points.
    volume_percent
        Of the volume itself.
    volume_ml
        Millilitres: 5 % of a small end-systolic volume is less than a row of pixels.

    Raises
    ------
    UsageError
        When they are not positive.
    """

    ef_points: float = 5.0
    volume_percent: float = 5.0
    volume_ml: float = 5.0

    def __post_init__(self) -> None:
        if not (0 < self.ef_points < np.inf and 0 < self.volume_percent < np.inf and 0 <= self.volume_ml < np.inf):
            raise UsageError(
                f"a tolerance of {self.ef_points:g} points, {self.volume_percent:g} % and {self.volume_ml:g} mL",
                expected="positive numbers",
            )

    def limits(self, reference: Array) -> Array:
        """Return how far EF, EDV and ESV may be off, (..., 3), of measures (..., measure)."""
        edv, esv = reference[..., 0], reference[..., 1]
        share = self.volume_percent / 100
        return np.stack(
            [np.full_like(edv, self.ef_points), np.maximum(share * edv, self.volume_ml),
             np.maximum(share * esv, self.volume_ml)], -1,
        )  # fmt: skip

    def errors(self, found: Array, reference: Array) -> Array:
        """Return the errors of EF, EDV and ESV in units of what is allowed, (..., 3): above 1, or NaN, is a miss."""
        which = [MEASURES.index(name) for name in TOLERATED]
        off: Array = np.abs(found[..., which] - reference[..., which]) / self.limits(reference)
        return off

    def excess(self, found: Array, reference: Array) -> Array:
        """Return the largest of :meth:`errors`, (...); infinite where one is not known."""
        worst: Array = self.errors(found, reference).max(-1)
        return np.where(np.isnan(worst), np.inf, worst)

    def describe(self) -> str:
        """Return it in words."""
        more = f" (or {self.volume_ml:g} mL)" if self.volume_ml else ""
        return f"EF within {self.ef_points:g} points, LV volumes within {self.volume_percent:g} %{more}"


TOLERATED = ("lv_ef_percent", "lv_edv_ml", "lv_esv_ml")
"""What a tolerance is about, in the order of :meth:`Tolerance.errors`."""
