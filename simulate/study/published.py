"""What Machado et al. published beside what a study of ours found, and why the two can differ."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape

from kspace.quality.family import ORACLE
from simulate.study.evaluate import Evaluation

CITATION = "Machado et al., IEEE TBME 2023 (arXiv 2205.01673); STACOM 2021 (arXiv 2109.07955)"
DIFFERENCES = (
    "All our patients are synthetic: drawn anatomies under a simulated scanner. Theirs are UK Biobank images (200 "
    "healthy, 70 with cardiomyopathy) from which k-space was simulated; the shares of our groups follow theirs.",
    "Few slices, a small field of view and few frames, so that a study is affordable; spokes per frame and second are "
    "made to match 2.6 ms and 50 frames. How theirs map to seconds is not known to us.",
    "Their two classifiers are networks that look at images and labels; ours see the same label-free features as all "
    "other policies here. Reconstruction and segmentation networks are other ones.",
    "Errors of ours are against what the same networks find in the fully sampled truth.",
)
"""Why the numbers need not agree."""


@dataclass(frozen=True)
class Line:
    """One line of the table: a figure, what was published, and what was found."""

    figure: str
    published: str
    ours: str


def machado_table(evaluation: Evaluation) -> tuple[Line, ...]:
    """Return the table of ``--preset machado2023``."""
    rows = {row.policy: row for row in evaluation.rows}
    classifiers, ours, oracle = rows["two classifiers"], rows["guaranteed"], rows[ORACLE]
    cap = float(evaluation.seconds[-1])
    percent = ("lv_edv_ml", "lv_esv_ml", "lv_mass_g", "rv_edv_ml")
    worst = {row.policy: max(row.errors[name] for name in percent) for row in (classifiers, ours)}

    def said(policy: str) -> str:
        row = rows[policy]
        return f"{100 * row.violation:.0f} % ({row.missed} of {row.patients})"

    return (
        Line("seconds per slice, two classifiers", "12 to 4", f"{cap:g} to {classifiers.seconds:.2f}"),
        Line("seconds per slice, guaranteed", "-", f"{cap:g} to {ours.seconds:.2f}"),
        Line("worst mean absolute difference of a volume or mass, two classifiers", "within 5 %",
             f"{worst['two classifiers']:.1f} %"),
        Line("the same, guaranteed", "-", f"{worst['guaranteed']:.1f} %"),
        Line("mean absolute difference of EF, guaranteed", "-", f"{ours.errors['lv_ef_percent']:.1f} points"),
        Line("patients out of tolerance, two classifiers", "not published", said("two classifiers")),
        Line("patients out of tolerance, guaranteed", "-", said("guaranteed")),
        Line("scan time of guaranteed over two classifiers", "-", f"{ours.seconds / classifiers.seconds:.2f}"),
        Line("scan time of guaranteed over the oracle", "-", f"{ours.seconds / oracle.seconds:.2f}"),
    )  # fmt: skip


def as_text(lines: tuple[Line, ...], differences: tuple[str, ...], citation: str) -> str:
    """Return a table for a terminal."""
    wide = max(len(line.figure) for line in lines)
    middle = max(len("published"), *(len(line.published) for line in lines))
    rows = [f"{'':{wide}}  {'published':{middle}}  ours (synthetic)"]
    rows += [f"{line.figure:{wide}}  {line.published:{middle}}  {line.ours}" for line in lines]
    return "\n".join(
        [*rows, "", f"Published: {citation}.", "Why they can differ:", *(f"- {why}" for why in differences)]
    )


def as_html(lines: tuple[Line, ...], differences: tuple[str, ...], citation: str) -> str:
    """Return the same as a section of the page."""
    rows = "".join(
        f"<tr><td>{escape(line.figure)}</td><td>{escape(line.published)}</td><td>{escape(line.ours)}</td></tr>"
        for line in lines
    )
    why = "".join(f"<li>{escape(text)}</li>" for text in differences)
    return (
        '<h2>Published and ours</h2><div class="card wide"><table><thead><tr><th></th><th>published</th>'
        f"<th>ours (synthetic)</th></tr></thead><tbody>{rows}</tbody></table>"
        f'<p class="quiet">Published: {escape(citation)}. Why they can differ:</p><ul class="quiet">{why}</ul></div>'
    )
