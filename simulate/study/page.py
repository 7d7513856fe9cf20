"""One self-contained HTML page of what a study found, with its tables as CSV and JSON beside it."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import numpy as np

from kspace.formats.files import atomic_json, atomic_text
from kspace.quality.family import ORACLE, Outcome
from kspace.quality.measures import volumes_ml
from kspace.quality.policies.policy import areas_at
from simulate.output import plain
from simulate.study.audit import Audit, audit
from simulate.study.charts import COLOURS, histogram, trade_off, volumes
from simulate.study.evaluate import Evaluation, Row, biomarker_errors
from simulate.study.protocol import PRETEND, Protocol

PAGE, TABLE, RECORD, PATIENTS = "study.html", "policies.csv", "study.json", "patients.csv"
"""Files in a study's folder."""
OURS = "guaranteed"
_FAILURES = 8
_SHORT = {
    "lv_ef_percent": "EF, points", "lv_edv_ml": "EDV, %", "lv_esv_ml": "ESV, %", "lv_mass_g": "mass, %",
    "rv_edv_ml": "RV EDV, %", "rv_ef_percent": "RV EF, points",
}  # fmt: skip


def write_page(folder: Path, evaluation: Evaluation, protocol: Protocol, title: str, notes: str = "") -> None:
    """Write the page, ``policies.csv``, ``patients.csv`` and ``study.json`` into a folder, each whole or not at all.

    Parameters
    ----------
    folder
        That exists.
    evaluation, protocol
        What was found, and how patients were scanned.
    title
        Of the page.
    notes
        HTML of a section of its own, for presets.
    """
    atomic_text(folder / TABLE, _csv(evaluation.rows))
    atomic_text(folder / PATIENTS, _patients_csv(evaluation))
    atomic_json(folder / RECORD, plain({**evaluation.record(), "protocol": protocol.model_dump(mode="json")}))
    atomic_text(folder / PAGE, render_page(evaluation, protocol, title, notes))


def render_page(evaluation: Evaluation, protocol: Protocol, title: str, notes: str = "") -> str:
    """Return the page as text."""
    style = files("simulate.study").joinpath("page.css").read_text(encoding="utf-8")
    sections = [
        _head(evaluation, protocol, title), notes,
        f"<h2>All policies on the same {len(evaluation.test)} test patients</h2>{_table(evaluation)}",
        f"<h2>Seconds against error</h2>{_trade_offs(evaluation)}",
        f"<h2>When slices stop</h2>{_histograms(evaluation)}",
        f"<h2>Does the promise hold?</h2>{_promise(evaluation)}",
        f"<h2>Quality control without a truth</h2>{_control(evaluation)}",
        f"<h2>Failures</h2>{_failures(evaluation)}",
        f"<h2>Do all groups fare alike?</h2>{_audits(audit(evaluation.outcomes[OURS], evaluation.test))}",
        f"<h2>Protocol</h2>{_protocol(protocol)}",
    ]  # fmt: skip
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style></head>'
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _row_of(evaluation: Evaluation, policy: str) -> Row:
    return next(row for row in evaluation.rows if row.policy == policy)


def _head(evaluation: Evaluation, protocol: Protocol, title: str) -> str:
    ours, oracle = _row_of(evaluation, OURS), _row_of(evaluation, ORACLE)
    counts = ", ".join(f"{count} for {part.value}" for part, count in evaluation.patients.items())
    loud = (
        "Pretended: no patient was scanned, these numbers were drawn at random to try the engine"
        if protocol.method == PRETEND
        else "Synthetic: all patients and all scans are simulated"
    )
    tiles = [
        (f"{ours.seconds:.2f} s", f"per slice, of {evaluation.seconds[-1]:g} s"),
        (f"{100 * ours.violation:.0f} %", f"of patients out of tolerance ({ours.missed} of {ours.patients})"),
        (f"{ours.acceleration:.1f} ×", "acceleration, harmonic mean"),
        (f"{ours.over_oracle:.2f}", f"times the oracle's {oracle.seconds:.2f} s"),
    ]
    body = "".join(f'<div class="card tile"><b>{value}</b>{escape(text)}</div>' for value, text in tiles)
    return (
        f'<h1>{escape(title)}</h1><p class="quiet">{sum(evaluation.patients.values())} virtual patients: '
        f'{counts}. Nobody is in two parts.</p><div class="loud">{escape(loud)}</div>'
        f"<p>A patient's scan is out of tolerance unless {escape(evaluation.question.tolerance.describe())}, of what "
        "the same networks find in the fully sampled truth. The rule called guaranteed promises: "
        f'{escape(evaluation.family.calibration.promise())}.</p><div class="tiles">{body}</div>'
    )


