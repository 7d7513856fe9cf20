"""What ``spokewise segment`` tells a person: the measures of the heart, what is doubtful, and the scores as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kspace.biomarkers import Biomarkers

_ROWS = (
    ("LV end-diastolic volume", "lv_edv_ml", "mL"),
    ("LV end-systolic volume", "lv_esv_ml", "mL"),
    ("LV stroke volume", "lv_sv_ml", "mL"),
    ("LV ejection fraction", "lv_ef_percent", "%"),
    ("LV mass", "lv_mass_g", "g"),
    ("RV end-diastolic volume", "rv_edv_ml", "mL"),
    ("RV end-systolic volume", "rv_esv_ml", "mL"),
    ("RV ejection fraction", "rv_ef_percent", "%"),
)


def biomarker_line(found: Biomarkers) -> str:
    """Return the LV's volumes and ejection fraction in one line, or why there are none."""
    said = found.to_dict()
    if not said["lv_edv_ml"]:
        reason = found.missing()["lv_edv_ml"]
        return f"{reason[0].upper()}{reason[1:]}."
    parts = (("EDV", "lv_edv_ml", "mL"), ("ESV", "lv_esv_ml", "mL"), ("EF", "lv_ef_percent", "%"))
    known = [f"{name} {_amount(measure, unit)}" for name, key, unit in parts if (measure := said[key])]
    return f"LV: {', '.join(known)}."


def segment_text(answer: Mapping[str, Any]) -> str:
    """Return the record of ``spokewise segment`` as lines for a person."""
    lines = []
    for name, key, unit in _ROWS:
        measure = answer["biomarkers"][key]
        lines.append(f"{name:<24} {_amount(measure, unit) if measure else '-  ' + answer['biomarkers_missing'][key]}")
    lines += [f"Mind: {text}." for text in (*answer["biomarker_warnings"], *answer["problems"])]
    if "scores" in answer:
        lines += ["", *_table(answer["scores"])]
    lines += ["", f"Labels: {answer['labels']}", f"Movie: {answer['movie']}", f"Plot: {answer['plot']}"]
    return "\n".join(lines)


def _amount(measure: Mapping[str, float | None], unit: str) -> str:
    low, high = measure["low"], measure["high"]
    spread = "" if low is None or high is None else f" ({low:.0f} to {high:.0f})"
    return f"{measure['value']:.0f} {unit}{spread}"


def _table(scores: Mapping[str, Any]) -> list[str]:
    rows: list[Sequence[str]] = [("structure", "frame", "Dice", "HD95 mm", "volume", "truth")]
    for name, scored in scores["structures"].items():
        columns = (scored[key] for key in ("frames", "dice", "hd95_mm", "volume_ml", "truth_ml"))
        for frame, dice, distance, volume, truth in zip(*columns, strict=True):
            far = distance if isinstance(distance, str) else f"{distance:.1f}"
            rows.append((name, str(frame), f"{dice:.3f}", far, f"{volume:.1f}", f"{truth:.1f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(cells))
        for cells in (list(zip(row, widths, strict=True)) for row in rows)
    ]
    shares = ", ".join(f"{100 * scores['flips'][name]:.1f} % {name}" for name in ("correct", "flipped", "missed"))
    lines.append(f"Of the truth's foreground: {shares}")
    errors = [f"{key} {error:+.1f}" for key, error in scores["errors"].items() if error is not None]
    lines.append(f"Prediction minus truth: {', '.join(errors) or 'nothing that both sides have'}")
    return lines
