"""A short-axis cine from a folder of DICOM files, one image a file, whatever their names."""

from __future__ import annotations

import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from kspace.errors import InputError
from kspace.formats.dicom_files import Header, quiet, read_headers, read_pixels
from kspace.scan import Cine, Geometry

_SLICE_TOLERANCE_MM = 0.1


def read_cine_folder(folder: str | os.PathLike[str], *, series: int | str | None = None) -> Cine:
    """Read the cine in a folder and its subfolders.

    Parameters
    ----------
    folder
        Holds the files. Hidden files, DICOMDIR and whatever is no DICOM image are passed over.
    series
        Series number or series UID; needed only where the folder holds several series.

    Returns
    -------
        Images (slice, frame, y, x), float32, with the rescale slope and intercept applied. Slices descend along the
        normal ``row direction x column direction`` (in DICOM's own left-posterior-superior axes), which is the order
        of the Sunnybrook files and labels, base to apex. Phases ascend in trigger time, or in instance number where
        there is none. The affine takes (column, row, slice) to mm in RAS. The RR interval of each slice is its nominal
        interval, else 60 / heart rate, else last trigger plus one step; :attr:`Cine.source` says "RR assumed 1 s"
        where the files tell none of them. Nothing that names the patient is kept.

    Raises
    ------
    InputError
        When the folder holds no DICOM image or several series, or its images do not form one stack: missing phases,
        duplicates, slices that are not parallel or not evenly spaced, different sizes, colours, damaged pixels.
    """
    with quiet():
        stack = read_stack(folder, series=series)
        first = stack[0][0]
        affine = _affine(stack)
        images = np.empty((len(stack), len(stack[0]), first.rows, first.columns), dtype=np.float32)
        for index, phases in enumerate(stack):
            for frame, header in enumerate(phases):
                images[index, frame] = read_pixels(header)
    geometry = Geometry((len(stack), first.rows, first.columns), affine, first.thickness_mm)
    rr = [_rr_s(phases) for phases in stack]
    source = "DICOM" if None not in rr else "DICOM, RR assumed 1 s"
    return Cine(torch.from_numpy(images), geometry, tuple(1.0 if value is None else value for value in rr), source)


def read_stack(folder: str | os.PathLike[str], *, series: int | str | None = None) -> list[list[Header]]:
    """Read the headers alone: a list of phases for each slice, both in the order of :func:`read_cine_folder`.

    Raises
    ------
    InputError
        As :func:`read_cine_folder`, but for pixels and slices that are not evenly spaced.
    """
    folder = Path(folder)
    with quiet():
        return _sort(_one_series(read_headers(folder), series, folder))


def _one_series(headers: list[Header], series: int | str | None, folder: Path) -> list[Header]:
    chosen = headers
    if series is not None:
        wanted = str(series).strip()
        chosen = [h for h in headers if wanted == h.series_uid or wanted == str(h.series_number)]
    uids = Counter(h.series_uid for h in chosen)
    if len(uids) == 1:
        return chosen
    listed = Counter((h.series_number, h.series_uid, h.description) for h in headers)
    lines = [
        f"number {number}, UID {uid}, '{description}', {count} image(s)"
        for (number, uid, description), count in sorted(listed.items(), key=str)
    ]
    shown = "; ".join(lines[:12]) + ("; ..." if len(lines) > 12 else "")
    what = f"no series {series}" if series is not None and not chosen else f"{len(uids)} series"
    raise InputError(
        f"{folder} holds {what}: {shown}",
        expected="one series",
        hint="Select one with series=NUMBER or series=UID (--series on the command line)",
    )


