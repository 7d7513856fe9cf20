"""The part of a scan's report that shows the heart: contours through the beat, volumes, and what they measure."""

from __future__ import annotations

import base64
import io
from html import escape

from kspace.biomarkers import BIOMARKERS, Measure, curve_bands
from kspace.volume_curves import volume_curves
from simulate.scan_heart import ScanHeart
from simulate.segment_movie import draw_frames
from simulate.segment_plot import plot_curves

_NAMES = {
    "lv_edv_ml": ("LV end-diastolic volume", "mL"), "lv_esv_ml": ("LV end-systolic volume", "mL"),
    "lv_sv_ml": ("LV stroke volume", "mL"), "lv_ef_percent": ("LV ejection fraction", "%"),
    "lv_mass_g": ("LV mass", "g"), "rv_edv_ml": ("RV end-diastolic volume", "mL"),
    "rv_esv_ml": ("RV end-systolic volume", "mL"), "rv_ef_percent": ("RV ejection fraction", "%"),
}  # fmt: skip


def heart_section(heart: ScanHeart | str) -> str:
    """Return the section as HTML: a sentence where there is no heart to show."""
    if isinstance(heart, str):
        return f'<p class="note">Not measured: {escape(heart)}.</p>'
    rows = []
    for key in BIOMARKERS:
        name, unit = _NAMES[key]
        found = heart.biomarkers.measures[key]
        if isinstance(found, Measure):
            spread = f"{found.low:.0f} to {found.high:.0f}" if found.low is not None and found.high is not None else ""
            cells = f"<td>{found.value:.0f} {unit}</td><td>{spread}</td>"
        else:
            cells = f'<td colspan="2">missing: {escape(found.reason)}</td>'
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    warnings = "".join(
        f'<p class="note">{escape(text[0].upper() + text[1:])}.</p>' for text in heart.biomarkers.warnings
    )
    head = '<tr><th scope="col"></th><th scope="col">value</th><th scope="col">networks disagree within</th></tr>'
    table = f'<table class="numbers"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    reasons = set(heart.biomarkers.missing().values())
    if len(reasons) == 1 and len(heart.biomarkers.missing()) == len(BIOMARKERS):
        table = f'<p class="note">No volumes, and nothing that follows from them: {escape(reasons.pop())}.</p>'
    return (
        f'<p><img class="heart" alt="Contours of the segmented slices through one beat" src="{_movie(heart)}"></p>'
        f'<div class="volumes">{_volumes(heart)}</div>{table}{warnings}'
    )


def _movie(heart: ScanHeart) -> str:
    pictures = draw_frames(heart.cine, heart.segmentation, list(heart.slices))
    milliseconds = max(20, round(1000 * heart.cine.slice_rr_s(0) / len(pictures)))
    kept = io.BytesIO()
    pictures[0].save(
        kept, "WEBP", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, quality=60, method=2
    )
    return "data:image/webp;base64," + base64.b64encode(kept.getvalue()).decode()


def _volumes(heart: ScanHeart) -> str:
    curves = volume_curves(heart.segmentation.labels, heart.segmentation.geometry, heart.segmentation.positions)
    if not curves.drawn:
        return ""
    return plot_curves(curves, curve_bands(heart.segmentation), rr_s=heart.cine.slice_rr_s(0))
