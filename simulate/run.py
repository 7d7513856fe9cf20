"""Scan into a folder, so that whatever ends the scan, what was finished is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kspace.errors import SpokewiseError
from kspace.scan import RadialScan
from simulate.acquisition import LoopOptions, OnDelays, OnSpokes, OnStep, scan_stack
from simulate.body_scanner import BodyScanner
from simulate.output import Interrupted, ScanFolder
from simulate.record import ScanRecord, SliceRecord
from simulate.scan_heart import CineSegmenter
from simulate.scanner import SimulatedScanner
from simulate.source import Replay, SpokeSource
from simulate.stack_loop import scan_stack_together
from simulate.stack_policy import StackPolicy


@dataclass(frozen=True)
class ScanResult:
    """A scan that ran to its end: its record, what is in ``scan.json``, and the folder."""

    record: ScanRecord
    summary: dict[str, Any]
    folder: Path


def run_scan(
    source: SpokeSource,
    options: LoopOptions,
    out: Path,
    *,
    slices: Sequence[int],
    record_options: Mapping[str, object],
    seed: int = 0,
    overwrite: bool = False,
    segment: CineSegmenter | None = None,
    together: StackPolicy | None = None,
    on_spokes: OnSpokes | None = None,
    on_step: OnStep | None = None,
    on_slice: Callable[[SliceRecord], None] | None = None,
    on_delays: OnDelays | None = None,
) -> ScanResult:
    """Scan into a folder.

    Parameters
    ----------
    source, options, slices
        What is scanned, and how.
    out, overwrite
        The folder, see :class:`~simulate.output.ScanFolder`.
    record_options, seed
        For the record.
    segment
        Segments what was finished; None does not.
    together
        Decides on all slices at once; None lets each end by the rule of the options.
    on_spokes, on_step, on_slice, on_delays
        Hear of every batch of spokes, of every decision, of every slice, once it is safe, and of its gradient delays.

    Raises
    ------
    Interrupted
        When the user broke off; what was measured and finished is kept.
    SpokewiseError
        When a slice cannot be scanned. Finished slices are kept; without any, nothing is left behind.
    """
    tr_s = source.options.tr_s if isinstance(source, SimulatedScanner | BodyScanner) else _tr_s(source)
    folder = ScanFolder(
        out, source, slices=slices, options=record_options, seed=seed, tr_s=tr_s, overwrite=overwrite, segment=segment
    )
    finished = 0

    def spokes(index: int, batch: RadialScan) -> None:
        folder.on_spokes(index, batch)
        if on_spokes is not None:
            on_spokes(index, batch)

    def step(index: int, record: Any) -> None:
        folder.on_step(index, record)
        if on_step is not None:
            on_step(index, record)

    def done(record: SliceRecord) -> None:
        nonlocal finished
        folder.on_slice(record)
        finished += 1
        if on_slice is not None:
            on_slice(record)

    try:
        if together is None:
            scan_stack(
                source, options, slices=slices, on_slice=done, on_step=step, on_spokes=spokes, on_delays=on_delays
            )
        else:
            result = scan_stack_together(
                source, replace(options, times=together.times), together.policy, together.draw, slices=slices,
                on_slice=done, on_step=step, on_spokes=spokes, on_delays=on_delays,
            )  # fmt: skip
            folder.on_stop(together.record(result))
        record = folder.finish()
    except KeyboardInterrupt:
        if not folder.n_spokes:
            folder.abandon()
            raise Interrupted("nothing had been measured") from None
        folder.finish(interrupted=True)
        raise Interrupted(f"{finished} of {len(slices)} slices were finished and are kept in {out}") from None
    except BaseException as error:
        if finished:
            with suppress(SpokewiseError):  # the first error is the one to tell
                folder.finish(interrupted=True, error=str(error))
        else:
            folder.abandon()
        raise
    return ScanResult(record, folder.summary(record), out)


def _tr_s(source: SpokeSource) -> float | None:
    if not isinstance(source, Replay) or source.scan.n_spokes < 2:
        return None
    step = float(source.scan.time_s.diff().median())
    return step if step > 0 else None
