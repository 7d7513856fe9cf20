"""A picture of a run: seconds on a logarithmic axis, a panel per problem and job, ours in colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

OURS, PEER, FLOOR = "#c8553d", "#9aa5b1", "#1f2933"


def draw(record: dict[str, Any], path: Path) -> None:
    """Write the picture as PNG."""
    panels: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in record["rows"]:
        if "median_s" in row:
            panels.setdefault((row["job"], row["problem"]), []).append(row)
    if not panels:
        panels[("nothing", "all tools failed")] = []
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    items = list(panels.items())
    tallest = [max(len(rows) for _, rows in items[i * columns : (i + 1) * columns]) for i in range(lines)]
    figure = Figure(figsize=(6.2 * columns, sum(0.27 * n + 1.1 for n in tallest)), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False, height_ratios=[0.27 * n + 1.1 for n in tallest]).ravel()
    for axis in axes[len(items) :]:
        axis.set_visible(False)
    for axis, ((job, problem), rows) in zip(axes, items, strict=False):
        rows = sorted(rows, key=lambda r: -r["median_s"])
        seconds = [r["median_s"] for r in rows]
        axis.barh(range(len(rows)), seconds, color=[OURS if r["tool"] == "spokewise" else PEER for r in rows])
        for i, row in enumerate(rows):
            mark = ("~" if row["frames_run"] < row["frames"] else "") + f"{row['median_s']:.3g}"
            axis.text(row["median_s"], i, f" {mark}{'*' if row['contended'] else ''}", va="center", fontsize=8)
            if "floor_s" in row:
                axis.plot([row["floor_s"]] * 2, [i - 0.4, i + 0.4], color=FLOOR, linewidth=1.5)
        names = [f"{r['tool']} {r['case']}".strip().replace("iterations alone", "(iterations)") for r in rows]
        axis.set_yticks(range(len(rows)), names, fontsize=8)
        axis.set_xscale("log")
        floors = [r["floor_s"] for r in rows if "floor_s" in r]
        if seconds:
            axis.set_xlim(min(seconds + floors) / 1.6, max(seconds) * 3)
        axis.set_title(f"{job}, {problem}", fontsize=9, loc="left")
        axis.tick_params(axis="x", labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.supxlabel(
        "seconds (lower is better); black: floor; *: busy machine; ~: scaled up from fewer frames", fontsize=9
    )
    figure.savefig(path, dpi=110, format="png")