def _table(evaluation: Evaluation) -> str:
    heads = ["policy", "seconds per slice", "quartiles", "spokes per frame", *_SHORT.values(), "out of tolerance",
             "90 % interval", "acceleration", "over oracle"]  # fmt: skip
    rows = []
    for index, row in enumerate(evaluation.rows):
        kind = {OURS: ' class="ours"', ORACLE: ' class="truth"'}.get(row.policy, "")
        low, high = row.violation_interval
        cells = [
            f"{row.seconds:.2f}", "{:g} to {:g}".format(*row.seconds_quartiles), f"{row.spokes_per_frame:.0f}",
            *(f"{row.errors[name]:.2f}" for name in _SHORT),
            f"{row.missed} of {row.patients}: {100 * row.violation:.1f} %", f"{100 * low:.0f} to {100 * high:.0f} %",
            f"{row.acceleration:.2f}", f"{row.over_oracle:.2f}",
        ]  # fmt: skip
        rows.append(
            f'<tr{kind}><td><span class="dot" style="background:{_colour(index)}"></span>{escape(row.policy)}</td>'
            + "".join(f"<td>{cell}</td>" for cell in cells)
            + "</tr>"
        )
    return (
        f'<div class="card wide"><table><thead><tr>{_cells("th", heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="quiet">Errors are mean absolute differences from the complete scan. Quartiles are those of slices; '
        "acceleration is the cap over a patient's scan time. The oracle knows the truth and stops as early as "
        "the same steps allow.</p>"
    )


def _trade_offs(evaluation: Evaluation) -> str:
    pictures = []
    for curve, value in zip(evaluation.curves, (_nrmse, _dice, _ef), strict=True):
        points = {
            name: (
                float(np.mean([row.stopped.mean_seconds for row in rows])),
                float(np.nanmean([value(evaluation, k, row) for k, row in enumerate(rows)])),
            )
            for name, rows in evaluation.outcomes.items()
        }
        chart = trade_off(evaluation.seconds, curve.mean, curve.low, curve.high, points, curve.unit, curve.name)
        pictures.append(f'<div class="card">{chart}</div>')
    return (
        f'<div class="three">{"".join(pictures)}</div>{_key(evaluation)}<p class="quiet">Line and band: all slices end '
        "together; mean over test patients and its 5 to 95 % bootstrap interval. A policy below the line spends its "
        "seconds better than a fixed time does.</p>"
    )


def _nrmse(evaluation: Evaluation, index: int, row: Outcome) -> float:
    one = evaluation.test[index]
    return 100 * float(one.truth_scores["heart_nrmse"][row.stopped.steps - 1, np.arange(one.n_slices)].mean())


def _dice(evaluation: Evaluation, index: int, row: Outcome) -> float:
    one, at = evaluation.test[index], row.stopped.steps - 1
    every = np.arange(one.n_slices)
    means = [
        np.nanmean(one.truth_scores[name][at, every])
        for name in ("dice_lv", "dice_myocardium", "dice_rv")
        if np.isfinite(one.truth_scores[name][at, every]).any()
    ]
    return 100 * (1 - float(np.mean(means)))


def _ef(evaluation: Evaluation, index: int, row: Outcome) -> float:
    return biomarker_errors(row)["lv_ef_percent"]


