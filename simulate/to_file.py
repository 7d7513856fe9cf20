"""Simulated spokes as an ISMRMRD file, with the truth beside it.

=========================  =========================================================================================
``NAME.h5``                the spokes, slice after slice on one clock
``NAME.truth.nii.gz``      what a perfect scan would show: the band-limited magnitude of each phase
``NAME.labels.nii.gz``     virtual patients only: LV cavity 1, myocardium 2, RV cavity 3 on the same grid
``NAME.spokes.npz``        virtual patients only: what each spoke suffered (:class:`simulate.spoke_truth.Truth`)
``NAME.patient.json``      virtual patients only: every parameter with its unit and source, and the exact volumes
=========================  =========================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kspace.errors import UsageError
from kspace.formats.files import atomic_json
from kspace.formats.mrd import ScanWriter
from kspace.formats.nifti import write_cine, write_labels
from simulate.body_scanner import BodyScanner, BodySlice
from simulate.output import Interrupted, OneClock, require_free, require_space, stack_of
from simulate.patient.anatomy import PatientBody
from simulate.patient.quantities import describe
from simulate.scanner import SimulatedScanner
from simulate.source import SliceStream, SpokeSource
from simulate.spoke_truth import Truth

_BATCH_S = 2.0


def files_beside(out: Path, *, patient: bool) -> dict[str, Path]:
    """Return where the truth of a raw file goes, by what it is: ``raw.truth.nii.gz`` beside ``raw.h5``."""
    stem = out.stem if out.suffix in (".h5", ".hdf5", ".mrd") else out.name
    names = {"truth": "truth.nii.gz"}
    if patient:
        names |= {"labels": "labels.nii.gz", "spoke_truth": "spokes.npz", "patient": "patient.json"}
    return {what: out.with_name(f"{stem}.{name}") for what, name in names.items()}


@dataclass
class _Truths:
    """What is known of the slices so far."""

    source: SimulatedScanner | BodyScanner
    files: dict[str, Path]
    n_frames: int
    images: dict[int, Tensor] = field(default_factory=dict)
    labels: dict[int, Tensor] = field(default_factory=dict)
    volumes: list[dict[str, float]] | None = None
    _slices: list[BodySlice] = field(default_factory=list)

    def open(self, index: int, stream: SliceStream) -> None:
        truth = stream.truth(self.n_frames)
        assert truth is not None
        self.images[index] = truth
        if isinstance(stream, BodySlice):
            self.labels[index] = stream.labels(self.n_frames)
            self.volumes = self.volumes or stream.volumes_ml(self.n_frames)
            self._slices.append(stream)

    def write(self) -> None:
        if not self.images:
            return
        geometry, rr_s = self.source.geometry, self.source.rr_s
        write_cine(self.files["truth"], stack_of(self.images, geometry, rr_s, self.source.description))
        if not self._slices:
            return
        labels = torch.zeros((geometry.shape[0], self.n_frames, *geometry.shape[1:]), dtype=torch.uint8)
        for index, image in self.labels.items():
            labels[index] = image.cpu()
        write_labels(self.files["labels"], labels, geometry, rr_s)
        Truth.concatenate([stream.spoke_truth() for stream in self._slices]).write_npz(self.files["spoke_truth"])
        body = getattr(self.source, "body", None)
        if isinstance(body, PatientBody):
            record = {
                "synthetic": True,
                "patient": body.patient.to_dict(),
                "parameters": describe(body.patient),
                "volumes_ml": self.volumes,
            }
            atomic_json(self.files["patient"], record)


def simulate_to_file(
    source: SpokeSource,
    out: Path,
    *,
    seconds: float,
    slices: Sequence[int],
    n_frames: int,
    overwrite: bool = False,
    on_slice: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write so many seconds of spokes of each slice as ISMRMRD, and the truth beside them.

    Parameters
    ----------
    source
        A simulated scanner.
    out
        The raw file; the truth goes to :func:`files_beside`.
    seconds
        For each slice.
    slices, n_frames
        Which slices, and the frames of the truth.
    overwrite
        Whether files that are there may be replaced.
    on_slice
        Hears of each finished slice: its index and its number of spokes.

    Raises
    ------
    UsageError
        When the source is measured already, or the seconds are not positive.
    Interrupted
        When the user broke off; the spokes so far are kept.
    """
    if not isinstance(source, SimulatedScanner | BodyScanner):
        raise UsageError("the source holds measured spokes already", expected="images to simulate spokes from")
    if not (math.isfinite(seconds) and seconds > 0):
        raise UsageError(f"{seconds:g} seconds of scanning", expected="a positive number")
    if n_frames < 1:
        raise UsageError(f"{n_frames} frames", expected="at least one")
    beside = files_beside(out, patient=isinstance(source, BodyScanner))
    for path in (out, *beside.values()):
        require_free(path, overwrite=overwrite)
    truths = _Truths(source, beside, n_frames)
    n_batches = math.ceil(seconds / _BATCH_S)
    counts: dict[int, int] = {}
    clock = OneClock(source.geometry)
    try:
        with ScanWriter(out, tr_s=source.options.tr_s) as raw:
            for index in slices:
                stream = source.open_slice(index)
                truths.open(index, stream)
                counts[index] = 0
                for _ in range(n_batches):
                    batch = stream.acquire(seconds / n_batches)
                    require_space(out, batch)
                    raw.append(clock.place(index, batch))
                    counts[index] += batch.n_spokes
                if on_slice is not None:
                    on_slice(index, counts[index])
    except KeyboardInterrupt:
        if not sum(counts.values()):
            raise Interrupted("nothing had been measured") from None
        truths.write()
        raise Interrupted(f"{sum(counts.values())} spokes are kept in {out}") from None
    truths.write()
    return {
        "raw": str(out),
        **{what: str(path) for what, path in beside.items()},
        "source": source.description,
        "synthetic": True,
        "slices": [{"index": index, "seconds": seconds, "spokes": count} for index, count in counts.items()],
        "frames": n_frames,
        "seed": source.options.seed,
    }
