"""Tables in Markdown: everything of a run, and the few lines that the README shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COLUMNS = ("tool", "case", "median s", "spread s", "/ ours", "error", "MiB", "/ floor", "iterations", "notes")


def make_table(record: dict[str, Any]) -> str:
    """Return one table per problem and job."""
    hardware, options = record["hardware"], record["options"]
    lines = [f"{hardware['cpu']}, {options['threads']} threads, {record['started']}. {record['data'].capitalize()}."]
    lines.append("`*` the machine was busy with something else, `~` scaled up from fewer frames.")
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in record["rows"]:
        groups.setdefault((row["problem"], row["job"]), []).append(row)
    for (problem, job), rows in groups.items():
        lines += ["", f"### {job}, {problem}", "", _bar(COLUMNS), _bar(["---"] * len(COLUMNS))]
        lines += [_bar(_cells(row)) for row in sorted(rows, key=lambda r: r.get("median_s", float("inf")))]
    return "\n".join(lines) + "\n"


def readme_table(path: Path, *, matrix: int = 192, coils: int = 8) -> str:
    """Return a short table from a ``bench.json``: a line per job, ours and the best peer, for one problem size."""
    record = json.loads(path.read_text())
    lines = [_bar(("job", "spokes per frame", "ours, s", "best peer, s", "peer", "ours / floor", "error"))]
    lines.append(_bar(["---"] * 7))
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in record["rows"]:
        if row["matrix"] == matrix and row["coils"] == coils and "median_s" in row and "alone" not in row["case"]:
            case = "" if row["job"] == "normal" else row["case"]
            groups.setdefault((row["job"], case, row["spokes"]), []).append(row)
    for (job, case, spokes), rows in groups.items():
        ours = min((r for r in rows if r.get("fastest_of_ours") or r["tool"] == "spokewise"), key=_median, default=None)
        peer = min((r for r in rows if r["tool"] != "spokewise" and "miss" not in r), key=_median, default=None)
        if ours is None:
            continue
        lines.append(
            _bar(
                (
                    f"{job} {case}".strip(), spokes, _seconds(ours), _seconds(peer) if peer else "-",
                    peer["tool"] if peer else "-", _number(ours.get("ratio_to_floor"), ".1f"),
                    _number(ours.get("error"), ".0e"),
                )
            )
        )  # fmt: skip
    return "\n".join(lines) + "\n"


def _median(row: dict[str, Any]) -> float:
    return float(row["median_s"])


def _cells(row: dict[str, Any]) -> list[str]:
    if "failed" in row:
        return [row["tool"], row["case"], "-", "-", "-", "-", "-", "-", "-", row["failed"]]
    notes = [row.get("note", ""), row.get("miss", "")]
    if row.get("model_picks"):
        notes.append(f"model picks {row['model_picks']}")
    if row["frames_run"] < row["frames"]:
        notes.append(f"scaled up from {row['frames_run']} of {row['frames']} frames")
    return [
        row["tool"],
        row["case"],
        _seconds(row),
        f"{row['spread_s']:.2g}",
        _number(row.get("ratio_to_ours"), ".2f"),
        _number(row.get("error"), ".1e"),
        _number(row.get("peak_mib"), ".0f"),
        _number(row.get("ratio_to_floor"), ".1f"),
        str(row.get("iterations") or ""),
        "; ".join(note for note in notes if note),
    ]


def _seconds(row: dict[str, Any]) -> str:
    scaled = "~" if row["frames_run"] < row["frames"] else ""
    return f"{scaled}{row['median_s']:.3g}{'*' if row['contended'] else ''}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _bar(cells: Any) -> str:
    return "| " + " | ".join(str(c).replace("|", "/") for c in cells) + " |"
