"""What the commands of the command line do: open a source, scan it, reconstruct a file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from kspace.coils import whiten, whitening_matrix
from kspace.delay_estimate import DelayEstimate, find_delays
from kspace.delays import NO_DELAYS, GradientDelays, correct
from kspace.drift import Drift, drift_of_slices
from kspace.equations import NormalEquations
from kspace.errors import InputError, SpokewiseError, UsageError
from kspace.formats.files import temporary_beside
from kspace.formats.nifti import write_cine
from kspace.formats.source import open_source
from kspace.gating import assign_frames
from kspace.noise import noise_std
from kspace.recon.method import Method
from kspace.recon.methods import make_method, weights_of
from kspace.scan import Cine, RadialScan
from simulate.acquisition import LoopOptions, OnDelays, OnSpokes, OnStep, scan_stack
from simulate.body_scanner import BodyScanner
from simulate.calibration import calibrate
from simulate.output import Interrupted, ScanFolder, require_free, stack_of
from simulate.patient.cohort import draw_cohort, write_cohort_table
from simulate.record import ScanRecord, SliceRecord
from simulate.scan_heart import CineSegmenter
from simulate.scanner import ScannerOptions, SimulatedScanner
from simulate.source import Replay, SpokeSource
from simulate.stack_loop import scan_stack_together
from simulate.stack_policy import StackPolicy
from simulate.subject import SubjectOptions, scan_patient

N_FRAMES = 25
"""Cardiac phases where neither the user nor the source says."""
_BATCH = 1000  # spokes


def choose_device(name: str) -> torch.device:
    """Return the device that ``auto``, ``cpu`` or ``cuda`` stands for.

    Raises
    ------
    UsageError
        For any other name, and for ``cuda`` where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"there is no device {name!r}", expected="auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("there is no CUDA device here", expected="--device auto or cpu")
    return torch.device("cpu" if name == "cpu" or not torch.cuda.is_available() else "cuda")


def parse_slices(text: str, n_slices: int) -> tuple[int, ...]:
    """Return the ascending indices that ``0,3-5`` stands for.

    Raises
    ------
    UsageError
        When the text is no such list, or names a slice that is not there.
    """
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UsageError(f"--slices {text!r} is no list of slices", expected="for example 0,3-5")
        if int(last or first) >= n_slices:
            raise UsageError(f"there is no slice {int(last or first)}", expected=f"slices from 0 to {n_slices - 1}")
        chosen.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(chosen))


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


def choose_slices(source: SpokeSource, text: str | None) -> tuple[int, ...]:
    """Return the slices to scan: those asked for, else all that have something to give.

    Raises
    ------
    UsageError
        When a slice is not there, or has no spokes to replay.
    """
    every = tuple(range(source.geometry.shape[0]))
    if isinstance(source, Replay):
        every = tuple(int(index) for index in torch.unique(source.scan.slices))
    if text is None:
        return every
    chosen = parse_slices(text, source.geometry.shape[0])
    empty = [index for index in chosen if index not in every]
    if empty:
        raise UsageError(f"slice {empty[0]} has no spokes", expected=f"some of {', '.join(map(str, every))}")
    return chosen


def make_tuned_method(name: str, options: Mapping[str, float | int | None]) -> Method:
    """Return a method with some of its options changed; None keeps the default.

    Raises
    ------
    UsageError
        When there is no such method, it has no such option, or the value is no positive number.
    """
    method: Any = make_method(name)
    given = {key: value for key, value in options.items() if value is not None}
    known = {field.name for field in fields(method)}
    for key, value in given.items():
        flag = f"--{key.replace('_', '-')}"
        if key not in known:
            raise UsageError(f"{flag} is no option of {name}", expected="an option that the method has")
        if not (math.isfinite(value) and value >= 0):
            raise UsageError(f"{flag} {value}", expected="a number that is not negative")
    changed: Method = replace(method, **given)
    return changed


