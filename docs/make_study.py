"""Draw docs/pictures/study.png from a study (synthetic patients): ``python docs/make_study.py STUDY_FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from simulate.study.charts import COLOURS

mpl.use("Agg")


def main() -> None:
    record: dict[str, Any] = json.loads((Path(sys.argv[1]) / "study.json").read_text())
    curve = next(one for one in record["curves"] if one["name"] == "Error of EF")
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    left.fill_between(curve["seconds"], curve["low"], curve["high"], color="#394b59", alpha=0.15, lw=0)
    left.plot(curve["seconds"], curve["mean"], color="#394b59", label="all slices end together")
    for index, row in enumerate(record["policies"]):
        name, colour = row["policy"], COLOURS[index % len(COLOURS)]
        fixed = name.startswith("fixed")
        share, (low, high) = 100 * row["violation"], (100 * end for end in row["violation_interval"])
        style = {"color": "#9aa7b2" if fixed else colour, "marker": "s" if fixed else "o", "ms": 7}
        label = None if fixed and name != "fixed 12 s" else ("fixed times" if fixed else name)
        if not fixed:
            left.plot(row["seconds"], row["errors"]["lv_ef_percent"], ls="", **style)
        right.errorbar(row["seconds"], share, [[share - low], [high - share]], ls="", lw=1, label=label, **style)
    right.axhline(100 * record["alpha"], color="#b03a2e", lw=1, ls=":")
    right.annotate(
        f"allowed:\n{100 * record['alpha']:g} %", (1.01, 100 * record["alpha"]), xycoords=("axes fraction", "data"),
        color="#b03a2e", fontsize=8, va="center", annotation_clip=False,
    )  # fmt: skip
    left.set(xlabel="seconds per slice", ylabel="mean error of EF, points", xlim=(0, 12.4), ylim=(0, None))
    right.set(xlabel="seconds per slice", ylabel="patients out of tolerance, %", xlim=(0, 12.4), ylim=(-2, None))
    right.legend(fontsize=8, frameon=False)
    left.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    test = record["patients"]["test"]
    figure.suptitle(f"{test} virtual test patients, synthetic; bars and band: 90 %", fontsize=10)
    figure.savefig(Path(__file__).parent / "pictures" / "study.png", dpi=110)


if __name__ == "__main__":
    main()
