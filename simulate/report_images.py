"""The pictures of a report: greys, sprite sheets for the player, thumbnails, and stills for paper."""

from __future__ import annotations

import base64
import io
import math
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features
from torch import Tensor

from simulate.record import ScanRecord, SliceRecord
from simulate.report_words import number_text, slice_state

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
INFERNO = "000004 0b0724 210c4a 3d0965 57106e 71196e 8a226a a32c61 bc3754 d24644 e45a31 f1731d f98e09 fcac11 f9cb35 f2ea69 fcffa4"  # noqa: E501


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


def encode_sheets(record: ScanRecord) -> _Sheets:
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
                "top": number_text(views.top),
                "state": slice_state(r),
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


def thumbnail_button(record: ScanRecord, position: int, chosen: bool) -> str:
    """Return the button that picks a slice."""
    r = record.slices[position]
    views = _views(r)
    picture = Image.fromarray(views.recon[0])
    picture.thumbnail((128, 128))
    return (
        f'<button type="button" class="thumb" data-pick="{position}" aria-pressed="{str(chosen).lower()}" '
        f'title="Slice {r.index}: {slice_state(r)}"><img alt="" src="{_data_uri(picture, 80)}" '
        f'style="aspect-ratio:{_aspect(record, r)}"><span class="no">{r.index}</span>'
        f'<span class="{"good" if r.stopped else "cap"} mark">{number_text(r.seconds)} s</span></button>'
    )


def player_panels(record: ScanRecord) -> str:
    """Return the canvases of the player, with the scale of each."""
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
    anchors = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in INFERNO.split()], dtype=float)
    levels = np.linspace(0, 255, len(anchors))
    table = np.stack([np.interp(np.arange(256), levels, anchors[:, c]) for c in range(3)], axis=-1)
    return np.asarray(np.rint(table[grey]), dtype=np.uint8)


def stills_section(record: ScanRecord) -> str:
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
            f'<tr><th scope="row">Slice {r.index}<small>{slice_state(r)}</small><small>ES is frame {moments[1][1] + 1} '
            f'of {len(views.recon)}</small></th><td><img alt="Stills of slice {r.index}" '
            f'src="{_data_uri(picture, 80)}" style="aspect-ratio:{_aspect(record, r, len(tiles))};'
            f'width:{_STILL_MM * len(tiles)}mm"></td></tr>'
        )
    if not rows:
        return ""
    names = "".join(f"<span>{name}</span>" for name in heads)
    head = f'<th></th><th><div class="heads" style="width:{_STILL_MM * len(heads)}mm">{names}</div></th>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
