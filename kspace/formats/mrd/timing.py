"""Time stamps in ticks, and the R waves that follow from them."""

from __future__ import annotations

import numpy as np

from kspace.errors import InputError
from kspace.formats.mrd.header import Encoding

VENDOR_TICK_S = 2.5e-3
"""One tick where a file does not say: the vendors' convention."""

DEFAULT_TR_S = 2.8e-3
"""Seconds from spoke to spoke where neither time stamps nor header tell: a common bSSFP cine."""

TICK_S = 1e-5
"""One tick in the files written here."""

_BEAT_GAP_S = 0.1  # R waves lie further apart; estimates of one R wave differ by ticks
_MAX_TICKS = 2**32 - 1


def read_instants(heads: np.ndarray, slices: np.ndarray, encoding: Encoding) -> tuple[np.ndarray, np.ndarray, str]:
    """Return instants (spoke,) and R waves (beat,) in seconds, and a remark where the instants are assumed.

    Parameters
    ----------
    heads
        (spoke,) acquisition headers in the order of the file.
    slices
        (spoke,) slice of each spoke.
    encoding
        Tells tick and TR. With ``timestamp_tick_s`` the clock is kept; without, it starts at the first spoke.
    """
    stamps = heads["acquisition_time_stamp"].astype(np.float64)
    tr_s = encoding.tr_s or DEFAULT_TR_S
    if not stamps.any():
        remark = "TR" if encoding.tr_s else "an assumed TR"
        return np.arange(len(heads)) * tr_s, np.array(encoding.r_waves_s), f"instants from {remark}, {tr_s * 1e3:g} ms"
    tick_s = encoding.numbers.get("timestamp_tick_s", 0.0)
    known = 0 < tick_s < 1
    if not known:
        tick_s, stamps = VENDOR_TICK_S, stamps - stamps.min()
    ticked = stamps * tick_s
    since_r = heads["physiology_time_stamp"][:, 0].astype(np.float64) * tick_s
    ecg_s = np.array(encoding.r_waves_s) if encoding.r_waves_s else _cluster((ticked - since_r)[since_r > 0])
    return _spread(ticked, slices, tick_s, tr_s), ecg_s, ""


def write_instants(time_s: np.ndarray, ecg_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return time stamps and ticks since the last R wave, both uint32 (spoke,), of :data:`TICK_S`.

    The second is 0 before the first R wave, and at least 1 after it.

    Raises
    ------
    InputError
        When an instant does not fit: the clock runs from 0 to 42949 s.
    """
    stamps = np.rint(time_s / TICK_S)
    if stamps.size and (stamps.min() < 0 or stamps.max() > _MAX_TICKS):
        raise InputError(
            f"the instants run from {time_s.min():g} to {time_s.max():g} s",
            expected=f"0 to {_MAX_TICKS * TICK_S:.0f} s, which is what time stamps of 10 us can hold",
            hint="Count the time from the start of the scan",
        )
    last = np.searchsorted(ecg_s, time_s, side="right") - 1
    since = np.rint((time_s - ecg_s[np.maximum(last, 0)]) / TICK_S) if ecg_s.size else np.zeros_like(time_s)
    since_r = np.where(last >= 0, np.clip(since, 1, _MAX_TICKS), 0) if ecg_s.size else since
    return stamps.astype(np.uint32), since_r.astype(np.uint32)


def _cluster(estimates: np.ndarray) -> np.ndarray:
    if not estimates.size:
        return np.zeros(0)
    ordered = np.sort(estimates)
    parts = np.split(ordered, np.flatnonzero(np.diff(ordered) > _BEAT_GAP_S) + 1)
    return np.array([np.median(part) for part in parts])


def _spread(ticked: np.ndarray, slices: np.ndarray, tick_s: float, tr_s: float) -> np.ndarray:
    """Set spokes of a slice that share one coarse tick apart by TR, without overtaking the next tick."""
    if tick_s < 0.1 * tr_s:
        return ticked
    starts = np.flatnonzero(np.r_[True, (np.diff(ticked) != 0) | (np.diff(slices) != 0)])
    counts = np.diff(np.r_[starts, len(ticked)])
    within = np.arange(len(ticked)) - np.repeat(starts, counts)
    return np.asarray(ticked + within * np.minimum(tr_s, tick_s / np.repeat(counts, counts)))
