"""One self-contained HTML page of what a scan did: the cine, the quality step by step, the decisions.

Everything is inside the file: pictures as base64 sprite sheets, charts as inline SVG, the player as a few lines of
script (``report_template.html``, ``.css`` and ``.js`` beside this file). It opens without a network, on paper and
without scripts too, where stills take the place of the player.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from kspace.formats.files import atomic_text
from kspace.quality.judge import Score
from simulate.record import ScanRecord, SliceRecord
from simulate.report_charts import charts_section
from simulate.report_distrust import distrust_section
from simulate.report_heart import heart_section
from simulate.report_images import INFERNO, encode_sheets, player_panels, stills_section, thumbnail_button
from simulate.report_words import (
    TRUTHS,
    beat_seconds,
    cap_seconds,
    counted,
    ended_by,
    number_text,
    score_of,
    score_title,
    scores_by_name,
    truth_names,
    verdict,
)


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
    scores = scores_by_name(record)
    sheets = encode_sheets(record)
    title = f"Scan of {record.source}" if record.source else "Scan"
    parts = {
        "title": escape(title),
        "kind": "Simulated spokes" if record.synthetic else "Measured spokes",
        "verdict": " ".join(f"<span>{escape(sentence)}</span>" for sentence in verdict(record)),
        "figures": _figures(record),
        "strip": "".join(thumbnail_button(record, i, i == chosen) for i in range(len(record.slices))),
        "panels": player_panels(record),
        "image_note": escape(sheets.note),
        "speed_note": f"{beat_seconds(record):.2f} s per beat",
        "stills": stills_section(record),
        "heart": heart_section(record.heart),
        "distrust": distrust_section(record.slices),
        "charts": charts_section(record, chosen, scores),
        "slices": _slice_table(record, scores),
        "decisions": "".join(_decisions(record, r) for r in record.slices),
        "details": _run_details(record),
        "legend": _legend(record, scores),
        "empty": "" if record.slices else "is-empty",
        "chosen": str(record.slices[chosen].index) if record.slices else "",
        "data": json.dumps(
            {"chosen": chosen, "rr": beat_seconds(record), "inferno": INFERNO.split(), "slices": sheets.slices}
        ).replace("<", "\\u003c"),
        "css": _asset("report_template.css"),
        "js": _asset("report_template.js"),
    }
    # One pass, so that nothing that was put in is ever read as a place to put something in.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _asset("report_template.html"))


def _asset(name: str) -> str:
    return (files("simulate") / name).read_text(encoding="utf-8")


def _figures(record: ScanRecord) -> str:
    if not record.slices:
        return ""
    good, done, cap = sum(r.stopped for r in record.slices), len(record.slices), cap_seconds(record)
    shown = [
        ("Good enough", f"{good}<small> of {done}</small>"),
        ("Scan time", f"{number_text(record.seconds)}<small> s</small>"),
    ]
    if cap:
        share = 100 * record.seconds / (cap * done)
        shown.append(("Of the cap", f"{share:.0f}<small> %</small>"))
    spokes = float(np.mean([r.spokes_per_frame for r in record.slices]))
    shown.append(("Spokes per frame", f"{number_text(spokes)}<small> mean</small>"))
    psnr = [float(r.steps[-1].truth["psnr_db"]) for r in record.slices if "psnr_db" in r.steps[-1].truth]
    if psnr:
        shown.append(("PSNR", f"{number_text(float(np.median(psnr)))}<small> dB median</small>"))
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown)


def _badge(record: ScanRecord, r: SliceRecord) -> str:
    return f'<b class="badge {"good" if r.stopped else "cap"}">{ended_by(record, r)}</b>'


_DECIMALS = {"psnr_db": 1, "ssim": 3, "nrmse": 3}


def _fixed(value: float, decimals: int) -> str:
    """Return a number with the decimals of its column, so that the points lie below each other."""
    return f"{value:.{decimals}f}".replace("-", "−") if abs(value) < 1e6 else number_text(value)


def _score_cell(score: Score | None) -> str:
    if score is None:
        return "<td>–</td>"
    scaled = math.isfinite(score.limit) and 1e-5 < abs(score.limit) < 1e6
    decimals = min(6, max(0, 2 - math.floor(math.log10(abs(score.limit))))) if scaled else 3
    value = _fixed(score.value, decimals)
    return (
        f"<td>{value}</td>"
        if score.passed
        else f'<td class="over" title="limit {number_text(score.limit)}">{value}</td>'
    )


def _slice_table(record: ScanRecord, scores: Mapping[str, Score]) -> str:
    if not record.slices:
        return '<p class="quiet">No slice was finished.</p>'
    keys = truth_names(record)
    cap = cap_seconds(record) or max(r.seconds for r in record.slices) or 1.0
    heads = ["Slice", "Seconds", "", "Spokes", "Per frame", "Ended"]
    cells = [f'<th class="{"words" if name == "Ended" else ""}" scope="col">{name}</th>' for name in heads]
    cells += [
        f'<th scope="col" title="{escape(score.label)}">{score_title(name)}</th>' for name, score in scores.items()
    ]
    cells += [f'<th scope="col">{TRUTHS[key][0]}</th>' for key in keys]
    rows = []
    for position, r in enumerate(record.slices):
        last = r.steps[-1]
        share = min(100.0, 100 * r.seconds / cap)
        rows.append(
            f'<tr data-row="{position}"><th scope="row">{r.index}</th><td>{r.seconds:.1f}</td><td class="share">'
            f'<i class="{"good" if r.stopped else "cap"}" style="width:{share:.1f}%"></i></td><td>{r.spokes}</td>'
            f'<td>{r.spokes_per_frame:.1f}</td><td class="words why">{_badge(record, r)} {escape(r.reason)}</td>'
            + "".join(_score_cell(score_of(last, name)) for name in scores)
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
        held = ", ".join(score_title(score.name) for score in step.scores if not score.passed)
        end = '<b class="good">stop</b> ' if r.stopped else '<b class="cap">end</b> '
        rows.append(
            f"<tr><td>{step.seconds:.1f}</td><td>{step.spokes}</td>"
            + "".join(_score_cell(score_of(step, name)) for name in names)
            + f'<td class="words">{held or "nothing"}</td><td class="words why">'
            f"{end if step.stop else ''}{escape(step.reason)}</td>"
            f"<td>{step.reconstruction_s:.2f}</td></tr>"
        )
    heads = "".join(f'<th scope="col">{score_title(name)}</th>' for name in names)
    return (
        f'<details class="steps"><summary><span class="no">Slice {r.index}</span> {_badge(record, r)} '
        f'<span class="quiet">{counted(len(r.steps), "decision")}, {number_text(r.seconds)} s, reconstruction '
        f"{number_text(sum(s.reconstruction_s for s in r.steps))} s</span></summary>"
        f'<div class="wide"><table class="numbers"><thead><tr><th scope="col">Seconds</th><th scope="col">Spokes</th>'
        f'{heads}<th class="words" scope="col">Held back by</th><th class="words" scope="col">Decision</th>'
        f'<th scope="col">Recon s</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div></details>'
    )


def _legend(record: ScanRecord, scores: Mapping[str, Score]) -> str:
    said = [
        (
            score_title(name),
            f"{escape(score.label[:1].upper() + score.label[1:].rstrip('.'))}. "
            f"Good enough at or below {number_text(score.limit)}; lower is better.",
        )
        for name, score in scores.items()
    ]
    said += [(TRUTHS[key][0], escape(TRUTHS[key][1])) for key in truth_names(record)]
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
        "pixel spacing": f"{number_text(dy, 4)} × {number_text(dx, 4)} mm",
        "slice distance": f"{number_text(dz, 4)} mm",
        "slice thickness": "not known" if thickness is None else f"{number_text(thickness, 4)} mm",
        "field of view": f"{number_text(high, 4)} × {number_text(wide, 4)} mm",
        "RR interval": f"{number_text(record.rr_s)} s",
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
