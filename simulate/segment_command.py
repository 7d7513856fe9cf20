"""What ``spokewise segment`` does: read a cine, segment it, measure it, and write labels with their movie and plot."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kspace.biomarkers import biomarkers, curve_bands
from kspace.curve_problems import curve_problems
from kspace.errors import InputError, ShapeError, UsageError
from kspace.formats.files import atomic_json, atomic_text, temporary_beside
from kspace.formats.nifti import read_labels, write_labels
from kspace.formats.source import open_source
from kspace.scan import Cine
from kspace.segment.conventions import to_spokewise
from kspace.segment.dicom_seg import require_highdicom, write_dicom_seg
from kspace.segment.scores import NAMES, score
from kspace.segment.segmentation import FOREGROUND, Segmentation, SlicePosition
from kspace.volume_curves import volume_curves
from simulate.choices import parse_slices
from simulate.output import plain, require_free, require_other, versions
from simulate.scan_heart import CineSegmenter
from simulate.segment_movie import movie_suffix, write_movie
from simulate.segment_plot import plot_curves
from simulate.segment_text import biomarker_line


@dataclass(frozen=True)
class SegmentOptions:
    """What the user asked for.

    Parameters
    ----------
    labels, convention
        The truth to compare with, and what its values mean (:mod:`kspace.segment.conventions`).
    slices
        Which, as ``0,3-5``: evenly spaced.
    series
        Number or UID of the series in a DICOM folder.
    rr_s
        Length of the beat in seconds, where the source does not tell it or tells it wrong.
    seg
        Folder for DICOM segmentation objects.
    scale
        Of the intervals: see :func:`kspace.biomarkers.biomarkers`.
    overwrite
        Whether files that are there may be replaced.
    """

    labels: Path | None = None
    convention: str = "spokewise"
    slices: str | None = None
    series: str | None = None
    rr_s: float | None = None
    seg: Path | None = None
    scale: float = 1.0
    overwrite: bool = False


def segment_command(
    source: str,
    out: Path,
    segment: CineSegmenter,
    options: SegmentOptions,
    *,
    weights: Sequence[str] = (),
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Segment a cine and write what came of it.

    Parameters
    ----------
    source
        A 4D NIfTI file, a DICOM folder, or the folder of a ``spokewise scan``, whose reconstruction is taken.
    out
        ``NAME.nii.gz`` for the labels on the source's own grid. Beside them go ``NAME.json``, the movie ``NAME.webp``
        (or ``.gif``) and the plot ``NAME.svg``.
    segment
        Draws the labels.
    options
        What the user asked for.
    weights
        Names of the networks, for the record.
    device
        Where to compute; the CPU by default.

    Returns
    -------
        What ``NAME.json`` holds.

    Raises
    ------
    UsageError, InputError
        When source, truth, names or options are not usable; nothing has been written then.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    beside = files_beside(out)
    path = _cine_path(source)
    require_other(str(path), beside.values())
    for file in beside.values():
        require_free(file, overwrite=options.overwrite)
    temporary_beside(out)
    _check_seg(path, options)
    whole = _read(path, options)
    truth = None if options.labels is None else _read_truth(options.labels, options.convention, whole)
    chosen = _choose(whole, options.slices)
    cine = whole.select_slices(chosen)
    where = device or torch.device("cpu")
    with _progress() as on_slice:
        drawn = segment(replace(cine, images=cine.images.to(where)), on_slice=on_slice)
    segmentation = _on_cpu(drawn)
    labels = torch.zeros(whole.images.shape, dtype=torch.uint8)
    labels[list(chosen)] = segmentation.labels
    rr_s = _rr_s(cine, options)
    found = biomarkers(segmentation, rr_s, scale=options.scale)
    curves = volume_curves(segmentation.labels, segmentation.geometry, segmentation.positions)
    bands = curve_bands(segmentation, options.scale)
    record: dict[str, Any] = {
        "source": cine.source,
        **{name: str(file) for name, file in beside.items() if name != "record"},
        **found.record(),
        "slices": _slices(segmentation, chosen),
        "slices_not_segmented": [index for index in range(whole.n_slices) if index not in chosen],
        "curves": {
            "unit": curves.unit,
            **{
                NAMES[structure]: {
                    "value": curves.of(structure).tolist(),
                    "low": bands[structure][0].tolist() if structure in bands else None,
                    "high": bands[structure][1].tolist() if structure in bands else None,
                }
                for structure in FOREGROUND
            },
        },
        "problems": list(curve_problems(curves)),
        "samples": len(segmentation.samples),
        "grid": {
            "slices": whole.n_slices,
            "rows": whole.geometry.shape[1],
            "columns": whole.geometry.shape[2],
            "frames": whole.n_frames,
            "spacing_mm": list(whole.geometry.spacing_mm),
            "rr_s": rr_s,
        },
    }
    if truth is not None:
        record["scores"] = score(segmentation, truth[list(chosen)], segmentation.geometry).to_dict()
    if options.seg is not None:
        series = _series(options.series)
        record["dicom_seg"] = [str(file) for file in write_dicom_seg(options.seg, labels, path, series=series)]
    write_movie(beside["movie"], cine, segmentation, list(chosen))
    atomic_text(beside["plot"], plot_curves(curves, bands, rr_s=rr_s, subtitle=biomarker_line(found)))
    write_labels(out, labels, whole.geometry, cine.slice_rr_s(0))
    record["options"] = {
        "source": path.name,
        "labels": None if options.labels is None else options.labels.name,
        "convention": options.convention,
        "slices": list(chosen),
        "series": options.series,
        "rr_s": options.rr_s,
        "interval_scale": options.scale,
        "device": str(where),
    }
    record |= {"weights": list(weights), "versions": versions()}
    record["timings"] = {"started": started.isoformat(timespec="seconds"), "wall_s": time.perf_counter() - clock}
    result: dict[str, Any] = plain(record)
    atomic_json(beside["record"], result)
    return result


def files_beside(out: Path) -> dict[str, Path]:
    """Return what is written, by what it is: ``labels``, ``record``, ``movie`` and ``plot``.

    Raises
    ------
    UsageError
        When the name is not that of a NIfTI file.
    """
    suffix = next((end for end in (".nii.gz", ".nii") if out.name.endswith(end) and out.name != end), None)
    if suffix is None:
        raise UsageError(f"{out.name} does not end like a NIfTI file", expected="a name ending in .nii or .nii.gz")
    stem = out.name.removesuffix(suffix)
    ends = {"record": ".json", "movie": movie_suffix(), "plot": ".svg"}
    return {"labels": out, **{what: out.with_name(stem + end) for what, end in ends.items()}}


def _cine_path(source: str) -> Path:
    """Return the path of the cine: of a scan's folder, its reconstruction."""
    path = Path(source)
    if path.is_dir() and (path / "recon.nii.gz").is_file():
        return path / "recon.nii.gz"
    return path