def _sort(headers: list[Header]) -> list[list[Header]]:
    """Return the images as slices of phases, both in order, after checking that they form a full grid."""
    first = headers[0]
    for h in headers:
        if (h.rows, h.columns) != (first.rows, first.columns):
            raise InputError(
                f"{h.name} has {h.rows} x {h.columns} pixels but {first.name} {first.rows} x {first.columns}",
                expected="images of one size",
            )
        if not np.allclose(h.spacing_mm, first.spacing_mm, rtol=1e-3):
            raise InputError(
                f"{h.name} has a pixel spacing of {h.spacing_mm} mm but {first.name} {first.spacing_mm} mm",
                expected="one pixel spacing",
            )
        if not np.allclose(h.orientation, first.orientation, atol=2e-3):
            raise InputError(
                f"the slices of {h.name} and {first.name} are not parallel",
                expected="one stack of parallel slices",
                hint="Select the short-axis series alone",
            )
    depth = np.array([h.position @ first.normal for h in headers])
    order = np.argsort(-depth, kind="stable")
    slices: list[list[Header]] = []
    for previous, index in zip([None, *order[:-1]], order, strict=True):
        if previous is None or depth[previous] - depth[index] > 5 * _SLICE_TOLERANCE_MM:
            slices.append([])
        slices[-1].append(headers[index])
    by_trigger = _triggers_tell(slices)
    for index, phases in enumerate(slices):
        phases.sort(key=lambda h: (h.trigger_ms if by_trigger and h.trigger_ms is not None else 0.0, h.instance))
        _refuse_duplicates(phases, index, by_trigger)
    usual = Counter(len(phases) for phases in slices).most_common(1)[0][0]
    odd = [f"slice {index} has {len(phases)}" for index, phases in enumerate(slices) if len(phases) != usual]
    if odd:
        raise InputError(
            f"a phase is missing or too many: {', '.join(odd[:8])}",
            expected=f"{usual} phases in each of the {len(slices)} slices",
            hint="Copy the series again, complete",
        )
    return slices


def _triggers_tell(slices: list[list[Header]]) -> bool:
    """Whether trigger times order the phases: all are there, and not simply constant, as some exports leave them."""
    if any(h.trigger_ms is None for phases in slices for h in phases):
        return False
    return any(len(phases) < 3 or len({h.trigger_ms for h in phases}) > 1 for phases in slices)


def _refuse_duplicates(phases: list[Header], index: int, by_trigger: bool) -> None:
    for a, b in pairwise(phases):
        same = a.trigger_ms == b.trigger_ms if by_trigger else a.instance == b.instance
        if same:
            at = f"trigger time {a.trigger_ms:g} ms" if by_trigger else f"instance number {a.instance}"
            raise InputError(
                f"{a.name} and {b.name} both show slice {index} at {at}",
                expected="one image for each slice and phase",
                hint="Remove the duplicate",
            )


def _affine(stack: list[list[Header]]) -> np.ndarray:
    first = stack[0][0]
    for index, phases in enumerate(stack):
        shift = max(float(np.linalg.norm(h.position - phases[0].position)) for h in phases)
        if shift > 5 * _SLICE_TOLERANCE_MM:
            raise InputError(
                f"slice {index} shifts by {shift:.3g} mm in plane between phases", expected="slices that stay in place"
            )
    positions = np.array([phases[0].position for phases in stack])
    if len(stack) > 1:
        step = (positions[-1] - positions[0]) / (len(stack) - 1)
        line = positions[0] + np.arange(len(stack))[:, None] * step
        off = np.linalg.norm(positions - line, axis=1).max()
        if off > max(_SLICE_TOLERANCE_MM, 0.02 * float(np.linalg.norm(step))):
            gaps = ", ".join(f"{gap:.4g}" for gap in np.linalg.norm(np.diff(positions, axis=0), axis=1)[:20])
            raise InputError(
                f"the slices are not evenly spaced: {gaps} mm from one to the next",
                expected="one distance between neighbours",
                hint="A slice may be missing; copy the series again",
            )
    else:
        step = -first.normal * (first.slice_distance_mm or first.thickness_mm or 1.0)
    affine = np.eye(4)
    # DICOM gives (between rows, between columns); a step of one column runs along the row direction.
    affine[:3, 0] = first.orientation[0] * first.spacing_mm[1]
    affine[:3, 1] = first.orientation[1] * first.spacing_mm[0]
    affine[:3, 2] = step
    affine[:3, 3] = positions[0]
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def _rr_s(phases: list[Header]) -> float | None:
    nominal = [h.nominal_interval_ms / 1e3 for h in phases if h.nominal_interval_ms is not None]
    rate = [60.0 / h.heart_rate for h in phases if h.heart_rate]
    triggers = [h.trigger_ms / 1e3 for h in phases if h.trigger_ms is not None]
    candidates = [float(np.median(values)) for values in (nominal, rate) if values]
    if len(triggers) == len(phases) > 1:
        candidates.append(triggers[-1] + (triggers[-1] - triggers[0]) / (len(triggers) - 1))
    return next((value for value in candidates if 0.2 <= value <= 3.0), None)
