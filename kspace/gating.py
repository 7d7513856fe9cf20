"""From instants and R waves to cardiac phase, and from phase to frame.

A beat runs from one R wave to the next and is stretched linearly to its own length, so that phase 0 is the R wave and
phase 1 would be the next one. Beats are numbered by the R wave that begins them; the last one is *open* until its
successor is seen.

What a stream may rely on: the phase of a spoke between two known R waves depends on those two alone. Later R waves
change only the spokes whose beat had to be extrapolated: after the last R wave (the open beat) and before the first.

Where a trigger was missed or counted twice, the interval is too long or too short by a factor of about two. Such beats
are stretched like any other unless a ``tolerance`` is given; then :func:`usable_beats` finds them and
:func:`assign_frames` gives their spokes the frame -1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kspace.errors import InputError, ShapeError, UsageError
from kspace.scan import RadialScan

#: Intervals outside this range of the median RR interval are no heartbeats, whatever the tolerance.
PLAUSIBLE_RR = (0.3, 2.0)

# Beyond this the R waves are surely not in seconds.
_LONGEST_RR_S = 10.0
_BELOW_ONE = math.nextafter(1.0, 0.0)


def _instants(name: str, values: Tensor, device: torch.device) -> Tensor:
    if values.ndim != 1:
        raise ShapeError(name, values, f"({'beat' if name == 'ecg_s' else 'spoke'},)")
    if not bool(torch.isfinite(values).all()):
        raise InputError(f"{name} holds values that are NaN or infinite", expected="instants in seconds")
    return values.to(device=device, dtype=torch.float64)


def _r_waves(ecg_s: Tensor, device: torch.device) -> Tensor:
    """Ascending R waves without duplicates, checked."""
    waves: Tensor = torch.unique(_instants("ecg_s", ecg_s, device))
    if waves.numel() == 0:
        raise InputError(
            "there are no R waves to gate with",
            expected="at least one instant in ecg_s",
            hint="Record an ECG, give the scan its R waves, or fix the frame of each spoke in scan.frame",
        )
    if waves.numel() > 1 and float(waves.diff().median()) > _LONGEST_RR_S:
        raise InputError(
            f"the median RR interval is {float(waves.diff().median()):.4g} s",
            expected=f"at most {_LONGEST_RR_S:g} s",
            hint="Divide by 1000 if the R waves are in milliseconds",
        )
    return waves


def beat_of(time_s: Tensor, ecg_s: Tensor) -> Tensor:
    """Find the beat in which each spoke was taken.

    Parameters
    ----------
    time_s
        (spoke,) instants in seconds, in any order.
    ecg_s
        (beat,) instants of R waves in seconds; they are sorted, and duplicates count once.

    Returns
    -------
    Tensor
        (spoke,) int64: -1 before the first R wave, then counted from 0; the last one is the open beat. A spoke on an R
        wave belongs to the beat that begins.

    Raises
    ------
    ShapeError, InputError
        When an argument is not one-dimensional or not finite, or when there are no R waves.
    """
    waves = _r_waves(ecg_s, time_s.device)
    return torch.searchsorted(waves, _instants("time_s", time_s, time_s.device), right=True) - 1


def usable_beats(ecg_s: Tensor, tolerance: float = 0.5) -> Tensor:
    """Tell the beats whose length is close to the median from arrhythmic, missed and double triggers.

    Parameters
    ----------
    ecg_s
        (beat,) instants of R waves in seconds; they are sorted, and duplicates count once.
    tolerance
        Largest deviation of an RR interval from the median, as a fraction of the median. Half finds missed and
        double triggers (factors of two); 0.15 to 0.25 also rejects ectopic beats. Intervals outside
        :data:`PLAUSIBLE_RR` times the median are never usable.

    Returns
    -------
    Tensor
        (beat,) bool, for the beat that each R wave begins. The open beat at the end counts as usable, as nobody knows
        its length yet. The answer can change while beats arrive, because the median does.

    Raises
    ------
    ShapeError, InputError
        When ``ecg_s`` is not one-dimensional, not finite or empty.
    UsageError
        When the tolerance is not positive.
    """
    if not tolerance > 0:
        raise UsageError(f"the RR tolerance is {tolerance}", expected="a positive fraction of the median RR interval")
    waves = _r_waves(ecg_s, ecg_s.device)
    usable = torch.ones(waves.shape, dtype=torch.bool, device=waves.device)
    if waves.numel() > 1:
        intervals = waves.diff()
        ratio = intervals / _median(intervals)
        low, high = PLAUSIBLE_RR
        usable[:-1] = ((ratio - 1).abs() <= tolerance) & (ratio >= low) & (ratio <= high)
    return usable


def _median(values: Tensor) -> Tensor:
    # torch.median takes the lower of the two middle values.
    return values.quantile(0.5)


def cardiac_phase(time_s: Tensor, ecg_s: Tensor, *, default_rr_s: float = 1.0) -> Tensor:
    """Give each spoke its place in its heartbeat, each beat stretched linearly to its own RR interval.

    Before the first R wave and after the last one, beats of the median RR interval are assumed.

    Parameters
    ----------
    time_s
        (spoke,) instants in seconds, in any order.
    ecg_s
        (beat,) instants of R waves in seconds; they are sorted, and duplicates count once.
    default_rr_s
        RR interval in seconds to assume while a single R wave is known.

    Returns
    -------
    Tensor
        (spoke,) float64 in [0, 1), on the device of ``time_s``.

    Raises
    ------
    ShapeError, InputError
        When an argument is not one-dimensional or not finite, or when there are no R waves.
    UsageError
        When ``default_rr_s`` is not positive.
    """
    if not (math.isfinite(default_rr_s) and default_rr_s > 0):
        raise UsageError(f"default_rr_s is {default_rr_s}", expected="a positive number of seconds")
    waves = _r_waves(ecg_s, time_s.device)
    time = _instants("time_s", time_s, time_s.device)
    beat = torch.searchsorted(waves, time, right=True) - 1
    last = waves.numel() - 1
    intervals = waves.diff()
    typical = _median(intervals) if last > 0 else torch.full_like(waves[0], default_rr_s)
    length = torch.cat([intervals, typical[None]])[beat.clamp(min=0)]
    length = torch.where(beat < 0, typical, length)
    since = time - waves[beat.clamp(min=0)]
    # Only extrapolated beats wrap around. Rounding can reach 1 in both branches; the clamp keeps it half open.
    extrapolated = (beat < 0) | (beat == last)
    since = torch.where(extrapolated, torch.remainder(since, length), since)
    return (since / length).clamp(0.0, _BELOW_ONE)


def frame_of_phase(phase: Tensor, n_frames: int) -> Tensor:
    """Sort phases into frames of equal length.

    Frame f covers [f / n, (f + 1) / n) and shows the heart at its centre, (f + 0.5) / n.

    Parameters
    ----------
    phase
        Any shape, in [0, 1).
    n_frames
        Number of frames per beat.

    Returns
    -------
    Tensor
        int64, the shape of ``phase``, from 0 to ``n_frames - 1``.

    Raises
    ------
    InputError
        When a phase lies outside [0, 1) or is NaN.
    UsageError
        When ``n_frames`` is less than 1.
    """
    _check_n_frames(n_frames)
    phase = phase.to(torch.float64)
    if not bool(((phase >= 0) & (phase < 1)).all()):
        raise InputError("a cardiac phase lies outside [0, 1) or is NaN", expected="fractions of a beat")
    # floor(phase * n) would put the float f / n into frame f - 1 for some f and n (1 / 49, for one).
    edges = torch.arange(1, n_frames, dtype=torch.float64, device=phase.device) / n_frames
    return torch.bucketize(phase.contiguous(), edges, right=True)


def _check_n_frames(n_frames: int) -> None:
    if n_frames < 1:
        raise UsageError(f"the number of frames is {n_frames}", expected="at least 1")


def assign_frames(
    scan: RadialScan, n_frames: int, *, default_rr_s: float = 1.0, tolerance: float | None = None
) -> Tensor:
    """Assign each spoke of a scan to a cardiac frame.

    Frames that the source fixed (``scan.frame``) are taken as they are; otherwise the R waves known so far decide.

    Parameters
    ----------
    scan
        The spokes, with ``frame`` or ``ecg_s``.
    n_frames
        Number of frames per beat.
    default_rr_s
        RR interval in seconds to assume while a single R wave is known.
    tolerance
        Reject beats whose RR interval is further than this fraction from the median, see :func:`usable_beats`; their
        spokes get the frame -1. None, the default, keeps all.

    Returns
    -------
    Tensor
        (spoke,) int64 from 0 to ``n_frames - 1``, or -1 for a rejected spoke, on the device of the scan's times.

    Raises
    ------
    InputError
        When a fixed frame is not below ``n_frames``, or there are neither frames nor R waves.
    UsageError
        When ``n_frames``, ``default_rr_s`` or ``tolerance`` is not positive.
    """
    _check_n_frames(n_frames)
    if scan.frame is not None:
        if scan.n_spokes and int(scan.frame.max()) >= n_frames:
            raise InputError(
                f"the source fixes frames up to {int(scan.frame.max())}",
                expected=f"frames from 0 to {n_frames - 1}",
                hint=f"Ask for {int(scan.frame.max()) + 1} frames",
            )
        return scan.frame.to(torch.int64)
    frames = frame_of_phase(cardiac_phase(scan.time_s, scan.ecg_s, default_rr_s=default_rr_s), n_frames)
    if tolerance is None:
        return frames
    beat = beat_of(scan.time_s, scan.ecg_s)
    usable = usable_beats(scan.ecg_s, tolerance).to(beat.device)[beat.clamp(min=0)] | (beat < 0)
    return torch.where(usable, frames, torch.full_like(frames, -1))