def _series(series: str | None) -> int | str | None:
    return int(series) if series is not None and series.isdecimal() else series


def _read(path: Path, options: SegmentOptions) -> Cine:
    opened = open_source(path, series=_series(options.series))
    if not isinstance(opened, Cine):
        raise InputError(
            f"{path.name} holds spokes",
            expected="images: a 4D NIfTI file, a DICOM folder or the folder of a scan",
            hint="Reconstruct them first: spokewise recon",
        )
    if options.rr_s is not None and not 0.2 <= options.rr_s <= 3.0:
        raise UsageError(f"--rr-s {options.rr_s:g}", expected="0.2 to 3 seconds")
    return opened if options.rr_s is None else replace(opened, rr_s=options.rr_s)


def _rr_s(cine: Cine, options: SegmentOptions) -> float | None:
    """Return the mean beat of the slices; None where the reader only assumed one."""
    if options.rr_s is None and "RR assumed" in cine.source:
        return None
    return sum(cine.slice_rr_s(index) for index in range(cine.n_slices)) / cine.n_slices


def _read_truth(path: Path, convention: str, cine: Cine) -> Tensor:
    truth = to_spokewise(read_labels(path), convention)
    if truth.shape != cine.images.shape:
        raise ShapeError(
            f"the truth in {path.name}", truth, f"the cine's {tuple(cine.images.shape)} (slice, frame, y, x)"
        )
    return truth


def _choose(cine: Cine, text: str | None) -> tuple[int, ...]:
    """Return the slices to segment: those asked for, else all that hold an image (a scan may have left out some)."""
    if text is not None:
        return parse_slices(text, cine.n_slices)
    seen = cine.images.abs().amax((1, 2, 3)) > 0
    chosen = tuple(int(index) for index in torch.nonzero(seen).flatten())
    if not chosen:
        raise InputError("the cine is zero throughout", expected="images")
    if len({b - a for a, b in pairwise(chosen)}) > 1:
        raise InputError(
            f"only slices {', '.join(map(str, chosen))} hold images, and they are not evenly spaced",
            expected="evenly spaced slices",
            hint="Choose some of them with --slices",
        )
    return chosen


def _check_seg(path: Path, options: SegmentOptions) -> None:
    if options.seg is None:
        return
    if not path.is_dir():
        raise UsageError("--seg needs the images' own DICOM files", expected="a DICOM folder as SOURCE")
    require_highdicom()
    if options.seg.is_file() or (options.seg.is_dir() and any(options.seg.iterdir()) and not options.overwrite):
        raise InputError(
            f"{options.seg} is there already", expected="a new or an empty folder", hint="Add --overwrite to replace"
        )


def _on_cpu(drawn: Segmentation) -> Segmentation:
    names = ("labels", "position_probabilities", "samples", "entropy", "flip_risk")
    return replace(drawn, **{name: getattr(drawn, name).cpu() for name in names})


def _slices(segmentation: Segmentation, chosen: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "index": number,
            "position": segmentation.positions[index].word,
            "probabilities": {
                position.word: float(segmentation.position_probabilities[index, position]) for position in SlicePosition
            },
            "flip_risk_nats": float(segmentation.flip_risk[index].nanmean()),
        }
        for index, number in enumerate(chosen)
    ]


@contextmanager
def _progress() -> Iterator[Any]:
    """Yield what hears of slices: a bar on a terminal, else one line at the end."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as progress:
            task = progress.add_task("looking for the heart", total=None)
            yield lambda done, total: progress.update(task, completed=done, total=total, description="drawing")
        return

    def line(done: int, total: int) -> None:
        if done == total:
            print(f"{total} slice(s) segmented", file=sys.stderr, flush=True)

    yield line
