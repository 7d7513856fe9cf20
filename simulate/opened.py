"""Open what a user names as a source of spokes: a virtual patient, images to be scanned, or measured spokes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from kspace.errors import InputError, UsageError
from kspace.formats.source import open_source
from kspace.scan import Cine, RadialScan
from simulate.output import require_free
from simulate.patient.cohort import draw_cohort, write_cohort_table
from simulate.scanner import ScannerOptions, SimulatedScanner
from simulate.source import Replay, SpokeSource
from simulate.subject import SubjectOptions, scan_patient

N_FRAMES = 25
"""Cardiac phases where neither the user nor the source says."""


def open_spokes(
    source: str,
    scanner: Mapping[str, Any],
    *,
    seed: int = 0,
    n_frames: int | None = None,
    series: str | None = None,
    subject: SubjectOptions | None = None,
) -> SpokeSource:
    """Open a source and put it under the scanner, or get ready to replay it.

    Parameters
    ----------
    source
        ``phantom``, ``phantom:SEED``, or the path of a NIfTI cine, a DICOM folder or a radial ISMRMRD file.
    scanner
        The options of :class:`~simulate.scanner.ScannerOptions` that the user gave.
    seed
        Of the scanner's noise, coils, phase and heart rate.
    n_frames
        The frames asked for, None where the user did not say.
    series
        Number or UID of the series in a DICOM folder.
    subject
        Who the virtual patient is and what happens to them; None where the user did not say.

    Raises
    ------
    UsageError
        When the phantom's seed is no number, or a scanner or patient is described that is not simulated.
    InputError
        When the source cannot be read, or measured spokes can be sorted into no frames.
    """
    number = phantom_seed(source)
    if number is not None:
        who = subject or SubjectOptions()
        return scan_patient(who.patient(number), who, scanner, seed=seed)
    if subject is not None:
        raise UsageError("the options of a virtual patient do not go with a file", expected="phantom or phantom:SEED")
    opened = open_source(source, series=int(series) if series is not None and series.isdecimal() else series)
    if isinstance(opened, Cine):
        return SimulatedScanner(opened, ScannerOptions(**scanner, seed=seed))
    if scanner:
        names = {"n_coils": "--coils", "tr_s": "--tr-ms"}
        given = ", ".join(names.get(name, f"--{name}") for name in scanner)
        raise UsageError(f"{given} set up a simulated scanner", expected="a source of images, not of measured spokes")
    return Replay(with_frames(opened, n_frames)[0])


def phantom_seed(source: str) -> int | None:
    """Return the seed in ``phantom:SEED``, 0 for ``phantom``, and None for anything else.

    Raises
    ------
    UsageError
        When what follows the colon is no seed.
    """
    if source != "phantom" and not source.startswith("phantom:"):
        return None
    number = source.partition(":")[2] or "0"
    if not number.isdecimal() or source == "phantom:" or int(number) >= 2**32:
        raise UsageError(f"{source!r} is no phantom", expected="phantom, or phantom:SEED with a whole number")
    return int(number)


def with_frames(scan: RadialScan, n_frames: int | None) -> tuple[RadialScan, int]:
    """Settle how many frames a measured scan has.

    Parameters
    ----------
    scan
        Spokes with fixed frames, with an ECG, or with neither.
    n_frames
        What the user asked for; None for what the file fixes, else :data:`N_FRAMES`. One frame needs no gating: it
        takes all spokes together.

    Raises
    ------
    UsageError
        When the file fixes another number of frames.
    InputError
        When there are neither frames nor R waves and more than one frame is wanted.
    """
    if n_frames is not None and n_frames < 1:
        raise UsageError(f"{n_frames} frames", expected="at least one")
    if n_frames == 1:
        return replace(scan, frame=torch.zeros(scan.n_spokes, dtype=torch.int64)), 1
    if scan.frame is not None:
        fixed = int(scan.frame.max()) + 1
        if n_frames not in (None, fixed):
            raise UsageError(f"{n_frames} frames of a file that fixes {fixed}", expected=f"--frames {fixed}, 1 or none")
        return scan, fixed
    if not scan.ecg_s.numel():
        raise InputError(
            "the file holds neither R waves nor frames, so that its spokes cannot be sorted into a heartbeat",
            expected="an ECG or frame counters",
            hint="Add --frames 1 to reconstruct the average over time",
        )
    return scan, n_frames or N_FRAMES


def write_cohort(
    source: str, count: int, out: Path, subject: SubjectOptions | None, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write a table of virtual patients as CSV.

    Parameters
    ----------
    source
        ``phantom:SEED``, the first seed.
    count
        Number of patients.
    out, overwrite
        The file, and whether one that is there may be replaced.
    subject
        Restricts group, sex and heart rate; without a group the cohort is a mix, half of it healthy.

    Raises
    ------
    UsageError, InputError
        When the source is no phantom, or the file cannot be written.
    """
    first = phantom_seed(source)
    if first is None:
        raise UsageError(f"a cohort of {source!r}", expected="phantom or phantom:SEED")
    require_free(out, overwrite=overwrite)
    who = subject or SubjectOptions()
    seeds = range(first, first + count)
    if who.group is None:
        patients = draw_cohort(seeds, sex=who.sex_or_none, heart_rate_bpm=who.heart_rate_bpm)
    else:
        patients = (who.patient(seed) for seed in seeds)
    return {"cohort": str(out), "patients": write_cohort_table(patients, out), "synthetic": True}
