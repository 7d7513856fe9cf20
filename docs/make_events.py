"""Draw what each event does to a picture: ``python docs/make_events.py``.

A synthetic patient is scanned once for each event, with the same seed; beside the undisturbed images stand those that
the same reconstructions make of disturbed spokes.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import Tensor

from kspace.gating import cardiac_phase, frame_of_phase
from kspace.recon.methods import make_method
from simulate.body_scanner import BodyScanner, BodyScannerOptions
from simulate.events import (
    BreathHold,
    BreathHoldFails,
    BulkRotation,
    BulkShift,
    DroppedSpokes,
    EctopicBeat,
    Event,
    FreeBreathing,
    Mistriggering,
    Spike,
)
from simulate.patient.cardiac_cycle import timing
from simulate.patient.population import draw_patient
from simulate.recon_command import reconstruct_slice
from simulate.subject import draw_body
from simulate.vendors import vendor

mpl.use("Agg")
PICTURES = Path(__file__).parent / "pictures"
INK, QUIET = "#1b1f24", "#667080"
SEED, SLICE, SECONDS, FRAMES = 3, 5, 6.0, 20


@dataclass(frozen=True)
class Case:
    """One event with its caption."""

    title: str
    events: tuple[Event, ...] = ()
    delays: tuple[float, float, float] = (0.0, 0.0, 0.0)


CASES = (
    Case("breath-hold, undisturbed"),
    Case("drift, 1 mm/s", (BreathHold(drift_mm_s=1.0),)),
    Case("hold fails at 3 s", (BreathHoldFails(3.0),)),
    Case("free breathing, 15 mm", (FreeBreathing(amplitude_mm=15.0),)),
    Case("shift by 8 mm at 3 s", (BulkShift(3.0, (8.0, 0.0, 0.0)),)),
    Case("turn by 8° at 3 s", (BulkRotation(3.0, math.radians(8)),)),
    Case("bigeminy", tuple(EctopicBeat(at, prematurity=0.55, stroke=0.3) for at in (0.9, 2.7, 4.5))),
    Case("mis-triggering", (Mistriggering(missed=0.3, doubled=0.5, seed=3),)),
    Case("2 spikes in this frame"),
    Case("1.2 s without signal", (DroppedSpokes(2.0, 3.2),)),
    Case("gradients 1.2 samples late", delays=(1.2, 1.2, 0.0)),
)


def images(case: Case, body: Any, options: BodyScannerOptions, **given: Any) -> list[Tensor]:
    """Return (frame, y, x) magnitudes by gridding and by CG-SENSE."""
    scanner = BodyScanner(body, replace(options, gradient_delays=case.delays), events=case.events, **given)
    scan = scanner.open_slice(SLICE).acquire(SECONDS)
    cpu = torch.device("cpu")
    return [reconstruct_slice(scan, make_method(name), FRAMES, cpu).abs() for name in ("gridding", "cg-sense")]


def main() -> None:
    """Draw the picture."""
    patient, style = draw_patient(SEED), vendor("siemens")
    body = draw_body(patient, style, style.matrix)
    options = BodyScannerOptions(matrix=style.matrix, tr_s=style.tr_s, seed=1)
    beat = timing(patient.rhythm)
    frame = int(beat.end_systole * FRAMES)
    window = body.heart_window
    scale = style.matrix / body.geometry.shape[1]
    y, x = (sum(edge) / 2 * scale for edge in (window.rows, window.columns))
    half = 52
    crop = tuple(slice(max(0, round(c) - half), round(c) + half) for c in (y, x))
    n_columns = 6
    calm = BodyScanner(body, options, rr_s=patient.rr_s, end_systole=beat.end_systole).timeline(SLICE)
    times = torch.arange(0, SECONDS, style.tr_s, dtype=torch.float64)
    hit = times[frame_of_phase(cardiac_phase(times, calm.recorded_ecg(SECONDS)), FRAMES) == frame]
    spikes = tuple(Spike(float(hit[len(hit) * n // 3]), 6.0, k) for n, k in ((1, 0.08), (2, -0.11)))
    figure, axes = plt.subplots(4, n_columns, figsize=(13.5, 9.6), facecolor="white")
    tops: list[float] = []
    for axis in axes.flat:
        axis.set_axis_off()
    for number, listed in enumerate(CASES):
        case = replace(listed, events=spikes) if "spikes" in listed.title else listed
        both = images(case, body, options, rr_s=patient.rr_s, end_systole=beat.end_systole)
        row, column = divmod(number, n_columns)
        for which, (image, name) in enumerate(zip(both, ("gridding", "CG-SENSE"), strict=True)):
            axis = axes[2 * row + which, column]
            shown = image[frame][crop]
            if number == 0:
                tops.append(float(torch.quantile(shown, 0.995)))
            axis.imshow(shown.numpy(), cmap="gray", vmin=0, vmax=tops[which], interpolation="lanczos")
            if which == 0:
                axis.set_title(case.title, fontsize=11, color=INK)
            if column == 0:
                axis.text(-0.06, 0.5, name, rotation=90, va="center", ha="right", color=INK, fontsize=11,
                          transform=axis.transAxes)  # fmt: skip
    axes[2, 5].text(
        0.02, 0.95, f"A synthetic patient\nat end-systole.\n{SECONDS:g} s of spokes,\n{FRAMES} frames, 8 coils,\n"
        f"SNR 30, TR {style.tr_s * 1e3:g} ms;\ngated by the ECG\nas recorded.",
        transform=axes[2, 5].transAxes, va="top", color=QUIET, fontsize=11,
    )  # fmt: skip
    figure.subplots_adjust(wspace=0.03, hspace=0.13, left=0.03, right=0.995, top=0.96, bottom=0.01)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=82)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(48).save(PICTURES / "events.png", optimize=True)


if __name__ == "__main__":
    main()
