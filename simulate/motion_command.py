"""What ``spokewise motion`` does: judge the spokes of a file, draw and tabulate what was found, write what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from kspace.coils import whiten
from kspace.delay_estimate import find_delays
from kspace.delays import NO_DELAYS, GradientDelays
from kspace.delays import correct as correct_delays
from kspace.errors import InputError, UsageError
from kspace.formats.files import temporary_beside
from kspace.formats.mrd import ScanWriter
from kspace.formats.source import open_source
from kspace.gating import assign_frames
from kspace.motion.correct import Corrected, correct
from kspace.motion.detector import FLAGGED, Detector
from kspace.motion.examine import FEWEST
from kspace.motion.reasons import REASONS, reason_of
from kspace.motion.rigid import undo
from kspace.noise import noise_std
from kspace.scan import Cine, RadialScan
from simulate.motion_plot import Timeline, draw_timelines, timeline_of
from simulate.opened import with_frames
from simulate.output import require_free


def motion_command(
    raw: Path,
    picture: Path,
    *,
    out: Path | None = None,
    n_frames: int | None = None,
    delays: GradientDelays | Literal["auto"] = NO_DELAYS,
    detector: Detector | None = None,
    overwrite: bool = False,
    on_slice: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Judge all slices of a radial ISMRMRD file.

    Parameters
    ----------
    raw
        The file.
    picture
        PNG to draw the timelines into.
    out
        ISMRMRD file for what can be trusted: each spoke in the frame that it fits (the phase counter), motion undone,
        what is distrusted left out, the trust of the rest in ``user_float[0]``.
    n_frames
        See :func:`simulate.opened.with_frames`.
    delays
        Gradient delays to correct before.
    detector
        The shipped network by default.
    overwrite
        Whether files that are there may be replaced.
    on_slice
        Hears of each slice.

    Raises
    ------
    UsageError, InputError
        When the names, the file or its frames are not usable; nothing is left behind.
    """
    if picture.suffix != ".png":
        raise UsageError(f"{picture.name} does not end in .png", expected="a name for a PNG picture")
    for path in (picture, *(() if out is None else (out,))):
        if path.exists() and path.samefile(raw):
            raise UsageError(f"{path} is the file itself and would be replaced", expected="another name")
        require_free(path, overwrite=overwrite)
        temporary_beside(path)
    scan = open_source(raw)
    if isinstance(scan, Cine):
        raise InputError(f"{raw.name} holds images", expected="a radial ISMRMRD file")
    scan, frames = with_frames(scan, n_frames)
    applied, _ = find_delays(scan if delays != "auto" else whiten(scan), delays)
    scan = correct_delays(scan, applied)
    slices, lines = [], []
    writer = None if out is None else ScanWriter(out)
    try:
        for index in (int(i) for i in torch.unique(scan.slices)):
            one = scan.select_slice(index)
            if one.n_spokes < FEWEST:
                raise InputError(f"slice {index} has {one.n_spokes} spokes", expected=f"at least {FEWEST}")
            white = whiten(one)
            noise = noise_std(white)
            frame = assign_frames(white, frames)
            found = correct(white, frame, frames, noise_std=noise, detector=detector)
            slices.append({"index": index, **slice_record(found)})
            lines.append(timeline_of(index, found, frame, noise_std=noise))
            if writer is not None:
                writer.append(*_trusted(scan, index, found))
            if on_slice is not None:
                on_slice(slices[-1])
        if writer is not None:
            writer.close()
    except BaseException:
        if writer is not None:
            writer.discard()
        raise
    draw_timelines(picture, lines, f"{scan.source}: distrust of each spoke")
    return {
        "raw": str(raw), "picture": str(picture), "out": None if out is None else str(out), "frames": frames,
        "slices": slices, "timeline": [_as_lists(line) for line in lines],
    }  # fmt: skip


def slice_record(found: Corrected) -> dict[str, Any]:
    """Return the numbers of a slice."""
    flagged = found.flagged
    why = reason_of(found.examined.features)[flagged]
    left_out = found.trust < FLAGGED
    return {
        "spokes": len(flagged),
        "flagged": int(flagged.sum()),
        "flagged_share": float(flagged.double().mean()),
        "put_into_another_frame": int(found.rebinned.sum()),
        "moved_back": int(found.moved.sum()),
        "left_out": int(left_out.sum()),
        "trusted": float(found.trust.sum()),
        "reasons": {
            name: int((why == number).sum()) for number, name in enumerate(REASONS) if bool((why == number).any())
        },
    }


def motion_text(answer: dict[str, Any]) -> str:
    """Return the table that a person reads."""
    lines = ["slice  spokes  distrusted      other frame  moved back  left out  why"]
    for one in answer["slices"]:
        why = ", ".join(f"{name} {count}" for name, count in one["reasons"].items()) or "-"
        lines.append(
            f"{one['index']:>5}  {one['spokes']:>6}  {one['flagged']:>5} ({100 * one['flagged_share']:4.1f} %)"
            f"  {one['put_into_another_frame']:>11}  {one['moved_back']:>10}  {one['left_out']:>8}  {why}"
        )
    lines.append(f"Timeline: {answer['picture']}")
    if answer["out"] is not None:
        lines.append(f"Trusted spokes: {answer['out']}")
    return "\n".join(lines)


def _trusted(scan: RadialScan, index: int, found: Corrected) -> tuple[RadialScan, torch.Tensor]:
    """Return the spokes of a slice as received, mended, without those that are distrusted, and their trust."""
    own = torch.nonzero(scan.slices == index)[:, 0]
    mended = undo(scan.select(own), found.moves)
    kept = found.trust >= FLAGGED
    if not bool(kept.any()):
        raise InputError(f"no spoke of slice {index} can be trusted", expected="some that agree with each other")
    return replace(mended, frame=found.frame).select(kept), found.trust[kept]


def _as_lists(line: Timeline) -> dict[str, Any]:
    def rounded(values: torch.Tensor) -> list[float]:
        return [round(float(value), 4) for value in values]

    return {
        "slice": line.index, "time_s": rounded(line.time_s), "ecg_s": rounded(line.ecg_s),
        "probability": rounded(line.probability), "trust": rounded(line.trust), "body_mm": rounded(line.body_mm),
        "turn_degrees": rounded(line.turn_degrees), "heart_mm": rounded(line.heart_mm),
    }  # fmt: skip
