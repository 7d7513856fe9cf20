"""The charts of a report: scores by seconds of scanning, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from kspace.quality.judge import Score
from simulate.record import ScanRecord, StepRecord
from simulate.report_words import TRUTHS, cap_seconds, ended_by, number_text, score_of, score_title, truth_names


@dataclass(frozen=True)
class _Curve:
    """One slice in one chart: its points, its limit there, and how it ended."""

    index: int
    points: list[tuple[float, float]]
    limit: float | None
    final: float
    end: float
    ended: str
    stopped: bool


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    log: bool
    ticks: list[float]

    def place(self, value: float) -> float:
        """Return where a value lies, from 0 at the bottom to 100 at the top."""
        shape: Callable[[float], float] = math.log10 if self.log else float
        low, high = shape(self.low), shape(self.high)
        return min(100.0, max(0.0, 100 * (shape(value) - low) / (high - low)))


def _steps(low: float, high: float, about: int) -> list[float]:
    """Return round numbers, about as many as asked for, from at or below ``low`` to at or above ``high``."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def _axis(values: Iterable[float], *, from_zero: bool) -> _Axis:
    """Choose an axis for finite values: logarithmic where they are positive and span more than 1.5 decades."""
    shown = sorted(values) or [0.0, 1.0]
    low, high = shown[0], shown[-1]
    if low > 0 and math.log10(high) - math.log10(low) > 1.5:
        low = max(low, 1e-9 * high)  # what lies deeper is drawn at the foot
        ends = math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9)
        stride = max(1, math.ceil((ends[1] - ends[0]) / 4))
        ticks = [10.0**k for k in range(ends[0], ends[1] + 1, stride)]
        return _Axis(10.0 ** ends[0], 10.0 ** ends[1], True, ticks)
    if from_zero and low >= 0:
        low = 0.0
    if high - low <= max(
        1e-9 * max(abs(high), abs(low)), 1e-200
    ):  # all the same, and rounding error does not make a scale
        low, high = low - 0.1 * (abs(low) or 1), high + 0.1 * (abs(high) or 1)
    ticks = _steps(low, high, 4)
    return _Axis(ticks[0], ticks[-1], False, ticks)


def charts_section(record: ScanRecord, chosen: int, scores: Mapping[str, Score]) -> str:
    """Draw a chart for every score and every truth, one curve a slice."""
    if not record.slices:
        return ""
    longest = max([r.seconds for r in record.slices] + [cap_seconds(record) or 0.0]) or 1.0

    def curves(value: Callable[[StepRecord], float], limit: Callable[[StepRecord], float | None]) -> list[_Curve]:
        return [
            _Curve(
                r.index,
                [(s.seconds, v) for s in r.steps if math.isfinite(v := value(s))],
                limit(r.steps[-1]),
                value(r.steps[-1]),
                r.seconds,
                ended_by(record, r),
                r.stopped,
            )
            for r in record.slices
        ]

    def judged(name: str) -> str:
        def value(step: StepRecord) -> float:
            score = score_of(step, name)
            return math.nan if score is None else score.value

        def limit(step: StepRecord) -> float | None:
            score = score_of(step, name)
            return score.limit if score is not None and math.isfinite(score.limit) else None

        return _chart(
            score_title(name), escape(scores[name].label), curves(value, limit), chosen, longest, from_zero=True
        )

    def measured(key: str) -> str:
        found = curves(lambda step: float(step.truth.get(key, math.nan)), lambda step: None)
        unit = "in dB, higher is better" if key == "psnr_db" else "higher is better"
        below = "lower is better" if key == "nrmse" else unit
        return _chart(TRUTHS[key][0], below, found, chosen, longest, from_zero=key == "nrmse")

    rows = []
    for head, note, drawn in (
        ("What the scanner could see", "the judges decide on these alone", [judged(name) for name in scores]),
        ("What only the truth knows", "no judge has seen these", [measured(key) for key in truth_names(record)]),
    ):
        if drawn:
            columns = 2 if len(drawn) in (2, 4) else min(3, len(drawn))
            rows.append(f'<h3>{head} <small>{note}</small></h3><div class="charts n{columns}">{"".join(drawn)}</div>')
    return "".join(rows)


def _chart(title: str, subtitle: str, curves: Sequence[_Curve], chosen: int, longest: float, *, from_zero: bool) -> str:
    """Draw one small chart: the lines as SVG that may stretch, the words over it as text that does not."""
    known = [value for curve in curves for _, value in curve.points]
    axis = _axis(known + [c.limit for c in curves if c.limit is not None], from_zero=from_zero)
    ticks = [t for t in _steps(0, longest, 4) if t <= longest * 1.001]
    svg = [f'<path class="grid" d="M0 {100 - axis.place(t):.2f}H100"/>' for t in axis.ticks]
    words = [f'<span class="y" style="bottom:{axis.place(t):.2f}%">{number_text(t)}</span>' for t in axis.ticks]
    words += [
        f'<span class="x" style="left:{100 * t / longest:.2f}%">{number_text(t)}{" s" if t == ticks[-1] else ""}</span>'
        for t in ticks
    ]
    heads = []
    for position, curve in enumerate(curves):
        on = " on" if position == chosen else ""
        spots = [(100 * t / longest, 100 - axis.place(v)) for t, v in curve.points]
        line = "".join(f"{'L' if i else 'M'}{x:.2f} {y:.2f}" for i, (x, y) in enumerate(spots))
        end = 100 * curve.end / longest
        svg.append(f'<g class="trace{on}" data-slice="{position}">')
        if curve.limit is not None:
            y = 100 - axis.place(curve.limit)
            svg.append(f'<path class="zone only" d="M0 {y:.2f}H100V100H0Z"/>')
            svg.append(f'<path class="limit only" d="M0 {y:.2f}H100"/>')
        svg.append(f'<path class="stop only" d="M{end:.2f} 0V100"/>')
        if spots:
            x, y = spots[-1]
            svg.append(f'<path class="line" d="{line}"/><path class="dot" d="M{x:.2f} {y:.2f}h0.001"/>')
        svg.append("</g>")
        side = "left" if end > 55 else "right"
        words.append(
            f'<span class="stopped only {side}{on} {"good" if curve.stopped else "cap"}" data-slice="{position}" '
            f'style="left:{end:.2f}%">{curve.ended} · {number_text(curve.end)} s</span>'
        )
        limit = "" if curve.limit is None else f" <small>limit {number_text(curve.limit)}</small>"
        heads.append(f'<span class="only{on}" data-slice="{position}">{number_text(curve.final)}{limit}</span>')
    if not known:
        words.append('<span class="none">no finite value yet</span>')
    log = ' <small class="log">log scale</small>' if axis.log else ""
    return (
        f'<figure class="chart"><figcaption><span class="what">{title}{log}</span><span class="now">{"".join(heads)}'
        f'</span><span class="sub">{subtitle}</span></figcaption><div class="plot">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{"".join(svg)}</svg>'
        f"{''.join(words)}</div></figure>"
    )
