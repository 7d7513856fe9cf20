"""One self-contained HTML page of what a scan did: the cine, the quality step by step, the decisions.

Everything is inside the file: pictures as base64 sprite sheets, charts as inline SVG, the player as a few lines of
script (``report_template.html``, ``.css`` and ``.js`` beside this file). It opens without a network, on paper and
without scripts too, where stills take the place of the player.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from torch import Tensor

from kspace.formats.files import atomic_text
from kspace.quality.judge import Score
from simulate.record import ScanRecord, SliceRecord, StepRecord
from simulate.report_distrust import distrust_section
from simulate.report_heart import heart_section

Grey = NDArray[np.uint8]

ERROR_GAIN = 5
"""The error is shown this many times brighter than the images."""
IMAGE_BUDGET = 5_000_000
"""Bytes of base64 that the sprite sheets of one page may take; their quality gives way first."""
LARGEST_SHEET = 8192
"""Side of a sprite sheet in pixels, which phones still decode; larger images are shown smaller."""
_STILL_MM = 25  # six of them and a heading fit on A4
_QUALITIES: tuple[int | None, ...] = (None, 94, 90, 84, 76, 66, 54, 40, 25)  # None is lossless
# 17 evenly spaced colours of matplotlib's inferno (CC0), black to pale yellow; report_template.js interpolates them.
_INFERNO = "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4"  # noqa: E501
_TRUTH = {
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


def write_report(path: Path, record: ScanRecord) -> None:
    """Write the report of a scan as one HTML file, beside its final name first and then renamed into place.

    Parameters
    ----------
    path
        Where the page goes, usually ``report.html``.
    record
        The scan, finished or interrupted, with or without a truth; it may hold no slice at all.
    """
    atomic_text(path, render_report(record))


def render_report(record: ScanRecord) -> str:
    """Return the page of :func:`write_report` as text."""
    chosen = len(record.slices) // 2
    scores = _scores(record)
    sheets = _encode_sheets(record)
    title = f"Scan of {record.source}" if record.source else "Scan"
    parts = {
        "title": escape(title),
        "kind": "Simulated spokes" if record.synthetic else "Measured spokes",
        "verdict": " ".join(f"<span>{escape(sentence)}</span>" for sentence in verdict(record)),
        "figures": _figures(record),
        "strip": "".join(_thumbnail(record, i, i == chosen) for i in range(len(record.slices))),
        "panels": _panels(record),
        "image_note": escape(sheets.note),
        "speed_note": f"{_rr(record):.2f} s per beat",
        "stills": _stills(record),
        "heart": heart_section(record.heart),
        "distrust": distrust_section(record.slices),
        "charts": _charts(record, chosen, scores),
        "slices": _slice_table(record, scores),
        "decisions": "".join(_decisions(record, r) for r in record.slices),
        "details": _run_details(record),
        "legend": _legend(record, scores),
        "empty": "" if record.slices else "is-empty",
        "chosen": str(record.slices[chosen].index) if record.slices else "",
        "data": json.dumps(
            {"chosen": chosen, "rr": _rr(record), "inferno": _INFERNO.split(), "slices": sheets.slices}
        ).replace("<", "\\u003c"),
        "css": _asset("report_template.css"),
        "js": _asset("report_template.js"),
    }
    # One pass, so that nothing that was put in is ever read as a place to put something in.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("report_template.html"))


def _asset(name: str) -> str:
    return (files("simulate") / name).read_text(encoding="utf-8")


# ---------------------------------------------------------------------------------------------------------- in words


def verdict(record: ScanRecord) -> list[str]:
    """Return what came of the scan, in sentences."""
    done, cap = len(record.slices), _cap(record)
    good = sum(record_.stopped for record_ in record.slices)
    said = []
    if record.interrupted:
        said.append(f"The scan was interrupted: {done} of {_count(record.n_slices, 'slice')} were finished.")
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
            instead = f" instead of {_num(whole)} s" if times else f" of at most {_num(whole)} s"
            said.append(f"{_num(spent)} s of scanning{instead}{times}.")
        else:
            said.append(f"{_num(record.seconds)} s of scanning.")
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


def _num(value: float, digits: int = 3) -> str:
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


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _cap(record: ScanRecord) -> float | None:
    value = record.options.get("max_seconds")
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0
    return float(value) if usable and isinstance(value, int | float) else None


def _rr(record: ScanRecord) -> float:
    return record.rr_s if math.isfinite(record.rr_s) and record.rr_s > 0 else 1.0


def _scores(record: ScanRecord) -> dict[str, Score]:
    """Return one score of each name, in the order in which they first appear."""
    found: dict[str, Score] = {}
    for step in (step for r in record.slices for step in r.steps):
        for score in step.scores:
            found.setdefault(score.name, score)
    return found


def _score_of(step: StepRecord, name: str) -> Score | None:
    return next((score for score in step.scores if score.name == name), None)


def _truths(record: ScanRecord) -> list[str]:
    present = {key for r in record.slices for step in r.steps for key in step.truth}
    return [key for key in _TRUTH if key in present]


def _title(name: str) -> str:
    return escape(name.replace("_", " ").strip() or "score")


def _figures(record: ScanRecord) -> str:
    if not record.slices:
        return ""
    good, done, cap = sum(r.stopped for r in record.slices), len(record.slices), _cap(record)
    shown = [
        ("Good enough", f"{good}<small> of {done}</small>"),
        ("Scan time", f"{_num(record.seconds)}<small> s</small>"),
    ]
    if cap:
        share = 100 * record.seconds / (cap * done)
        shown.append(("Of the cap", f"{share:.0f}<small> %</small>"))
    spokes = float(np.mean([r.spokes_per_frame for r in record.slices]))
    shown.append(("Spokes per frame", f"{_num(spokes)}<small> mean</small>"))
    psnr = [float(r.steps[-1].truth["psnr_db"]) for r in record.slices if "psnr_db" in r.steps[-1].truth]
    if psnr:
        shown.append(("PSNR", f"{_num(float(np.median(psnr)))}<small> dB median</small>"))
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown)


# --------------------------------------------------------------------------------------------------------- pictures


@dataclass(frozen=True)
class _Views:
    """The images of one slice in 256 greys, (frame, y, x), and the window that they share."""

    recon: Grey
    truth: Grey | None
    error: Grey | None
    top: float


def _magnitude(image: Tensor) -> NDArray[np.float32]:
    values = np.asarray(image.detach().abs().cpu().numpy(), dtype=np.float32)
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _views(record: SliceRecord) -> _Views:
    """Bring a slice to 256 greys: 0 to the 99.5th percentile of the truth, or of the reconstruction without one."""
    recon = _magnitude(record.image)
    truth = None if record.truth is None else _magnitude(record.truth)
    reference = recon if truth is None else truth
    top = float(np.percentile(reference, 99.5)) or float(reference.max()) or 1.0

    def grey(values: NDArray[np.float32]) -> Grey:
        scaled = np.clip(values / top, 0, 1)
        columns = math.ceil(math.sqrt(len(values)))
        shrink = max(1, math.ceil(columns * max(values.shape[1:]) / LARGEST_SHEET))
        if shrink > 1:
            rows, cols = (n // shrink * shrink for n in values.shape[1:])
            blocks = scaled[:, :rows, :cols].reshape(len(values), rows // shrink, shrink, cols // shrink, shrink)
            scaled = blocks.mean(axis=(2, 4))
        return np.asarray(np.rint(scaled * 255), dtype=np.uint8)

    if truth is None:
        return _Views(grey(recon), None, None, top)
    return _Views(grey(recon), grey(truth), grey(ERROR_GAIN * np.abs(recon - truth)), top)


def _data_uri(picture: Image.Image, quality: int | None) -> str:
    buffer = io.BytesIO()
    if not features.check("webp") or max(picture.size) > 16383:
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        # WebP knows no grey: the three equal channels cost next to nothing, and lossless stays exact.
        if quality is None:
            picture.convert("RGB").save(buffer, "WEBP", lossless=True, quality=60, method=3)
        else:
            picture.convert("RGB").save(buffer, "WEBP", quality=quality, method=4)
        kind = "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _sheet(frames: Grey) -> Image.Image:
    """Lay the frames out row by row on a sheet that is about as many frames wide as high."""
    n, rows, cols = frames.shape
    across = math.ceil(math.sqrt(n))
    down = math.ceil(n / across)
    padded = np.zeros((across * down, rows, cols), dtype=np.uint8)
    padded[:n] = frames
    sheet = padded.reshape(down, across, rows, cols).swapaxes(1, 2).reshape(down * rows, across * cols)
    return Image.fromarray(np.ascontiguousarray(sheet))


@dataclass(frozen=True)
class _Sheets:
    slices: list[dict[str, object]]
    note: str


def _encode_sheets(record: ScanRecord) -> _Sheets:
    """Encode every slice, all at the best quality with which the page stays within :data:`IMAGE_BUDGET`."""
    if not record.slices:
        return _Sheets([], "")

    def encode(views: _Views, quality: int | None, frames: int | None = None) -> dict[str, str]:
        # The error is mostly noise made five times brighter: kept as finely as the images, it would fill the page.
        rough = None if quality is None else _rough(quality)
        chosen = (("recon", views.recon, quality), ("truth", views.truth, quality), ("error", views.error, rough))
        return {name: _data_uri(_sheet(grey[:frames]), q) for name, grey, q in chosen if grey is not None}

    middle = _views(record.slices[len(record.slices) // 2])
    frames_in_all = sum(len(r.image) for r in record.slices)
    sample = min(4, len(middle.recon))
    quality: int | None = None
    for quality in _QUALITIES:  # the last one is used even if the page stays too large
        if sum(map(len, encode(middle, quality, sample).values())) * frames_in_all / sample <= IMAGE_BUDGET:
            break
    slices: list[dict[str, object]] = []
    for r in record.slices:
        views = _views(r)
        frames, rows, cols = views.recon.shape
        slices.append(
            {
                "index": r.index,
                "frames": frames,
                "rows": rows,
                "cols": cols,
                "across": math.ceil(math.sqrt(frames)),
                "top": _num(views.top),
                "state": _state(r),
                **encode(views, quality),
            }
        )
    reference = "reconstruction" if middle.truth is None else "truth"
    note = f"The grey window is the same for all images of a slice: 0 to the 99.5th percentile of its {reference}."
    if middle.error is not None:
        note += f" The error is |reconstruction − truth| × {ERROR_GAIN}: its scale ends at {100 // ERROR_GAIN} % of it."
    if quality is None or not features.check("webp"):
        return _Sheets(slices, note + " Stored without loss.")
    of_error = "" if middle.error is None else f" (the error {_rough(quality)})"
    return _Sheets(slices, f"{note} Stored as WebP of quality {quality}{of_error}, for looking at, not for measuring.")


def _rough(quality: int) -> int:
    return max(10, quality - 40)


def _aspect(record: ScanRecord, r: SliceRecord, tiles: int = 1) -> str:
    _, dy, dx = record.geometry.spacing_mm
    rows, cols = r.image.shape[-2:]
    return f"{tiles * cols * dx:.6g} / {rows * dy:.6g}"


def _state(r: SliceRecord) -> str:
    return f"good enough at {_num(r.seconds)} s" if r.stopped else f"ended at {_num(r.seconds)} s, not good enough"


def _ended(record: ScanRecord, r: SliceRecord) -> str:
    if r.stopped:
        return "good enough"
    return "not reached" if r.seconds < (_cap(record) or math.inf) * 0.999 else "cap"


def _badge(record: ScanRecord, r: SliceRecord) -> str:
    return f'<b class="badge {"good" if r.stopped else "cap"}">{_ended(record, r)}</b>'


def _thumbnail(record: ScanRecord, position: int, chosen: bool) -> str:
    r = record.slices[position]
    views = _views(r)
    picture = Image.fromarray(views.recon[0])
    picture.thumbnail((128, 128))
    return (
        f'<button type="button" class="thumb" data-pick="{position}" aria-pressed="{str(chosen).lower()}" '
        f'title="Slice {r.index}: {_state(r)}"><img alt="" src="{_data_uri(picture, 80)}" '
        f'style="aspect-ratio:{_aspect(record, r)}"><span class="no">{r.index}</span>'
        f'<span class="{"good" if r.stopped else "cap"} mark">{_num(r.seconds)} s</span></button>'
    )


def _panels(record: ScanRecord) -> str:
    if not record.slices:
        return ""
    r = record.slices[len(record.slices) // 2]
    views = _views(r)
    percent = 100 // ERROR_GAIN
    panels = [("recon", "Reconstruction", "grey", "0", "window")]
    if views.truth is not None:
        panels.append(("truth", "Truth", "grey", "0", "window"))
        panels.append(("error", f"|Error| × {ERROR_GAIN}", "inferno", "0", f"{percent} % of the window"))
    rows, cols = views.recon.shape[1:]
    return "".join(
        f'<figure class="panel {name}"><canvas data-view="{name}" width="{cols}" height="{rows}" role="img" '
        f'aria-label="{escape(label)}, playing" style="aspect-ratio:{_aspect(record, r)}"></canvas>'
        f'<figcaption><span class="name">{escape(label)}</span><span class="scale"><span>{low}</span>'
        f'<i class="bar {bar}"></i><span>{escape(high)}</span></span></figcaption></figure>'
        for name, label, bar, low, high in panels
    )


def _end_systole(r: SliceRecord, views: _Views) -> int:
    """Return the frame between 15 % and 60 % of the beat that differs most from the first, or the first if alone."""
    frames = (views.recon if views.truth is None else views.truth).astype(np.int16)
    n = len(frames)
    window = [f for f in range(1, n) if 0.15 <= (f + 0.5) / n <= 0.6]
    return max(window, key=lambda f: float(np.abs(frames[f] - frames[0]).mean())) if window else 0


def _inferno(grey: Grey) -> Grey:
    anchors = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in _INFERNO.split()], dtype=float)
    levels = np.linspace(0, 255, len(anchors))
    table = np.stack([np.interp(np.arange(256), levels, anchors[:, c]) for c in range(3)], axis=-1)
    return np.asarray(np.rint(table[grey]), dtype=np.uint8)


def _stills(record: ScanRecord) -> str:
    """Draw the first frame and the one near end-systole of every slice, for paper and for pages without scripts."""
    rows = []
    heads: list[str] = []
    for r in record.slices:
        views = _views(r)
        moments = [("ED", 0), ("ES", _end_systole(r, views))]
        tiles, heads = [], []
        for moment, frame in moments:
            for name, grey in (("Reconstruction", views.recon), ("Truth", views.truth), ("Error", views.error)):
                if grey is not None:
                    tiles.append(_inferno(grey[frame]) if name == "Error" else np.repeat(grey[frame, ..., None], 3, -1))
                    heads.append(f"{name} {moment}")
        picture = Image.fromarray(np.concatenate(tiles, axis=1))
        if picture.height > 200:
            picture = picture.resize((round(picture.width * 200 / picture.height), 200))
        rows.append(
            f'<tr><th scope="row">Slice {r.index}<small>{_state(r)}</small><small>ES is frame {moments[1][1] + 1} '
            f'of {len(views.recon)}</small></th><td><img alt="Stills of slice {r.index}" '
            f'src="{_data_uri(picture, 80)}" style="aspect-ratio:{_aspect(record, r, len(tiles))};'
            f'width:{_STILL_MM * len(tiles)}mm"></td></tr>'
        )
    if not rows:
        return ""
    names = "".join(f"<span>{name}</span>" for name in heads)
    head = f'<th></th><th><div class="heads" style="width:{_STILL_MM * len(heads)}mm">{names}</div></th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


# ----------------------------------------------------------------------------------------------------------- charts


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


def _charts(record: ScanRecord, chosen: int, scores: Mapping[str, Score]) -> str:
    if not record.slices:
        return ""
    longest = max([r.seconds for r in record.slices] + [_cap(record) or 0.0]) or 1.0

    def curves(value: Callable[[StepRecord], float], limit: Callable[[StepRecord], float | None]) -> list[_Curve]:
        return [
            _Curve(
                r.index,
                [(s.seconds, v) for s in r.steps if math.isfinite(v := value(s))],
                limit(r.steps[-1]),
                value(r.steps[-1]),
                r.seconds,
                _ended(record, r),
                r.stopped,
            )
            for r in record.slices
        ]

    def judged(name: str) -> str:
        def value(step: StepRecord) -> float:
            score = _score_of(step, name)
            return math.nan if score is None else score.value

        def limit(step: StepRecord) -> float | None:
            score = _score_of(step, name)
            return score.limit if score is not None and math.isfinite(score.limit) else None

        return _chart(_title(name), escape(scores[name].label), curves(value, limit), chosen, longest, from_zero=True)

    def measured(key: str) -> str:
        found = curves(lambda step: float(step.truth.get(key, math.nan)), lambda step: None)
        unit = "in dB, higher is better" if key == "psnr_db" else "higher is better"
        below = "lower is better" if key == "nrmse" else unit
        return _chart(_TRUTH[key][0], below, found, chosen, longest, from_zero=key == "nrmse")

    rows = []
    for head, note, drawn in (
        ("What the scanner could see", "the judges decide on these alone", [judged(name) for name in scores]),
        ("What only the truth knows", "no judge has seen these", [measured(key) for key in _truths(record)]),
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
    words = [f'<span class="y" style="bottom:{axis.place(t):.2f}%">{_num(t)}</span>' for t in axis.ticks]
    words += [
        f'<span class="x" style="left:{100 * t / longest:.2f}%">{_num(t)}{" s" if t == ticks[-1] else ""}</span>'
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
            f'style="left:{end:.2f}%">{curve.ended} · {_num(curve.end)} s</span>'
        )
        limit = "" if curve.limit is None else f" <small>limit {_num(curve.limit)}</small>"
        heads.append(f'<span class="only{on}" data-slice="{position}">{_num(curve.final)}{limit}</span>')
    if not known:
        words.append('<span class="none">no finite value yet</span>')
    log = ' <small class="log">log scale</small>' if axis.log else ""
    return (
        f'<figure class="chart"><figcaption><span class="what">{title}{log}</span><span class="now">{"".join(heads)}'
        f'</span><span class="sub">{subtitle}</span></figcaption><div class="plot">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{"".join(svg)}</svg>'
        f"{''.join(words)}</div></figure>"
    )


# ----------------------------------------------------------------------------------------------------------- tables


_DECIMALS = {"psnr_db": 1, "ssim": 3, "nrmse": 3}


def _fixed(value: float, decimals: int) -> str:
    """Return a number with the decimals of its column, so that the points lie below each other."""
    return f"{value:.{decimals}f}".replace("-", "−") if abs(value) < 1e6 else _num(value)


def _score_cell(score: Score | None) -> str:
    if score is None:
        return "<td>–</td>"
    scaled = math.isfinite(score.limit) and 1e-5 < abs(score.limit) < 1e6
    decimals = min(6, max(0, 2 - math.floor(math.log10(abs(score.limit))))) if scaled else 3
    value = _fixed(score.value, decimals)
    return f"<td>{value}</td>" if score.passed else f'<td class="over" title="limit {_num(score.limit)}">{value}</td>'


def _slice_table(record: ScanRecord, scores: Mapping[str, Score]) -> str:
    if not record.slices:
        return '<p class="quiet">No slice was finished.</p>'
    keys = _truths(record)
    cap = _cap(record) or max(r.seconds for r in record.slices) or 1.0
    heads = ["Slice", "Seconds", "", "Spokes", "Per frame", "Ended"]
    cells = [f'<th class="{"words" if name == "Ended" else ""}" scope="col">{name}</th>' for name in heads]
    cells += [f'<th scope="col" title="{escape(score.label)}">{_title(name)}</th>' for name, score in scores.items()]
    cells += [f'<th scope="col">{_TRUTH[key][0]}</th>' for key in keys]
    rows = []
    for position, r in enumerate(record.slices):
        last = r.steps[-1]
        share = min(100.0, 100 * r.seconds / cap)
        rows.append(
            f'<tr data-row="{position}"><th scope="row">{r.index}</th><td>{r.seconds:.1f}</td><td class="share">'
            f'<i class="{"good" if r.stopped else "cap"}" style="width:{share:.1f}%"></i></td><td>{r.spokes}</td>'
            f'<td>{r.spokes_per_frame:.1f}</td><td class="words why">{_badge(record, r)} {escape(r.reason)}</td>'
            + "".join(_score_cell(_score_of(last, name)) for name in scores)
            + "".join(f"<td>{_fixed(float(last.truth.get(key, math.nan)), _DECIMALS[key])}</td>" for key in keys)
            + "</tr>"
        )
    good = sum(r.stopped for r in record.slices)
    medians = []
    for key in keys:
        known = [v for r in record.slices if math.isfinite(v := float(r.steps[-1].truth.get(key, math.nan)))]
        medians.append(f"<td>{_fixed(float(np.median(known)), _DECIMALS[key]) if known else '–'}</td>")
    share = min(100.0, 100 * record.seconds / (cap * len(record.slices)))
    total = (
        f'<tr><th scope="row">All</th><td>{record.seconds:.1f}</td><td class="share"><i class="good" style="width:'
        f'{share:.1f}%"></i></td><td>{sum(r.spokes for r in record.slices)}</td>'
        f"<td>{float(np.mean([r.spokes_per_frame for r in record.slices])):.1f}</td>"
        f'<td class="words">{good} of {len(record.slices)} good enough{"; medians of quality" if keys else ""}'
        f"</td>{'<td></td>' * len(scores)}{''.join(medians)}</tr>"
    )
    return (
        f'<div class="wide"><table class="numbers"><thead><tr>{"".join(cells)}</tr></thead><tbody>{"".join(rows)}'
        f"</tbody><tfoot>{total}</tfoot></table></div>"
    )


def _decisions(record: ScanRecord, r: SliceRecord) -> str:
    names = list(dict.fromkeys(score.name for step in r.steps for score in step.scores))
    rows = []
    for step in r.steps:
        held = ", ".join(_title(score.name) for score in step.scores if not score.passed)
        end = '<b class="good">stop</b> ' if r.stopped else '<b class="cap">end</b> '
        rows.append(
            f"<tr><td>{step.seconds:.1f}</td><td>{step.spokes}</td>"
            + "".join(_score_cell(_score_of(step, name)) for name in names)
            + f'<td class="words">{held or "nothing"}</td><td class="words why">'
            f"{end if step.stop else ''}{escape(step.reason)}</td>"
            f"<td>{step.reconstruction_s:.2f}</td></tr>"
        )
    heads = "".join(f'<th scope="col">{_title(name)}</th>' for name in names)
    return (
        f'<details class="steps"><summary><span class="no">Slice {r.index}</span> {_badge(record, r)} '
        f'<span class="quiet">{_count(len(r.steps), "decision")}, {_num(r.seconds)} s, reconstruction '
        f"{_num(sum(s.reconstruction_s for s in r.steps))} s</span></summary>"
        f'<div class="wide"><table class="numbers"><thead><tr><th scope="col">Seconds</th><th scope="col">Spokes</th>'
        f'{heads}<th class="words" scope="col">Held back by</th><th class="words" scope="col">Decision</th>'
        f'<th scope="col">Recon s</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div></details>'
    )


def _legend(record: ScanRecord, scores: Mapping[str, Score]) -> str:
    said = [
        (
            _title(name),
            f"{escape(score.label[:1].upper() + score.label[1:].rstrip('.'))}. "
            f"Good enough at or below {_num(score.limit)}; lower is better.",
        )
        for name, score in scores.items()
    ]
    said += [(_TRUTH[key][0], escape(_TRUTH[key][1])) for key in _truths(record)]
    if not said:
        return '<p class="quiet">No score was given.</p>'
    return "<dl>" + "".join(f"<div><dt>{name}</dt><dd>{text}</dd></div>" for name, text in said) + "</dl>"


def _run_details(record: ScanRecord) -> str:
    slices, rows, cols = record.geometry.shape
    dz, dy, dx = record.geometry.spacing_mm
    high, wide = record.geometry.field_of_view_mm
    thickness = record.geometry.slice_thickness_mm
    facts: dict[str, object] = {
        "source": record.source or "not named",
        "spokes": "simulated" if record.synthetic else "measured",
        "slices": f"{len(record.slices)} finished of {record.n_slices}; the stack has {slices}",
        "matrix": f"{rows} × {cols} (rows × columns)",
        "pixel spacing": f"{_num(dy, 4)} × {_num(dx, 4)} mm",
        "slice distance": f"{_num(dz, 4)} mm",
        "slice thickness": "not known" if thickness is None else f"{_num(thickness, 4)} mm",
        "field of view": f"{_num(high, 4)} × {_num(wide, 4)} mm",
        "RR interval": f"{_num(record.rr_s)} s",
        "wall time": f"{record.wall_s:.1f} s",
        "ended": "interrupted" if record.interrupted else "complete",
    }

    def listed(head: str, pairs: Mapping[str, object]) -> str:
        def text(value: object) -> str:
            plain = isinstance(value, str | int | float | bool | Path) or value is None
            return str(value) if plain else json.dumps(value, default=str, ensure_ascii=False)

        body = "".join(
            f'<tr><th scope="row">{escape(str(key))}</th><td>{escape(text(value))}</td></tr>'
            for key, value in pairs.items()
        )
        return f"<div><h3>{head}</h3><table>{body or '<tr><td>none</td></tr>'}</table></div>"

    return listed("Scan", facts) + listed("Options", record.options) + listed("Versions", record.versions)