@dataclass(frozen=True)
class ScanResult:
    """A scan that ran to its end: its record, what is in ``scan.json``, and the folder."""

    record: ScanRecord
    summary: dict[str, Any]
    folder: Path


def run_scan(
    source: SpokeSource,
    options: LoopOptions,
    out: Path,
    *,
    slices: Sequence[int],
    record_options: Mapping[str, object],
    seed: int = 0,
    overwrite: bool = False,
    segment: CineSegmenter | None = None,
    together: StackPolicy | None = None,
    on_spokes: OnSpokes | None = None,
    on_step: OnStep | None = None,
    on_slice: Callable[[SliceRecord], None] | None = None,
    on_delays: OnDelays | None = None,
) -> ScanResult:
    """Scan into a folder.

    Parameters
    ----------
    source, options, slices
        What is scanned, and how.
    out, overwrite
        The folder, see :class:`~simulate.output.ScanFolder`.
    record_options, seed
        For the record.
    segment
        Segments what was finished; None does not.
    together
        Decides on all slices at once; None lets each end by the rule of the options.
    on_spokes, on_step, on_slice, on_delays
        Hear of every batch of spokes, of every decision, of every slice, once it is safe, and of its gradient delays.

    Raises
    ------
    Interrupted
        When the user broke off; what was measured and finished is kept.
    SpokewiseError
        When a slice cannot be scanned. Finished slices are kept; without any, nothing is left behind.
    """
    tr_s = source.options.tr_s if isinstance(source, SimulatedScanner | BodyScanner) else _tr_s(source)
    folder = ScanFolder(
        out, source, slices=slices, options=record_options, seed=seed, tr_s=tr_s, overwrite=overwrite, segment=segment
    )
    finished = 0

    def spokes(index: int, batch: RadialScan) -> None:
        folder.on_spokes(index, batch)
        if on_spokes is not None:
            on_spokes(index, batch)

    def step(index: int, record: Any) -> None:
        folder.on_step(index, record)
        if on_step is not None:
            on_step(index, record)

    def done(record: SliceRecord) -> None:
        nonlocal finished
        folder.on_slice(record)
        finished += 1
        if on_slice is not None:
            on_slice(record)

    try:
        if together is None:
            scan_stack(
                source, options, slices=slices, on_slice=done, on_step=step, on_spokes=spokes, on_delays=on_delays
            )
        else:
            result = scan_stack_together(
                source, replace(options, times=together.times), together.policy, together.draw, slices=slices,
                on_slice=done, on_step=step, on_spokes=spokes, on_delays=on_delays,
            )  # fmt: skip
            folder.on_stop(together.record(result))
        record = folder.finish()
    except KeyboardInterrupt:
        if not folder.n_spokes:
            folder.abandon()
            raise Interrupted("nothing had been measured") from None
        folder.finish(interrupted=True)
        raise Interrupted(f"{finished} of {len(slices)} slices were finished and are kept in {out}") from None
    except BaseException as error:
        if finished:
            with suppress(SpokewiseError):  # the first error is the one to tell
                folder.finish(interrupted=True, error=str(error))
        else:
            folder.abandon()
        raise
    return ScanResult(record, folder.summary(record), out)


def _tr_s(source: SpokeSource) -> float | None:
    if not isinstance(source, Replay) or source.scan.n_spokes < 2:
        return None
    step = float(source.scan.time_s.diff().median())
    return step if step > 0 else None


def reconstruct_slice(scan: RadialScan, method: Method, n_frames: int, device: torch.device) -> Tensor:
    """Return the (frame, y, x) magnitude of a scan of one slice, in the unit of its received signal.

    Parameters
    ----------
    scan
        The spokes of the slice, with frames or an ECG.
    method, n_frames
        How to reconstruct, and how many frames.
    device
        Where the sums are kept and solved.
    """
    whitening = None if scan.noise_covariance is None else whitening_matrix(scan.noise_covariance)
    white = whiten(scan)
    frame = assign_frames(white, n_frames)
    equations = NormalEquations(white.matrix, n_frames, white.n_coils, density=method.density, device=device)
    for start in range(0, white.n_spokes, _BATCH):
        part = slice(start, start + _BATCH)
        equations.add(white.samples[part].to(device), white.positions[part].to(device), frame[part])
    calibration = calibrate(equations, whitening)
    image = method(equations, calibration.maps, noise_std=noise_std(white)).image
    return (image.abs() * calibration.shading).cpu()