def _key(evaluation: Evaluation) -> str:
    names = "".join(
        f'<span><span class="dot" style="background:{_colour(index)}"></span>{escape(row.policy)}</span>'
        for index, row in enumerate(evaluation.rows)
    )
    return f'<div class="key">{names}</div>'


def _histograms(evaluation: Evaluation) -> str:
    cards = []
    for index, row in enumerate(evaluation.rows):
        if row.policy.startswith("fixed"):
            continue
        steps = np.concatenate([outcome.stopped.steps for outcome in evaluation.outcomes[row.policy]])
        counts = np.bincount(steps, minlength=len(evaluation.seconds) + 1)[1:].tolist()
        chart = histogram(evaluation.seconds, counts, row.seconds, _colour(index), row.policy)
        cards.append(f'<div class="card"><h3>{escape(row.policy)}</h3>{chart}</div>')
    return f'<div class="four">{"".join(cards)}</div><p class="quiet">Slices by scan time, s.</p>'


def _promise(evaluation: Evaluation) -> str:
    splits, calibration = evaluation.splits, evaluation.family.calibration
    said = (
        f"<p>On its {calibration.n_calibration} calibration patients the rule misses {calibration.misses} times; a "
        f"scan to the cap misses {calibration.misses_at_cap} times.</p>"
    )
    if splits is None:
        return said + "<p>There are too few patients to split them again and again.</p>"
    return said + (
        f"<p>Over {splits.repeats} random splits of the patients that nothing was fitted on into {splits.calibration} "
        f"for calibration and {splits.test} for test, {100 * splits.mean:.1f} % of test patients are out of "
        f"tolerance on average; {100 * evaluation.question.promise.alpha:g} % are allowed. From split to split the "
        f"share scatters by {100 * splits.sd:.1f} points; so few test patients alone explain "
        f"{100 * splits.sd_by_chance:.1f}, other calibrations the rest. The mean scan takes "
        f"{splits.seconds:.2f} s per slice.</p>"
    )


def _control(evaluation: Evaluation) -> str:
    c = evaluation.control
    rows = [
        ("AUROC of “EF within tolerance”", c["auroc_ef_within"], "volume-curve rules on the same states",
         c["auroc_ef_within_curve_rules"]),
        ("AUROC of “the scan would miss”", c["auroc_missed"], "", None),
        ("Expected calibration error of “EF within tolerance”", c["ece_ef_within"], "", None),
        ("Expected calibration error of “the scan would miss”", c["ece_missed"], "", None),
        ("Correlation of predicted and true Dice", c["correlation_dice"], "", None),
        ("Correlation of predicted and true image error", c["correlation_image_error"], "", None),
    ]  # fmt: skip
    body = "".join(
        f"<tr><td>{name}</td><td>{value:.3f}</td>"
        f'<td class="words">{"" if other is None else f"{what}: {other:.3f}"}</td></tr>'
        for name, value, what, other in rows
    )
    return (
        f'<div class="card wide"><table><thead><tr>{_cells("th", ["figure", "test patients", ""])}</tr></thead>'
        f'<tbody>{body}</tbody></table></div><p class="quiet">{c["states"]:.0f} states of test patients, in '
        f"{100 * c['share_ef_within']:.0f} % of which EF is within tolerance.</p>"
    )


