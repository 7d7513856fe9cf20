"""The timeline of a scan: how much each spoke is distrusted, with the ECG and what the spokes say of body and heart."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kspace.formats.files import written_beside
from kspace.motion.correct import Corrected
from kspace.motion.features import self_navigation
from simulate.record import SliceDistrust

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FLAGGED, _PUT_RIGHT, _SOUND = "#c0392b", "#d68910", "#5d6d7e"
_ABOVE: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False, "borderaxespad": 0.1}
"""Where legends stand: inside they would hide spokes."""


@dataclass(frozen=True)
class Timeline:
    """What is drawn of a slice; arrays are (spoke,) unless said otherwise.

    Parameters
    ----------
    index
        The slice.
    time_s
        Seconds from its first spoke.
    ecg_s
        (beat,) R waves on the same clock.
    probability
        That a spoke is corrupted.
    trust
        That it has in the end.
    body_mm, turn_degrees, heart_mm
        How far body and heart have gone in the plane.
    """

    index: int
    time_s: Tensor
    ecg_s: Tensor
    probability: Tensor
    trust: Tensor
    body_mm: Tensor
    turn_degrees: Tensor
    heart_mm: Tensor


def timeline_of(index: int, corrected: Corrected, frame: Tensor, *, noise_std: float) -> Timeline:
    """Return the timeline of a slice whose spokes were sorted into frames as given, before any was mended."""
    examined, spokes = corrected.examined, corrected.spokes
    moves = self_navigation(examined.evidence, frame, noise_std=noise_std)
    rows, columns = examined.short.matrix
    height_mm, width_mm = spokes.geometry.field_of_view_mm
    dy, dx = height_mm / rows, width_mm / columns
    start = spokes.time_s[0] if spokes.n_spokes else 0.0
    return Timeline(
        index, spokes.time_s - start, spokes.ecg_s - start, corrected.probability, corrected.trust,
        ((moves[:, 0] * dy) ** 2 + (moves[:, 1] * dx) ** 2).sqrt(), moves[:, 2] * (180 / np.pi),
        ((moves[:, 3] * dy) ** 2 + (moves[:, 4] * dx) ** 2).sqrt(),
    )  # fmt: skip


def timeline_of_slice(index: int, distrust: SliceDistrust) -> Timeline:
    """Return the timeline of what the loop thought of a slice."""
    return Timeline(
        index, distrust.time_s, distrust.ecg_s, distrust.probability, 1 - distrust.probability, distrust.body_mm,
        torch.zeros(len(distrust.probability)), distrust.heart_mm,
    )  # fmt: skip


def draw_timelines(path: Path, timelines: list[Timeline], title: str) -> None:
    """Write a PNG with one row of axes per slice."""
    with written_beside(path) as temporary:
        _figure(timelines, title).savefig(temporary, format="png", dpi=110)


def timeline_png(timelines: list[Timeline], title: str = "") -> bytes:
    """Return the picture of :func:`draw_timelines`."""
    buffer = io.BytesIO()
    _figure(timelines, title).savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _figure(timelines: list[Timeline], title: str) -> Figure:
    from matplotlib.figure import Figure  # half a second, which only a picture is worth

    figure = Figure(figsize=(10, 0.6 + 3.2 * len(timelines)), layout="constrained")
    if title:
        figure.suptitle(title, fontsize=10)
    axes = figure.subplots(2 * len(timelines), 1, squeeze=False, height_ratios=[1.3, 1] * len(timelines))[:, 0]
    for number, line in enumerate(timelines):
        top, below = axes[2 * number], axes[2 * number + 1]
        time, chance, trust = (values.numpy() for values in (line.time_s, line.probability, line.trust))
        flagged = chance >= 0.5
        mended = flagged & (trust >= 0.5)
        kinds = (
            (~flagged, _SOUND, "sound"),
            (mended, _PUT_RIGHT, "put right"),
            (flagged & ~mended, _FLAGGED, "distrusted"),
        )
        for chosen, colour, label in kinds:
            top.scatter(time[chosen], chance[chosen], s=5, c=colour, label=label, linewidths=0)
        for wave in line.ecg_s.numpy():
            if time[0] <= wave <= time[-1]:
                top.axvline(wave, color="#2471a3", lw=0.8, alpha=0.6)
                below.axvline(wave, color="#2471a3", lw=0.8, alpha=0.6)
        top.plot([], [], color="#2471a3", lw=0.8, label="R wave")
        top.set(ylim=(-0.04, 1.04), ylabel=f"slice {line.index}\ndistrust", xlim=(time[0], time[-1]))
        top.legend(fontsize=7, ncols=4, **_ABOVE)
        top.tick_params(labelbottom=False)
        below.plot(time, line.body_mm.numpy(), lw=1, label="body, mm", color="#1e8449")
        below.plot(time, line.heart_mm.numpy(), lw=1, label="heart, mm", color="#8e44ad")
        below.plot(time, line.turn_degrees.abs().numpy(), lw=1, label="turn, degrees", color="#b7950b")
        below.set(xlim=(time[0], time[-1]), ylabel="self-navigation", xlabel="seconds of scan", ylim=(0, None))
        below.legend(fontsize=7, ncols=3, **_ABOVE)
    return figure
