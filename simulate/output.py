"""The folder that a scan leaves behind, filled while the scan runs.

===================  ==================================================================================================
``raw.h5``           every spoke as it was measured, slice after slice on one clock, as ISMRMRD
``recon.nii.gz``     magnitudes of the finished slices on the reconstruction grid; unfinished slices are zero
``labels.nii.gz``     LV cavity 1, myocardium 2, RV cavity 3 on the same grid, where the scan is segmented
``truth.nii.gz``     what a perfect scan would have shown, where anybody knows it
``scan.json``        options, versions, seed, timings and results
``decisions.csv``    one row per step, those of an unfinished slice too
``report.html``      all of it for people
===================  ==================================================================================================

What is finished is safe: ``scan.json``, ``decisions.csv`` and ``recon.nii.gz`` are replaced whole after every slice.
"""

from __future__ import annotations

import csv
import io
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kspace.errors import InputError, UsageError
from kspace.formats.files import atomic_json, atomic_text
from kspace.formats.mrd import ScanWriter
from kspace.formats.nifti import write_cine, write_labels
from kspace.scan import Cine, Geometry, RadialScan
from simulate.record import ScanRecord, SliceDistrust, SliceRecord, StepRecord
from simulate.report import write_report
from simulate.scan_heart import CineSegmenter, ScanHeart, biomarker_record, find_scan_heart
from simulate.source import SpokeSource

FILES = ("raw.h5", "recon.nii.gz", "labels.nii.gz", "truth.nii.gz", "scan.json", "decisions.csv", "report.html")
"""The names of a scan folder; nothing else in it is ever replaced."""

PAUSE_S = 5.0
"""Between two slices: longer than R waves reach from one slice into the next (``kspace.scan.BEAT_MARGIN_S``)."""

SPACE_BYTES = 64_000_000
"""Kept free on the disk for images and report."""


def versions() -> dict[str, str]:
    """Return the versions of Spokewise, Python and the libraries that compute."""
    found = {"python": platform.python_version()}
    for name in ("spokewise", "torch", "numpy", "finufft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def plain(value: object) -> Any:
    """Return a value as JSON can hold it: NaN becomes null, infinities become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else ("inf" if value > 0 else "-inf")
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return value


def require_free(path: Path, *, overwrite: bool) -> None:
    """Refuse to write over a file that is there.

    Raises
    ------
    InputError
        When ``path`` exists and ``overwrite`` is not set, or is a folder.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder", expected="the name of a file to write")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists already", expected="a new name", hint="Add --overwrite to replace it")


def require_other(source: str, written: Iterable[Path]) -> None:
    """Refuse to replace the very file that is read.

    Raises
    ------
    UsageError
        When one of the files to be written is the source.
    """
    for path in written:
        if path.exists() and Path(source).exists() and path.samefile(source):
            raise UsageError(f"{path} is the source itself and would be replaced", expected="another place to write to")


def require_space(path: Path, batch: RadialScan) -> None:
    """Refuse to go on when the disk is about to be full: HDF5 does not survive that, and finished slices need room.

    Raises
    ------
    InputError
        When a batch of spokes would leave less than :data:`SPACE_BYTES` beside ``path``.
    """
    needed = sum(values.numel() * values.element_size() for values in (batch.samples, batch.positions))
    free = shutil.disk_usage(path.parent).free
    if free < needed + SPACE_BYTES:
        raise InputError(
            f"the disk of {path.parent} is full but for {free / 1e6:.0f} MB",
            expected=f"{(needed + SPACE_BYTES) / 1e6:.0f} MB for the next spokes and for what comes of them",
            hint="Make room, or write elsewhere",
        )


def stack_of(images: Mapping[int, Tensor], geometry: Geometry, rr_s: float, source: str) -> Cine:
    """Return the whole stack with zeros where a slice has no (frame, y, x) image; at least one has."""
    first = next(iter(images.values()))
    whole = torch.zeros((geometry.shape[0], *first.shape), dtype=torch.float32)
    for index, image in images.items():
        whole[index] = image.detach().cpu()
    return Cine(whole, geometry, min(max(rr_s, 0.2), 3.0), source)


@dataclass
class OneClock:
    """Puts slices, each of which starts at 0, after each other on one clock, :data:`PAUSE_S` apart.

    Parameters
    ----------
    geometry
        Of the whole stack.
    """

    geometry: Geometry
    _index: int | None = None
    _offset_s: float = 0.0
    _end_s: float = 0.0

    def place(self, index: int, batch: RadialScan) -> RadialScan:
        """Return a batch of slice ``index`` with the stack's geometry and clock; slices come one after another."""
        if self._index is not None and index != self._index:
            self._offset_s = self._end_s + PAUSE_S
        self._index = index
        if batch.n_spokes:
            self._end_s = self._offset_s + float(batch.time_s[-1])
        return replace(
            batch,
            time_s=batch.time_s + self._offset_s,
            ecg_s=batch.ecg_s + self._offset_s,
            slice_index=torch.full_like(batch.slices, index),
            geometry=self.geometry,
        )


