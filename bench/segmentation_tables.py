"""What :mod:`bench.segmentation` measured, as Markdown: ``python -m bench.segmentation_tables FILE.jsonl...``.

Intervals are calibrated on the lines of the validation split and judged on those of the test split.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import ks_2samp, spearmanr

Row = dict[str, Any]
STRUCTURES = ("lv", "myocardium", "rv")
PLACES = ("base", "middle", "apex")
JUDGED = ("lv_edv_ml", "lv_esv_ml", "lv_ef_percent", "lv_mass_g", "rv_edv_ml", "rv_ef_percent")
UNCERTAINTIES = ("entropy", "flip_risk", "disagreement")


def ratio(shared: float, size: float) -> float:
    return shared / size if size else math.nan


def overlaps(row: Row, structure: str, places: Sequence[str] = ("no heart", *PLACES)) -> float:
    sums = np.sum([row["overlap"][place][structure] for place in places], 0)
    return ratio(*sums)


def dice_table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| Dice, mean over patients | LV | myocardium | RV |\n| --- | --- | --- | --- |"
    for name, places in (("whole heart, all frames", ("no heart", *PLACES)), *((p, (p,)) for p in PLACES)):
        cells = [f"{np.nanmean([overlaps(r, s, places) for r in rows]):.3f}" for s in STRUCTURES]
        yield f"| {name} | " + " | ".join(cells) + " |"
    for k, phase in enumerate(("end-diastole", "end-systole")):
        yield f"| {phase} | " + " | ".join(f"{np.mean([r['dice'][s][k] for r in rows]):.3f}" for s in STRUCTURES) + " |"
    for k, phase in enumerate(("end-diastole", "end-systole")):
        cells = [f"{np.median([r['hd95_mm'][s][k] for r in rows]):.1f}" for s in STRUCTURES]
        yield f"| HD95 at {phase}, mm, median | " + " | ".join(cells) + " |"


def errors(rows: Sequence[Row], name: str) -> np.ndarray:
    pairs = [(r["found"][name], r["truth"][name]) for r in rows]
    return np.array([f["value"] - t for f, t in pairs if f is not None and t is not None])


def biomarker_table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| biomarker | mean truth | mean error | mean absolute error | 95 % of errors below | missing |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for name in JUDGED:
        truth = [r["truth"][name] for r in rows if r["truth"][name] is not None]
        e = errors(rows, name)
        share = f" ({100 * np.mean(np.abs(e)) / np.mean(truth):.1f} %)" if not name.endswith("percent") else ""
        yield (
            f"| {name} | {np.mean(truth):.1f} | {e.mean():+.1f} | {np.abs(e).mean():.1f}{share} | "
            f"{np.quantile(np.abs(e), 0.95):.1f} | {len(rows) - len(e)} |"
        )


def interval_scale(rows: Sequence[Row], name: str) -> float:
    """Return by what intervals have to be stretched to hold nine of ten truths: the 90 % quantile, with its margin."""
    needed = []
    for r in rows:
        f, t = r["found"][name], r["truth"][name]
        if f is not None and f["low"] is not None and t is not None:
            width = f["high"] - f["value"] if t > f["value"] else f["value"] - f["low"]
            needed.append(abs(t - f["value"]) / max(width, 1e-9))
    if not needed:
        return math.nan
    level = min(1.0, math.ceil(0.9 * (len(needed) + 1)) / len(needed))
    return float(np.quantile(needed, level, method="higher"))


def coverage_table(test: Sequence[Row], validation: Sequence[Row]) -> Iterator[str]:
    yield "| way | biomarker | coverage | width | scale | coverage, calibrated | width, calibrated |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for way in sorted({r["scan"][3] for r in test}):
        for name in JUDGED:
            scale = interval_scale([r for r in validation if r["scan"][3] == way], name)
            cells = []
            for factor in (1.0, scale):
                held, widths = [], []
                for r in test:
                    f, t = r["found"][name], r["truth"][name]
                    if r["scan"][3] == way and f is not None and f["low"] is not None and t is not None:
                        low = f["value"] - factor * (f["value"] - f["low"])
                        high = f["value"] + factor * (f["high"] - f["value"])
                        held.append(low <= t <= high)
                        widths.append(high - low)
                cells.append(f"{100 * np.mean(held):.0f} %" if held else "-")
                cells.append(f"{np.mean(widths):.1f}" if held else "-")
            yield f"| {way} | {name} | {cells[0]} | {cells[1]} | {scale:.2f} | {cells[2]} | {cells[3]} |"


def correlation_table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| way | uncertainty | with 1 - Dice | with EF error |\n| --- | --- | --- | --- |"
    for way in sorted({r["scan"][3] for r in rows}):
        some = [r for r in rows if r["scan"][3] == way and r["found"]["lv_ef_percent"] is not None]
        poor = [1 - np.mean([overlaps(r, s) for s in STRUCTURES]) for r in some]
        off = [abs(r["found"]["lv_ef_percent"]["value"] - r["truth"]["lv_ef_percent"]) for r in some]
        signs = {name: [r["uncertainty"][name] for r in some] for name in UNCERTAINTIES}
        ef = [r["found"]["lv_ef_percent"] for r in some]
        if all(f["low"] is not None for f in ef):
            signs["EF interval"] = [f["high"] - f["low"] for f in ef]
        for name, values in signs.items():
            yield f"| {way} | {name} | {spearmanr(values, poor)[0]:.2f} | {spearmanr(values, off)[0]:.2f} |"


def calibration_error(rows: Sequence[Row]) -> float:
    """Return the expected calibration error of pixels around the heart."""
    count, sure, right = np.sum([r["reliability"] for r in rows], 0)
    return float(np.abs(sure - right).sum() / count.sum())


def audit_table(rows: Sequence[Row]) -> Iterator[str]:
    """Yield means by group, the SD of groups, and the skewed error ratio: worst over best (1 - Dice)."""
    sizes = np.quantile([r["bsa_m2"] for r in rows], (1 / 3, 2 / 3))
    keys: dict[str, Callable[[Row], str]] = {
        "sex": lambda r: r["sex"],
        "disease group": lambda r: r["group"],
        "vendor style": lambda r: r["vendor"],
        "body surface": lambda r: ("small", "middle", "large")[int(np.searchsorted(sizes, r["bsa_m2"]))],
    }
    yield "| by | group | n | Dice LV | Dice myocardium | Dice RV | EF error | HD95 LV, mm | flipped | missed |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    spreads = []
    for by, key in keys.items():
        means = []
        for group in sorted({key(r) for r in rows}):
            some = [r for r in rows if key(r) == group]
            scores = [float(np.mean([overlaps(r, s) for r in some])) for s in STRUCTURES]
            means.append(np.mean(scores))
            ef = np.abs(errors(some, "lv_ef_percent")).mean()
            hd = np.median([d for r in some for d in r["hd95_mm"]["lv"]])
            lost = [100 * np.mean([r["flips"][k] for r in some]) for k in ("flipped", "missed")]
            yield (
                f"| {by} | {group} | {len(some)} | {scores[0]:.3f} | {scores[1]:.3f} | {scores[2]:.3f} | {ef:.1f} | "
                f"{hd:.1f} | {lost[0]:.1f} % | {lost[1]:.1f} % |"
            )
        spreads.append((by, means))
    places = [np.mean([np.nanmean([overlaps(r, s, (p,)) for r in rows]) for s in STRUCTURES]) for p in PLACES]
    spreads.append(("slice position", places))
    yield "\n| by | SD of mean Dice | SER |\n| --- | --- | --- |"
    for by, means in spreads:
        yield f"| {by} | {np.std(means):.4f} | {(1 - min(means)) / (1 - max(means)):.2f} |"


def rescan_table(first: Sequence[Row], second: Sequence[Row]) -> Iterator[str]:
    """Yield what a second scan of the same patients gives."""
    again = {(r["scan"][1], r["scan"][3]): r for r in second}
    pairs = [(r, again[r["scan"][1], r["scan"][3]]) for r in first if (r["scan"][1], r["scan"][3]) in again]
    yield "| biomarker | n | bias | limits of agreement | CoV | same, of the truths | intervals overlap | KS p |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for name in JUDGED:
        both = [(a, b) for a, b in pairs if a["found"][name] is not None and b["found"][name] is not None]
        a, b = (np.array([r[k]["found"][name]["value"] for r in both]) for k in (0, 1))
        ta, tb = (np.array([r[k]["truth"][name] for r in both]) for k in (0, 1))
        d = b - a
        shared = [
            min(f["high"], g["high"]) >= max(f["low"], g["low"])
            for f, g in ((r["found"][name], s["found"][name]) for r, s in both)
            if f["low"] is not None and g["low"] is not None
        ]
        overlap = f"{100 * np.mean(shared):.0f} %" if shared else "-"
        yield (
            f"| {name} | {len(both)} | {d.mean():+.1f} | {d.mean() - 1.96 * d.std(ddof=1):+.1f} to "
            f"{d.mean() + 1.96 * d.std(ddof=1):+.1f} | {cov(a, b):.1f} % | {cov(ta, tb):.1f} % | {overlap} | "
            f"{ks_2samp(a, b).pvalue:.2f} |"
        )


def cov(a: np.ndarray, b: np.ndarray) -> float:
    """Return the within-subject coefficient of variation in percent: root mean square of SD over mean, pair by pair."""
    return float(100 * np.sqrt(np.mean(((a - b) ** 2 / 2) / ((a + b) / 2) ** 2)))


def real_table(rows: Sequence[Row]) -> Iterator[str]:
    yield "| heart, way | LV Dice, all slices | middle half | myocardium | EDV, mL | ESV, mL | EF, % |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for r in rows:
        indices = sorted(int(k) for k in r["slices"])
        quarter = len(indices) // 4
        inner = indices[quarter : len(indices) - quarter]

        def mean(name: str, some: Sequence[int], r: Row = r) -> float:
            return ratio(*np.sum([r["slices"][str(k)][name] for k in some], 0))

        cells = [mean("lv", indices), mean("lv", inner), mean("myocardium", indices)]
        found = [
            f"{r['found'][k]['value']:.1f} (expert {r['expert'][k]:.1f})" if r["found"][k] else "missing"
            for k in ("lv_edv_ml", "lv_esv_ml", "lv_ef_percent")
        ]
        name = f"{r['scan'][1]}, {r['scan'][3]}"
        yield f"| {name} | " + " | ".join(f"{c:.3f}" for c in cells) + " | " + " | ".join(found) + " |"


def position_table(rows: Sequence[Row]) -> Iterator[str]:
    words = ("no heart", *PLACES)
    counts = np.zeros((4, 4), dtype=int)
    for r in rows:
        for true, found in r["positions"]:
            counts[true, found] += 1
    yield "| slice is | " + " | ".join(f"taken for {w}" for w in words) + " |\n|" + " --- |" * 5
    for k, word in enumerate(words):
        yield f"| {word} | " + " | ".join(str(c) for c in counts[k]) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    rows = [json.loads(line) for path in parser.parse_args().files for line in path.read_text().splitlines()]
    test = [r for r in rows if r["scan"][0] == "test" and not r["scan"][2]]
    first = [r for r in test if r["scan"][3] == "ensemble"]
    validation = [r for r in rows if r["scan"][0] == "validation"]
    parts: list[tuple[str, Iterator[str]]] = [("Real hearts", real_table([r for r in rows if r["scan"][0] == "real"]))]
    if first:
        parts += [
            (f"{len(first)} test patients (synthetic)", dice_table(first)),
            ("Biomarkers", biomarker_table(first)),
            ("Slice positions", position_table(first)),
            ("Audit", audit_table(first)),
            ("Uncertainty", correlation_table(test)),
            ("Rescan", rescan_table(first, [r for r in rows if r["scan"][0] == "test" and r["scan"][2]])),
        ]
    if validation:
        parts.append(("Intervals", coverage_table(test, validation)))
    for title, lines in parts:
        print(f"\n{title}\n")
        for line in lines:
            print(line)
    for way in sorted({r["scan"][3] for r in test}):
        some = [r for r in test if r["scan"][3] == way]
        errors_, images = np.sum([r["betti"] for r in some], 0)
        seconds = np.median([r["seconds"] for r in some])
        print(
            f"\n{way}: expected calibration error {calibration_error(some):.4f}, Betti errors per 100 middle images "
            f"{100 * errors_ / max(images, 1):.1f}, {seconds:.1f} s a stack"
        )


if __name__ == "__main__":
    main()