def reconstruct_file(
    raw: Path,
    out: Path,
    method: Method,
    *,
    n_frames: int | None = None,
    delays: GradientDelays | Literal["auto"] = NO_DELAYS,
    drift: bool = False,
    device: torch.device | None = None,
    overwrite: bool = False,
    on_slice: Callable[[int], None] | None = None,
    on_delays: Callable[[DelayEstimate], None] | None = None,
    on_drift: Callable[[dict[int, Drift]], None] | None = None,
) -> dict[str, Any]:
    """Reconstruct all slices of a radial ISMRMRD file into a NIfTI cine of magnitudes.

    Parameters
    ----------
    raw, out
        The file to read, and the ``.nii`` or ``.nii.gz`` file to write.
    method
        How.
    n_frames
        Frames, see :func:`with_frames`.
    delays
        Gradient delays to correct; ``auto`` finds them and corrects what is significant.
    drift
        Whether to take out drift of phase and gain then, and the phase that goes with a spoke's direction.
    device
        Where to compute; the CPU by default.
    overwrite
        Whether a file that is there may be replaced.
    on_slice
        Hears of each slice that is done.
    on_delays
        Hears of the gradient delays that were found.
    on_drift
        Hears of the drift in each slice.

    Raises
    ------
    UsageError, InputError
        When the names, the file or the frames are not usable; nothing is left behind.
    """
    if not out.name.endswith((".nii", ".nii.gz")):
        raise UsageError(f"{out.name} does not end like a NIfTI file", expected="a name ending in .nii or .nii.gz")
    require_free(out, overwrite=overwrite)
    temporary_beside(out)  # refuses now what could not be written after minutes of work
    scan = open_source(raw)
    if isinstance(scan, Cine):
        raise InputError(f"{raw.name} holds images", expected="a radial ISMRMRD file")
    scan, frames = with_frames(scan, n_frames)
    applied, estimate = find_delays(scan if delays != "auto" else whiten(scan), delays)
    if on_delays is not None and estimate is not None:
        on_delays(estimate)
    scan = correct(scan, applied)
    drifts: dict[int, Drift] = {}
    if drift:
        # After the delays: a large delay can pass for a drift, a drift only for a small delay.
        scan, drifts = drift_of_slices(scan)
        if on_drift is not None:
            on_drift(drifts)
    images: dict[int, Tensor] = {}
    for index in (int(i) for i in torch.unique(scan.slices)):
        images[index] = reconstruct_slice(scan.select_slice(index), method, frames, device or torch.device("cpu"))
        if on_slice is not None:
            on_slice(index)
    rr_s = Replay(scan).rr_s
    write_cine(out, stack_of(images, scan.geometry, rr_s, scan.source))
    return {
        "cine": str(out),
        "source": scan.source,
        "method": method.name,
        "weights": weights_of(method),
        "frames": frames,
        "delays": {
            "asked": "auto" if delays == "auto" else [delays.x, delays.y, delays.xy],
            "applied": [applied.x, applied.y, applied.xy],
            **({} if estimate is None else estimate.record()),
        },
        "drift": {str(index): found.record() for index, found in drifts.items()} if drift else None,
        "slices": [
            {"index": index, "spokes": int((scan.slices == index).sum())} for index in range(scan.geometry.shape[0])
        ],
        "slices_zero_in_recon": [index for index in range(scan.geometry.shape[0]) if index not in images],
        "rr_s": rr_s,
    }
