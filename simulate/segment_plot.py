"""A plot of volumes over the beat as SVG: a line for each structure, and the interval around it as a band."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from torch import Tensor

from kspace.segment.segmentation import Structure
from kspace.volume_curves import VolumeCurves
from simulate.segment_movie import LEGEND

COLOURS = {Structure.LV: "#1d5c99", Structure.MYOCARDIUM: "#7a2048", Structure.RV: "#9a4f00"}
"""The hues of the movie's contours, dark enough for paper."""
_SIZE, _LEFT, _RIGHT, _TOP, _BOTTOM = (760, 420), 68, 128, 74, 52
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', Arial, sans-serif"
_INK, _QUIET, _RULE = "#1c2127", "#5a636d", "#e4e1da"


@dataclass(frozen=True)
class _Frame:
    """The place of a frame and a volume in the picture."""

    n_frames: int
    top: float

    def x(self, frame: float) -> float:
        return _LEFT + (_SIZE[0] - _LEFT - _RIGHT) * (frame + 0.5) / self.n_frames

    def y(self, volume: float) -> float:
        return _SIZE[1] - _BOTTOM - (_SIZE[1] - _TOP - _BOTTOM) * volume / self.top


def plot_curves(
    curves: VolumeCurves,
    bands: Mapping[Structure, tuple[Tensor, Tensor]],
    *,
    rr_s: float | None,
    subtitle: str = "",
) -> str:
    """Return the plot as the text of an SVG file.

    Parameters
    ----------
    curves
        Frames that are not known are left out of the lines; a frame alone becomes a dot.
    bands
        (frame,) low and high of some structures, in the curves' unit.
    rr_s
        Length of the beat in seconds, for the time axis; None for an axis in per cent of the beat.
    subtitle
        One line of what came of it.
    """
    shown = [s for s in LEGEND if float(curves.of(s).nan_to_num(0.0).max()) > 0]
    highest = [float(curves.of(s).nan_to_num(0.0).max()) for s in shown]
    highest += [float(bands[s][1].nan_to_num(0.0).max()) for s in shown if s in bands]
    n_frames = curves.areas_mm2.shape[2]
    step = _step(max([1.02 * value for value in highest], default=1.0))
    place = _Frame(n_frames, step * math.ceil(max([1.02 * value for value in highest], default=1.0) / step))
    unit = "cm²" if curves.single else "mL"
    title = "Areas over the beat" if curves.single else "Volumes over the beat"
    parts = [_text(24, 30, title, size=18, bold=True), _text(24, 52, subtitle, colour=_QUIET)]
    if bands:
        note = "bands: interval of each phase"
        parts.append(_text(_SIZE[0] - 16, _SIZE[1] - 10, note, colour=_QUIET, anchor="end"))
    parts += _axes(place, step, unit, rr_s)
    for name, frame in (("ED", curves.ed_frame), ("ES", curves.es_frame)):
        if frame is not None:
            x = place.x(frame)
            parts.append(f'<path d="M{x:.1f} {_TOP}V{place.y(0):.1f}" stroke="{_QUIET}" stroke-dasharray="3 4"/>')
            parts.append(_text(x + 4, _TOP + 10, name, colour=_QUIET))
    for structure in shown:
        if structure in bands:
            parts.append(_band(place, *bands[structure], COLOURS[structure]))
    for structure in shown:
        parts += _line(place, curves.of(structure), COLOURS[structure])
    parts += _names(place, curves, shown)
    width, height = _SIZE
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="{_FONT}" font-size="13" fill="none" stroke-linejoin="round" stroke-linecap="round">'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>{"".join(parts)}</svg>\n'
    )


def _axes(place: _Frame, step: float, unit: str, rr_s: float | None) -> list[str]:
    parts, left, right = [], _LEFT, _SIZE[0] - _RIGHT
    for tick in range(round(place.top / step) + 1):
        y = place.y(tick * step)
        label = f"{tick * step:g} {unit}" if tick * step + step > place.top else f"{tick * step:g}"
        parts.append(f'<path d="M{left} {y:.1f}H{right}" stroke="{_RULE}"/>')
        parts.append(_text(left - 8, y + 4, label, colour=_QUIET, anchor="end"))
    whole = 100.0 if rr_s is None else 1000 * rr_s
    stride = _step(whole)
    for tick in range(int(whole / stride + 1e-9) + 1):
        x = left + (right - left) * tick * stride / whole
        parts.append(_text(x, _SIZE[1] - _BOTTOM + 22, f"{tick * stride:g}", colour=_QUIET, anchor="middle"))
    name = "per cent of the beat" if rr_s is None else "ms from the start of the beat"
    parts.append(_text((left + right) / 2, _SIZE[1] - 10, name, colour=_QUIET, anchor="middle"))
    return parts


def _line(place: _Frame, curve: Tensor, colour: str) -> list[str]:
    parts = []
    for run in _runs(curve):
        points = [(place.x(frame), place.y(float(curve[frame]))) for frame in run]
        if len(run) == 1:
            x, y = points[0]
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        else:
            parts.append(f'<path d="M{_path(points)}" stroke="{colour}" stroke-width="2.25"/>')
    return parts


def _band(place: _Frame, low: Tensor, high: Tensor, colour: str) -> str:
    shapes = []
    for run in _runs(low + high):
        up = [(place.x(frame), place.y(float(high[frame]))) for frame in run]
        back = [(place.x(frame), place.y(float(low[frame]))) for frame in reversed(run)]
        shapes.append(f"M{_path(up + back)}Z")
    return f'<path d="{"".join(shapes)}" fill="{colour}" fill-opacity="0.16"/>'


def _names(place: _Frame, curves: VolumeCurves, shown: Sequence[Structure]) -> list[str]:
    """Write the names of the lines at their ends, far enough apart to be read."""
    ends = []
    for structure in shown:
        known = _runs(curves.of(structure))[-1]
        ends.append((place.y(float(curves.of(structure)[known[-1]])), structure))
    parts, last = [], -math.inf
    for y, structure in sorted(ends):
        last = max(y + 4, last + 17)
        parts.append(_text(_SIZE[0] - _RIGHT + 8, last, LEGEND[structure], colour=COLOURS[structure], bold=True))
    return parts


def _runs(curve: Tensor) -> list[list[int]]:
    runs: list[list[int]] = []
    for frame, known in enumerate(curve.isfinite().tolist()):
        if known:
            if not runs or runs[-1][-1] != frame - 1:
                runs.append([])
            runs[-1].append(frame)
    return runs


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _step(highest: float) -> float:
    """Return a round distance of ticks of which four to eight fit."""
    rough = highest / 5
    power = float(10 ** math.floor(math.log10(rough)))
    return next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.95)


def _text(
    x: float, y: float, text: str, *, colour: str = _INK, anchor: str = "start", size: int = 13, bold: bool = False
) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}" font-size="{size}"{weight}>'
        f"{escape(text)}</text>"
    )