def _failures(evaluation: Evaluation) -> str:
    rows = evaluation.outcomes[OURS]
    missed = sorted((k for k, row in enumerate(rows) if row.missed), key=lambda k: -rows[k].excess)
    if not missed:
        return "<p>No test patient is out of tolerance.</p>"
    cards = []
    for k in missed[:_FAILURES]:
        one, row = evaluation.test[k], rows[k]
        found = volumes_ml(areas_at(one, row.stopped.steps), one.spacing_mm)[0]
        reference = volumes_ml(one.reference_areas_mm2, one.spacing_mm)[0]
        errors = biomarker_errors(row)
        times = ", ".join(f"{second:g}" for second in row.stopped.seconds)
        cards.append(
            f'<div class="card"><h3>{escape(one.patient)}</h3><p class="quiet">{escape(one.group.replace("_", " "))}, '
            f"{escape(one.sex)}, {escape(one.vendor)}, SNR {escape(one.facts.get('snr', '?'))}</p>"
            f"{volumes(found, reference, 'LV volume over the beat')}<p>Stopped after {times} s: "
            f"{escape(row.stopped.choice.reason)}. EF off by {errors['lv_ef_percent']:.1f} points, EDV by "
            f"{errors['lv_edv_ml']:.1f} %, ESV by {errors['lv_esv_ml']:.1f} %.</p></div>"
        )
    return (
        f"<p>{len(missed)} of {len(rows)} test patients are out of tolerance under the guaranteed rule, the worst "
        f'first. Dashed: LV volume of the complete scan; red: at the stop.</p><div class="four">{"".join(cards)}</div>'
    )


def _audits(audits: Sequence[Audit]) -> str:
    parts = []
    for one in audits:
        rows = "".join(
            f"<tr><td>{escape(row.group)}</td><td>{row.patients}</td><td>{row.seconds:.2f}</td><td>{row.ef_error:.2f}</td>"
            f"<td>{100 * row.violation:.0f} %</td>"
            f"<td>{100 * row.violation_interval[0]:.0f} to {100 * row.violation_interval[1]:.0f} %</td></tr>"
            for row in one.rows
        )
        heads = [one.kind, "n", "seconds", "EF error", "out of tolerance", "90 % interval"]
        parts.append(
            f'<div class="card wide"><table><thead><tr>{_cells("th", heads)}</tr></thead><tbody>{rows}</tbody></table>'
            f'<p class="quiet">SD between groups: {one.seconds_sd:.2f} s and {one.ef_error_sd:.2f} points; skewed '
            f"error ratio {one.ser:.2f}.</p></div>"
        )
    return (
        f'<p class="quiet">Under the guaranteed rule. Seconds per slice; EF error in points. Small groups have wide '
        f'intervals.</p><div class="two">{"".join(parts)}</div>'
    )


def _protocol(protocol: Protocol) -> str:
    rows = "".join(
        f'<tr><td>{escape(name.replace("_", " "))}</td><td class="words">{escape(str(value))}</td></tr>'
        for name, value in protocol.model_dump(mode="json").items()
    )
    return f'<div class="card wide"><table><tbody>{rows}</tbody></table></div>'


def _colour(index: int) -> str:
    return COLOURS[index % len(COLOURS)]


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(
        ["policy", "patients", "seconds_per_slice", "seconds_q1", "seconds_q3", "spokes_per_frame",
         *(f"error_{name}" for name in _SHORT), "missed", "violation", "violation_low", "violation_high",
         "acceleration", "over_oracle"]
    )  # fmt: skip
    for row in rows:
        numbers = [
            row.seconds, *row.seconds_quartiles, row.spokes_per_frame, *(row.errors[name] for name in _SHORT),
            row.missed, row.violation, *row.violation_interval, row.acceleration, row.over_oracle,
        ]  # fmt: skip
        table.writerow([row.policy, row.patients, *(f"{number:.6g}" for number in numbers)])
    return text.getvalue()


def _patients_csv(evaluation: Evaluation) -> str:
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["patient", "group", "sex", "vendor", "policy", "seconds_per_slice", "excess", "missed", *_SHORT])
    for policy, rows in evaluation.outcomes.items():
        for one, row in zip(evaluation.test, rows, strict=True):
            errors = biomarker_errors(row)
            table.writerow(
                [one.patient, one.group, one.sex, one.vendor, policy, f"{row.stopped.mean_seconds:.4g}",
                 f"{row.excess:.4g}", int(row.missed), *(f"{errors[name]:.4g}" for name in _SHORT)]
            )  # fmt: skip
    return text.getvalue()