class Interrupted(KeyboardInterrupt):
    """The user broke off; the message says what was kept."""


class ScanFolder:
    """Writes the folder of one scan; its ``on_...`` methods are what the loop calls.

    Parameters
    ----------
    path
        The folder. It is created with its parents.
    source
        What is scanned.
    slices
        The slices that are to be scanned.
    options
        Every option of the run, for the record.
    seed
        Of the simulated scanner.
    tr_s
        Repetition time for the header of the raw data; None where it is not known.
    overwrite
        Whether a folder that holds something may be used; only :data:`FILES` are replaced.
    segment
        Segments the finished slices at the end; None leaves the heart unmeasured.

    Raises
    ------
    InputError
        When the folder is not empty and ``overwrite`` is not set, is a file, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        source: SpokeSource,
        *,
        slices: Sequence[int],
        options: Mapping[str, object],
        seed: int = 0,
        tr_s: float | None = None,
        overwrite: bool = False,
        segment: CineSegmenter | None = None,
    ) -> None:
        self.path = path
        self._segment = segment
        self._heart: ScanHeart | str = "the scan was not segmented"
        self._stopping: Mapping[str, object] = {}
        self._source, self._slices = source, tuple(slices)
        self._options, self._seed = dict(options), seed
        self._started, self._clock = datetime.now(UTC), time.perf_counter()
        self._versions = versions()
        self._records: list[SliceRecord] = []
        self._steps: dict[int, list[StepRecord]] = {}
        self._placed = OneClock(source.geometry)
        self._created = _create(path, overwrite)
        try:
            self._raw = ScanWriter(path / "raw.h5", tr_s=tr_s)
        except BaseException:
            self._remove_created()
            raise

    def on_spokes(self, index: int, batch: RadialScan) -> None:
        """Keep a batch of spokes."""
        require_space(self.path / "raw.h5", batch)
        self._raw.append(self._placed.place(index, batch))

    def on_step(self, index: int, step: StepRecord) -> None:
        """Remember a decision."""
        self._steps.setdefault(index, []).append(step)

    def on_slice(self, record: SliceRecord) -> None:
        """Make a finished slice safe."""
        self._records.append(record)
        self._steps[record.index] = list(record.steps)
        self._write_images("recon.nii.gz", lambda r: r.image)
        self._write_tables(self.record(interrupted=True), "")

    def on_stop(self, stopping: Mapping[str, object]) -> None:
        """Remember what a policy of the whole stack decided."""
        self._stopping = dict(stopping)

    def finish(self, *, interrupted: bool = False, error: str = "") -> ScanRecord:
        """Close the raw data and write everything.

        Parameters
        ----------
        interrupted
            Whether the scan was broken off.
        error
            Why, where it was not by hand.
        """
        if self._raw.n_spokes:
            self._raw.close()
        else:
            self._raw.discard()
        if interrupted:
            self._heart = "the scan was interrupted"  # who broke off does not want to wait
        elif self._segment is not None and self._records:
            self._heart = find_scan_heart(
                self._stack(lambda r: r.image), [r.index for r in self._records], self._segment
            )
        if isinstance(self._heart, ScanHeart):
            labels = self._heart.labels(self._source.geometry.shape[0])
            write_labels(self.path / "labels.nii.gz", labels, self._source.geometry, self._source.rr_s)
        record = self.record(interrupted=interrupted)
        self._write_images("recon.nii.gz", lambda r: r.image)
        self._write_images("truth.nii.gz", lambda r: r.truth)
        write_report(self.path / "report.html", record)
        self._write_tables(record, error)
        return record

    def abandon(self) -> None:
        """Leave nothing behind; for a scan that failed before it had anything to keep."""
        self._raw.discard()
        self._remove_created()

    @property
    def n_spokes(self) -> int:
        """Number of spokes kept so far."""
        return self._raw.n_spokes

    def record(self, *, interrupted: bool = False) -> ScanRecord:
        """Return the record of the scan so far."""
        return ScanRecord(
            source=self._source.description,
            synthetic=self._source.synthetic,
            options=self._options,
            versions=self._versions,
            geometry=self._source.geometry,
            n_slices=len(self._slices),
            rr_s=self._source.rr_s,
            slices=tuple(self._records),
            interrupted=interrupted and len(self._records) < len(self._slices),
            wall_s=time.perf_counter() - self._clock,
            heart=self._heart,
            stopping=self._stopping,
        )

    def summary(self, record: ScanRecord, error: str = "") -> dict[str, Any]:
        """Return what goes into ``scan.json``."""
        n_slices, rows, columns = record.geometry.shape
        finished = {r.index for r in record.slices}
        answer: dict[str, Any] = {
            "source": record.source,
            "synthetic": record.synthetic,
            "interrupted": record.interrupted,
            "error": error or None,
            "seconds": record.seconds,
            "n_slices": record.n_slices,
            "slices": [_slice_summary(r) for r in record.slices],
            "slices_zero_in_recon": [index for index in range(n_slices) if index not in finished],
            "grid": {
                "slices": n_slices,
                "rows": rows,
                "columns": columns,
                "frames": record.slices[0].image.shape[0] if record.slices else None,
                "spacing_mm": list(record.geometry.spacing_mm),
                "rr_s": record.rr_s,
            },
            **biomarker_record(record.heart),
            **({"stopping": record.stopping} if record.stopping else {}),
            "options": record.options,
            "seed": self._seed,
            "versions": record.versions,
            "timings": {
                "started": self._started.isoformat(timespec="seconds"),
                "wall_s": record.wall_s,
                "reconstruction_s": sum(step.reconstruction_s for r in record.slices for step in r.steps),
            },
        }
        result: dict[str, Any] = plain(answer)
        return result

    def _write_tables(self, record: ScanRecord, error: str) -> None:
        atomic_text(self.path / "decisions.csv", decisions_table(self._steps))
        atomic_json(self.path / "scan.json", self.summary(record, error))

    def _write_images(self, name: str, pick: Callable[[SliceRecord], Tensor | None]) -> None:
        if any(pick(r) is not None for r in self._records):
            write_cine(self.path / name, self._stack(pick))

    def _stack(self, pick: Callable[[SliceRecord], Tensor | None]) -> Cine:
        images = {r.index: image for r in self._records if (image := pick(r)) is not None}
        return stack_of(images, self._source.geometry, self._source.rr_s, self._source.description)

    def _remove_created(self) -> None:
        for folder in reversed(self._created):
            try:
                folder.rmdir()
            except OSError:  # somebody else put something there meanwhile
                return


def decisions_table(steps: Mapping[int, Sequence[StepRecord]]) -> str:
    """Return the steps of each slice as CSV; what is not known is left empty."""
    rows = [(index, step) for index, of_slice in steps.items() for step in of_slice]
    scores = list(dict.fromkeys(score.name for _, step in rows for score in step.scores))
    truths = list(dict.fromkeys(name for _, step in rows for name in step.truth))
    columns = ["slice", "seconds", "spokes"]
    columns += [column for name in scores for column in (name, f"{name}_limit")]
    columns += ["stop", "reason", "reconstruction_s", *truths]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    for index, step in rows:
        known = {score.name: score for score in step.scores}
        cells: list[object] = [index, f"{step.seconds:.6g}", step.spokes]
        for name in scores:
            score = known.get(name)
            cells += ["", ""] if score is None else [_cell(score.value), _cell(score.limit)]
        cells += ["yes" if step.stop else "no", step.reason, f"{step.reconstruction_s:.3f}"]
        table.writerow(cells + [_cell(step.truth.get(name, math.nan)) for name in truths])
    return text.getvalue()


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _slice_summary(record: SliceRecord) -> dict[str, object]:
    last = record.steps[-1]
    return {
        "index": record.index,
        "seconds": record.seconds,
        "spokes": record.spokes,
        "stopped": record.stopped,
        "reason": record.reason,
        "spokes_per_frame": record.spokes_per_frame,
        "reconstruction_s": sum(step.reconstruction_s for step in record.steps),
        **{score.name: score.value for score in last.scores},
        **last.truth,
        **({} if record.distrust is None else _distrust_summary(record.distrust)),
    }


def _distrust_summary(distrust: SliceDistrust) -> dict[str, object]:
    return {
        "distrusted_spokes": distrust.flagged,
        "distrust": [round(float(value), 3) for value in distrust.probability],
        "watched_s": distrust.watched_s,
    }


def _create(path: Path, overwrite: bool) -> list[Path]:
    """Make the folder ready; return the folders that had to be made, outermost first."""
    if path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file", expected="a folder for the scan")
    created: list[Path] = []
    try:
        if path.is_dir() and any(path.iterdir()):
            if not overwrite:
                raise InputError(
                    f"the folder {path} is not empty",
                    expected="a new or an empty folder",
                    hint="Choose another, or add --overwrite to replace the scan in it",
                )
            for name in FILES:
                (path / name).unlink(missing_ok=True)
        for folder in [*reversed(path.parents), path]:
            if not folder.is_dir():
                folder.mkdir()
                created.append(folder)
    except OSError as error:
        for folder in reversed(created):
            folder.rmdir()
        raise InputError(
            f"the folder {path} cannot be written ({error.strerror or error})", expected="a folder that can be made"
        ) from error
    return created
