"""Charts of a study's page as inline SVG: they need no library, no script and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from kspace.quality.trajectory import Array

COLOURS = ("#3a6ea5", "#c05a2b", "#4f8a4c", "#8a5aa8", "#b8860b", "#2a8c8c", "#a83f5e", "#6b6b6b", "#394b59")
"""Of policies, in the order of the table."""


@dataclass(frozen=True)
class Axes:
    """A plot's frame: data limits, pixels, and where things come to lie.

    Parameters
    ----------
    x, y
        Limits of the data.
    width, height
        In pixels.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 420
    height: int = 260
    left: int = 46
    bottom: int = 38

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the pixel of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            self.left + across * (self.width - self.left - 10),
            10 + (1 - up) * (self.height - self.bottom - 10),
        )

    def path(self, xs: Sequence[float] | Array, ys: Sequence[float] | Array) -> str:
        """Return a line's points for SVG."""
        return " ".join("{:.1f},{:.1f}".format(*self.at(float(x), float(y))) for x, y in zip(xs, ys, strict=True))

    def frame(self, x_label: str, y_label: str, x_ticks: Sequence[float]) -> str:
        """Return grid, ticks and labels."""
        parts = []
        for tick in _ticks(*self.y):
            left, y = self.at(self.x[0], tick)
            parts.append(f'<line class="grid" x1="{left:.1f}" x2="{self.width - 10}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text class="tick" x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
        low = self.height - self.bottom
        for tick in x_ticks:
            x, _ = self.at(tick, self.y[0])
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{low}" y2="{low + 4}"/>')
            parts.append(f'<text class="tick" x="{x:.1f}" y="{low + 16}" text-anchor="middle">{tick:g}</text>')
        parts.append(
            f'<text class="name" x="{(self.left + self.width) / 2:.0f}" y="{self.height - 4}" text-anchor="middle">'
            f'{escape(x_label)}</text><text class="name" x="{self.left - 36}" y="-6">{escape(y_label)}</text>'
        )
        return "".join(parts)

    def svg(self, body: str, label: str) -> str:
        """Return the whole picture."""
        return (
            f'<svg viewBox="0 -18 {self.width} {self.height + 20}" role="img" aria-label="{escape(label)}">{body}</svg>'
        )


def _ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 4
    unit = 10.0 ** np.floor(np.log10(rough))
    step = unit * min((1, 2, 5, 10), key=lambda factor: abs(factor * unit - rough))
    first = np.ceil(low / step - 1e-9) * step
    return [round(float(tick), 10) for tick in np.arange(first, high + 1e-9 * step, step)]


def trade_off(
    seconds: Array, mean: Array, low: Array, high: Array, points: Mapping[str, tuple[float, float]], unit: str,
    name: str,
) -> str:  # fmt: skip
    """Return a curve with its band against seconds, and where policies come to lie."""
    top = 1.08 * max(float(high.max()), *(y for _, y in points.values()))
    axes = Axes((0.0, float(seconds[-1]) * 1.03), (0.0, top))
    band = axes.path([*seconds, *seconds[::-1]], [*high, *low[::-1]])
    body = axes.frame("seconds per slice", f"{name}, {unit}", [0, *_ticks(0, float(seconds[-1]))[1:]])
    body += f'<polygon class="band" points="{band}"/><polyline class="mean" points="{axes.path(seconds, mean)}"/>'
    for index, (policy, (x, y)) in enumerate(points.items()):
        at = axes.at(x, y)
        body += (
            f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="5" fill="{COLOURS[index % len(COLOURS)]}" stroke="#fff">'
            f"<title>{escape(policy)}: {x:.2f} s, {y:.3g} {escape(unit)}</title></circle>"
        )
    return axes.svg(body, f"{name} against seconds per slice")


def histogram(seconds: Array, counts: Sequence[int], mean: float, colour: str, label: str) -> str:
    """Return how many slices stopped at each step."""
    top = max(1, *counts)
    axes = Axes((0.0, float(len(seconds))), (0.0, float(top)), 240, 120, 26, 30)
    body = ""
    for index, (second, count) in enumerate(zip(seconds, counts, strict=True)):
        x, y = axes.at(index + 0.12, count)
        right, bottom = axes.at(index + 0.88, 0)
        body += f'<rect x="{x:.1f}" y="{y:.1f}" width="{right - x:.1f}" height="{bottom - y:.1f}" fill="{colour}"/>'
        body += (
            f'<text class="tick" x="{(x + right) / 2:.1f}" y="{bottom + 13:.1f}" text-anchor="middle">{second:g}</text>'
        )
        if count:
            body += f'<text class="count" x="{(x + right) / 2:.1f}" y="{y - 3:.1f}" text-anchor="middle">{count}</text>'
    return axes.svg(body, f"{label}: slices by scan time, mean {mean:.2f} s")


def volumes(found: Array, reference: Array, label: str) -> str:
    """Return the LV's volume over the beat at the stop, and in the complete scan."""
    frames = [float(frame) for frame in range(len(found))]
    top = 1.1 * max(float(found.max()), float(reference.max()), 1.0)
    axes = Axes((0.0, float(len(found) - 1)), (0.0, top), 240, 130, 40, 26)
    body = axes.frame("phase", "mL", [])
    body += f'<polyline class="truth" points="{axes.path(frames, reference)}"/>'
    body += f'<polyline class="found" points="{axes.path(frames, found)}"/>'
    return axes.svg(body, label)
