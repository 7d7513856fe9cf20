"""What a scan came to, in words and numbers for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from kspace.quality.judge import Score
from simulate.record import ScanRecord, SliceRecord, StepRecord

TRUTHS = {
    "psnr_db": (
        "PSNR",
        "Peak signal-to-noise ratio against the truth, in dB, inside the body. Higher is better; 6 dB more halves the "
        "error.",
    ),
    "ssim": (
        "SSIM",
        "Structural similarity to the truth, inside the body. 1 is identical; it falls when edges and texture differ.",
    ),
    "nrmse": (
        "NRMSE",
        "Root-mean-square error as a fraction of the truth's own root mean square, inside the body. Lower is better.",
    ),
}


def verdict(record: ScanRecord) -> list[str]:
    """Return what came of the scan, in sentences."""
    done, cap = len(record.slices), cap_seconds(record)
    good = sum(record_.stopped for record_ in record.slices)
    said = []
    if record.interrupted:
        said.append(f"The scan was interrupted: {done} of {counted(record.n_slices, 'slice')} were finished.")
    if not done:
        said.append("There is no finished slice to show.")
    else:
        before = "before the cap" if cap else "before the scan ended"
        was = "was" if good == 1 else "were"
        number = f"All {done}" if good == done > 1 else f"{good} of {done}"
        said.append(f"{number} {'slice' if done == 1 else 'slices'} {was} good enough {before}.")
        if cap:
            whole, spent = cap * done, record.seconds
            # Time that a slice lacks because its source ran dry is no gain.
            full = all(r.stopped or r.seconds >= 0.999 * cap for r in record.slices)
            gained = full and spent > 0 and whole / spent >= 1.05
            times = f" ({whole / spent:.1f} times faster)" if gained else ""
            instead = f" instead of {number_text(whole)} s" if times else f" of at most {number_text(whole)} s"
            said.append(f"{number_text(spent)} s of scanning{instead}{times}.")
        else:
            said.append(f"{number_text(record.seconds)} s of scanning.")
    said += [str(sentence) for sentence in _said(record.stopping)]
    if done and record.options.get("policy") == "quality":
        said.append("Slices ended by their images alone: no guarantee goes with it.")
    psnr = [v for r in record.slices if math.isfinite(v := float(r.steps[-1].truth.get("psnr_db", math.nan)))]
    if psnr:
        low, high = f"{min(psnr):.1f}", f"{max(psnr):.1f}"
        span = f"{low} dB" if low == high else f"{low} to {high} dB"
        said.append(f"Against the truth the final images reach a PSNR of {span}.")
    source = record.source or "an unnamed source"
    if record.synthetic:
        said.append(f"The spokes are simulated from {source}; no scanner measured them.")
    else:
        said.append(f"The spokes are measured k-space from {source}.")
    if done and not any(r.truth is not None or r.steps[-1].truth for r in record.slices):
        said.append("There is no truth to compare with, so quality against the truth is not known.")
    return said


def _said(stopping: Mapping[str, object]) -> Sequence[object]:
    said = stopping.get("said", ())
    return said if isinstance(said, list | tuple) else ()


def number_text(value: float, digits: int = 3) -> str:
    """Return a number for people: ``digits`` significant ones, no exponent where it can be avoided."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value != 0 and not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    decimals = digits if value == 0 else max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural where it has to be."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def cap_seconds(record: ScanRecord) -> float | None:
    """Return the cap of the scan, if its options hold one that makes sense."""
    value = record.options.get("max_seconds")
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return float(value) if usable and isinstance(value, int | float) else None


def beat_seconds(record: ScanRecord) -> float:
    """Return the length of a beat, 1 s where it is not known."""
    return record.rr_s if math.isfinite(record.rr_s) and record.rr_s > 0 else 1.0


def scores_by_name(record: ScanRecord) -> dict[str, Score]:
    """Return one score of each name, in the order in which they first appear."""
    found: dict[str, Score] = {}
    for step in (step for r in record.slices for step in r.steps):
        for score in step.scores:
            found.setdefault(score.name, score)
    return found


def score_of(step: StepRecord, name: str) -> Score | None:
    """Return the score of a name in a step, if there is one."""
    return next((score for score in step.scores if score.name == name), None)


def truth_names(record: ScanRecord) -> list[str]:
    """Return the names of what was measured against the truth, in the order of :data:`TRUTHS`."""
    present = {key for r in record.slices for step in r.steps for key in step.truth}
    return [key for key in TRUTHS if key in present]


def score_title(name: str) -> str:
    """Return the name of a score for a heading, as HTML."""
    return escape(name.replace("_", " ").strip() or "score")


def slice_state(r: SliceRecord) -> str:
    """Return in words how a slice ended, and when."""
    return (
        f"good enough at {number_text(r.seconds)} s"
        if r.stopped
        else f"ended at {number_text(r.seconds)} s, not good enough"
    )


def ended_by(record: ScanRecord, r: SliceRecord) -> str:
    """Return what ended a slice, in a word or two."""
    if r.stopped:
        return "good enough"
    return "not reached" if r.seconds < (cap_seconds(record) or math.inf) * 0.999 else "cap"
