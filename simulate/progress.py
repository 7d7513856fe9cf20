"""What a person sees while a scan runs, on stderr: alive on a terminal, else one line per finished slice."""

from __future__ import annotations

import sys
from typing import Any, Self

from kspace.scan import RadialScan
from simulate.record import SliceRecord, StepRecord


class ScanProgress:
    """Shows the slices of a scan; its methods are what :func:`simulate.run.run_scan` calls.

    Parameters
    ----------
    cap_s
        Longest scan time of a slice in seconds.

    Attributes
    ----------
    n_slices
        How many slices are to be scanned; 0 until it is known.
    """

    def __init__(self, cap_s: float) -> None:
        from rich.console import Console
        from rich.spinner import Spinner

        self._console = Console(stderr=True)
        self.n_slices, self._cap_s = 0, cap_s
        self._lines: dict[int, tuple[str, ...]] = {}
        self._finished: set[int] = set()
        self._spinner = Spinner("dots", "opening the source, getting the first slice ready")
        self._live: Any = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.live import Live

            self._live = Live(self._view(), console=self._console, refresh_per_second=8)
            self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.update(self._table() if self._lines else "")  # without the spinner
            self._live.__exit__(*error)

    def spokes(self, index: int, batch: RadialScan) -> None:
        """Tell that a batch of spokes was measured, which is reconstructed next."""
        if self._live is not None:
            measured = f"slice {index}: {float(batch.time_s[-1]):.1f} s of spokes measured, reconstructing"
            self._spinner.update(text=measured)

    def step(self, index: int, step: StepRecord) -> None:
        """Show a decision."""
        if self._live is not None:
            self._show(index, step)

    def slice(self, record: SliceRecord) -> None:
        """Show a finished slice."""
        last = record.steps[-1]
        self._finished.add(record.index)
        if self._live is not None:
            self._show(record.index, last, "bold green" if record.stopped else "bold yellow")
            self._spinner.update(text="writing; getting the next slice ready")
            return
        scores = ", ".join(f"{s.name.replace('_', ' ')} {s.value:.3f}" for s in last.scores if s.value == s.value)
        seconds = f"{record.seconds:g} s of {self._cap_s:g}"
        print(
            f"slice {record.index}: {seconds}, {scores or 'no scores yet'}: {last.reason}", file=sys.stderr, flush=True
        )

    def _show(self, index: int, step: StepRecord, style: str = "") -> None:
        by_name = {score.name: score for score in step.scores}
        cells = [str(index), f"{step.seconds:.1f} s of {self._cap_s:g}"]
        for name in ("prediction_error", "image_change"):
            score = by_name.get(name)
            known = score is not None and score.value == score.value
            cells.append(f"{score.value:.3f} / {score.limit:g}" if known and score is not None else "–")
        self._lines[index] = (*cells, step.reason, style)
        self._live.update(self._view(), refresh=True)

    def _view(self) -> Any:
        from rich.console import Group

        return Group(self._table(), self._spinner) if self._lines else self._spinner

    def _table(self) -> Any:
        from rich.table import Table

        title = f"{len(self._finished)} of {self.n_slices} slices finished"
        table = Table(box=None, pad_edge=False, title=title, title_justify="left")
        for name in ("slice", "scan time", "prediction error", "image change", "decision"):
            table.add_column(name, no_wrap=name != "decision")
        for *cells, style in self._lines.values():
            table.add_row(*cells, style=style)
        return table
