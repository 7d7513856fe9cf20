"""How a training went: a table and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kspace.formats.files import atomic_text, written_beside
from simulate.training.checkpoint import CurvePoint


def write_curve(folder: Path, curve: Sequence[CurvePoint]) -> None:
    """Write ``curve.csv``: step, seconds, mean training loss since the row before, validation."""
    rows = [f"{p.step},{p.seconds:.1f},{p.train_loss:.7g},{p.validation:.7g}" for p in curve]
    atomic_text(folder / "curve.csv", "\n".join(["step,seconds,train_loss,validation", *rows]) + "\n")


def draw_curve(folder: Path, curve: Sequence[CurvePoint], title: str) -> str:
    """Draw ``curve.png`` and return an empty string, or why there is none."""
    if not curve:
        return "no learning curve was drawn: nothing was validated"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    steps = [p.step for p in curve]
    axes.plot(steps, [p.train_loss for p in curve], label="training loss")
    axes.plot(steps, [p.validation for p in curve], label="validation")
    if all(value > 0 for p in curve for value in (p.train_loss, p.validation)):
        axes.set_yscale("log")
    axes.set(xlabel="step", title=title)
    axes.legend()
    with written_beside(folder / "curve.png") as temporary:
        figure.savefig(temporary, dpi=120)
    return ""
